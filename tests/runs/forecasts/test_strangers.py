"""Nothing in a run, checkpoint, manifest or experiment of a stranger is executed, nor reads this machine's secrets."""

import shutil

import pytest
from omegaconf import OmegaConf

import hostile
from data_pipelines.options.trust import trust_file
from emul.config.saved import saved_config
from emul.main import main
from emul.training.runs import open_run


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "executed"


@pytest.fixture(autouse=True)
def _own_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("EMUL_TRUST", "")
    monkeypatch.setenv("EMUL_CONF", "")


def refused(capsys, *words):
    """The message of a command that refuses its input before any work."""
    assert main([*map(str, words)]) == 2
    captured = capsys.readouterr()
    return captured.err + captured.out


@pytest.mark.parametrize("name", hostile.TARGETS)
def test_no_target_of_a_stranger_is_called(home, tmp_path, capsys, marker, name):
    run = hostile.changed_run(home.run("tame"), tmp_path / "run", {"data": hostile.node(name, marker)})
    said = refused(capsys, "forecast", f"run={run}", f"output={tmp_path}")
    assert "data._target_" in said
    assert hostile.TARGETS[name][0] in said
    assert not marker.exists()


@pytest.mark.parametrize("where", ["yaml", "checkpoint", "both"])
@pytest.mark.parametrize("place", hostile.places(None))
def test_targets_are_found_wherever_they_lie(home, tmp_path, capsys, marker, place, where):
    changes = hostile.places(hostile.node("os", marker))[place]
    run = hostile.changed_run(home.run("tame"), tmp_path / "run", changes, where)
    verb = "eval" if where == "yaml" and place == "metric" else "forecast"
    if where == "yaml" and place not in ("data", "below_data", "metric", "ranges"):
        return  # those keys of config.yaml are not read: the checkpoint's are
    assert "os.system" in refused(capsys, verb, f"run={run}", f"output={tmp_path}")
    assert not marker.exists()
    assert not (tmp_path / "forecast").exists()


def test_a_manifest_names_no_code(home, tmp_path, capsys, marker):
    assert main(["forecast", f"run={home.run('tame')}", f"output={tmp_path}", "lead=6h", "init=2003-01-14"]) == 0
    hostile.changed_manifest(tmp_path / "forecast" / "tame", hostile.node("os", marker))
    said = refused(capsys, "eval", f"run={home.run('tame')}", f"output={tmp_path}")
    assert "os.system" in said
    hostile.changed_manifest(tmp_path / "forecast" / "tame", {"_target_": "x.Y", "path": "${oc.env:HOME}"})
    assert "${oc.env:HOME}" in refused(capsys, "eval", f"run={home.run('tame')}", f"output={tmp_path}")
    assert not marker.exists()


@pytest.mark.parametrize("verb", ["check", "train", "plan", "run"])
def test_an_experiment_runs_nothing(tmp_path, capsys, marker, verb):
    (tmp_path / "experiment").mkdir()
    evil = {"data": hostile.node("os", marker), "model": {"deep": [hostile.node("eval", marker)]}}
    text = OmegaConf.to_yaml(OmegaConf.create(evil))
    (tmp_path / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{text}")
    said = refused(capsys, verb, "--config-dir", tmp_path, "experiment=evil")
    assert "os.system" in said
    assert "builtins.eval" in said
    assert not marker.exists()


def test_hydras_own_node_runs_nothing(tmp_path, capsys, marker):
    (tmp_path / "experiment").mkdir()
    evil = {"hydra": {"callbacks": {"x": hostile.node("os", marker)}}}
    (tmp_path / "experiment" / "evil.yaml").write_text(
        f"# @package _global_\n{OmegaConf.to_yaml(OmegaConf.create(evil))}"
    )
    for words in (["check"], ["train", "--cfg", "job"], ["train", "--info", "config"]):
        assert "hydra.callbacks.x" in refused(capsys, *words, "--config-dir", tmp_path, "experiment=evil")
    assert not marker.exists()


@pytest.mark.parametrize("key", ["data.path", "forecast.lead", "model.embed", "metric.rmse.name"])
def test_saved_interpolations_are_never_resolved(home, tmp_path, capsys, monkeypatch, key):
    monkeypatch.setenv("PRIVATE", "very-secret")
    changes = {key: "http://127.0.0.1:9/${oc.env:PRIVATE}"}
    run = hostile.changed_run(home.run("tame"), tmp_path / "run", changes)
    said = refused(capsys, "forecast", f"run={run}", f"output={tmp_path}")
    assert "${oc.env:PRIVATE}" in said
    assert "very-secret" not in said


def test_no_resolver_but_ours(capsys):
    from omegaconf import OmegaConf as Registry

    Registry.register_new_resolver("dangerous", lambda text: pytest.fail("it was called"), replace=True)
    try:
        assert "dangerous" in refused(capsys, "check", "name='${dangerous:x}'")
    finally:
        Registry.clear_resolver("dangerous")


def test_a_run_says_not_where_results_go(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = {"forecast.output": str(tmp_path / "elsewhere"), "forecast.name": "../../outside"}
    run = hostile.changed_run(home.run("tame"), tmp_path / "run", changes)
    assert main(["forecast", f"run={run}", "lead=6h", "init=2003-01-14"]) == 0
    assert (tmp_path / "outputs" / "forecast" / "run" / "manifest.json").is_file()
    assert not (tmp_path / "elsewhere").exists()


def test_folders_and_packages_run_once_they_are_trusted(home, tmp_path, capsys, monkeypatch):
    parts = tmp_path / "their_parts"
    parts.mkdir()
    (parts / "strange_net.py").write_text(
        "from os import system\nfrom emulators.models.sfno import SFNO\n\n\nclass Net(SFNO):\n    pass\n"
    )
    changes = {"model._target_": "strange_net.Net", "config_dir": str(parts)}
    run = hostile.changed_run(home.run("tame"), tmp_path / "run", changes)
    words = ["forecast", f"run={run}", f"output={tmp_path}", "lead=6h", "init=2003-01-14"]
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    assert "--trust" in refused(capsys, *words)
    assert not trust_file().exists()
    assert main([*words, "--trust", str(parts)]) == 0
    monkeypatch.setenv("EMUL_TRUST", "")
    shutil.rmtree(tmp_path / "forecast")
    assert main(words) == 0, "it is remembered"
    assert open_run(run).step.network.__class__.__name__ == "Net"
    through = hostile.changed_run(home.run("tame"), tmp_path / "second", {"model._target_": "strange_net.system"})
    assert "is only imported there" in refused(capsys, "forecast", f"run={through}", f"output={tmp_path}")
    assert trust_file().stat().st_mode & 0o777 == 0o600
    __import__("sys").modules.pop("strange_net", None)


def test_few_lines_that_stand_for_millions_of_values_are_refused():
    """Aliases of aliases, a list within itself, and lists too deep to be read."""
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    for text in (bomb, "a: &a [*a]", "a: " + "[" * 2000 + "]" * 2000):
        with pytest.raises(ValueError, match="Expected a configuration in it"):
            saved_config(text, "it")
    assert saved_config("a: &a [1, 2]\nb: *a\n", "it") == {"a": [1, 2], "b": [1, 2]}
