"""Secrets are used, and stand in no file: typed ones become `***`, those of the environment stay `${oc.env:NAME}`."""

import pytest
from omegaconf import OmegaConf

import hostile
from data_pipelines.conventions.suggestions import ConfigErrors, masked_address
from data_pipelines.options.trust import redacted
from emul.config.build import build
from emul.config.compose import compose
from emul.config.saved import saved_config, saved_plain, saved_text
from emul.main import main
from emul.training.continuation import changes, write_config
from emul.training.runs import open_run

SECRET = "hunter2-hunter2"
WEATHER = ["data=weatherbench2", "data.path=s3://bucket/era5.zarr"]


@pytest.fixture(autouse=True)
def _own_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("EMUL_SECRET", SECRET)


@pytest.mark.parametrize(
    "options",
    [
        f"data.storage_options={{key: {SECRET}, secret: {SECRET}1, anon: false}}",
        f"data.storage_options={{client_kwargs: {{headers: {{Authorization: {SECRET}}}}}}}",
        f"data.path='https://user:{SECRET}@host/store.zarr'",
        f"data.path='https://host/store.zarr?X-Amz-Signature={SECRET}&part=1'",
        f"logger=mlflow logger.mlflow.uri=http://user:{SECRET}@host",
        "data.storage_options={secret: '${oc.env:EMUL_SECRET}'}",
        "data.path='s3://${oc.env:EMUL_SECRET}/x.zarr'",
    ],
)
@pytest.mark.slow
def test_no_secret_stands_in_a_file(tmp_path, options, capsys):
    words = options.split(" logger") if options.startswith("logger") else [options]
    words = [words[0], *(f"logger{word}" for word in words[1:])]
    config = compose("train", [*WEATHER, *words])
    write_config(tmp_path, config)
    text = (tmp_path / "config.yaml").read_text()
    assert SECRET not in text
    assert "***" in text or "${oc.env:EMUL_SECRET}" in text
    assert main(["train", *WEATHER, *words, "--cfg", "job"]) == 0
    assert SECRET not in capsys.readouterr().out
    assert changes(OmegaConf.create(text), config, tmp_path, None, {}) == [], "the same training goes on"


def test_a_value_of_the_environment_is_used(monkeypatch):
    config = compose("train", [*WEATHER, "data.storage_options={secret: '${oc.env:EMUL_SECRET}'}"])
    assert build(config.data).storage_options == {"secret": SECRET}
    assert build(compose("train", ["data=netcdf", "data.path='${oc.env:EMUL_SECRET}/x'"]).data).path == f"{SECRET}/x"
    assert compose("train", ["data=netcdf", "data.path='${oc.env:NOT_THERE,plain}'"]).data.path == "plain"
    chained = compose("train", ["name='${output}'", "output='${oc.env:EMUL_SECRET}'"])
    assert (chained.name, saved_plain(chained)["name"]) == (SECRET, "${output}")


def test_ones_own_settings_are_resolved_again_and_no_others(tmp_path):
    config = compose("train", [*WEATHER, "data.storage_options={secret: '${oc.env:EMUL_SECRET}'}"])
    text = saved_text(config)
    assert saved_config(text, "mine").data.storage_options.secret == SECRET
    assert saved_config(saved_plain(config.data), "mine", group="data").storage_options.secret == SECRET
    for before, after in (
        ("s3://bucket", "s3://theirs"), ("${oc.env:EMUL_SECRET}", "${oc.env:HOME}"),
        ("${oc.env:EMUL_SECRET}", "${oc.env:EMUL_SECRET,'${name}'}"), ("seed: 0", "seed: ${oc.env:EMUL_SECRET}"),
    ):  # fmt: skip
        with pytest.raises(ConfigErrors, match=r"oc\.env"):
            saved_config(text.replace(before, after), "theirs")


def test_a_secret_that_was_left_out_is_asked_for():
    config = OmegaConf.create(saved_plain(compose("train", [*WEATHER, f"data.storage_options={{secret: {SECRET}}}"])))
    with pytest.raises(ConfigErrors, match=r"storage_options.secret: expected a value, got \*\*\*"):
        build(config.data)


def test_a_run_elsewhere_takes_what_the_command_gives(home, tmp_path, monkeypatch, capsys):
    run = hostile.changed_run(home.run("tame"), tmp_path / "run", {"data.path": "${oc.env:EMUL_SECRET}"})
    words = ["forecast", f"run={run}", f"output={tmp_path}", "lead=6h", "init=2003-01-14"]
    assert main(words) == 2
    assert "data.path=..." in capsys.readouterr().err
    assert main([*words, f"data.path={home.data}"]) == 0
    with pytest.raises(ConfigErrors, match=r"\*\*\*"):
        open_run(run).archive()


@pytest.mark.slow
def test_forecasts_keep_no_secret(home, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FOLDER", str(home.folder))
    words = [f"run={home.run('tame')}", f"output={tmp_path}"]
    more = ["lead=6h", "init=2003-01-14", "data.path='${oc.env:FOLDER}/data.nc'"]
    assert main(["forecast", *words, *more]) == 0
    folder = tmp_path / "forecast" / "tame"
    for file in ("manifest.json", "config.yaml"):
        assert "${oc.env:FOLDER}/data.nc" in (folder / file).read_text()
    assert main(["eval", *words, "pictures=false"]) == 0, "and the truth is found again"
    assert main(["forecast", *words, *more]) == 0


def test_messages_and_job_scripts_keep_no_secret(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    typed = f"data.storage_options={{secret: {SECRET}}}"
    assert main(["train", *WEATHER, typed, "hardware=slurm", "--dry-run"]) == 2
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert "expected a secret from the environment" in said.err
    assert redacted(f"403 for {SECRET} at https://a:b@host/") == "403 for *** at https://***@host/"


def test_addresses():
    assert masked_address("gs://bucket/a@b") == "gs://bucket/a@b"
    assert masked_address("https://x:y@h/a?sig=1&b=2") == "https://***@h/a?sig=***&b=2"
