"""A name stands for a thing: kept work is taken up only where it is what would be made now, wherever it lies."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.files import checkpoints
from data_pipelines.forecasts.manifest import read_manifest
from emul.config.compose import compose, distinct_name, name_piece
from emul.config.saved import plain
from emul.evaluation.inputs import evaluation_digest
from emul.main import main
from emul.training.runs import open_run
from emulators.layers.low_rank import without_adapters

PERIODS = "train: [2001-01-01, 2001-02-28], validation: [2001-03-01, 2001-03-20], test: [2001-03-21, 2001-04-10]"
SPLITS = f"data.splits={{{PERIODS}}}"
TINY = [
    "data=netcdf", "data.path=d.nc", SPLITS, "variables.prognostic=[temperature,geopotential]", "hardware.threads=1",
    "training.steps=4", "training.validate_every=2", "logger=[csv]",
]  # fmt: skip
SMALL = [*TINY, "model=resnet_small", "model.blocks=1", "model.channels=8"]


def write_data(path="d.nc", seed=0, warmer=0.0):
    generator, times, size = np.random.default_rng(seed), 400, (8, 16)
    fields = np.zeros((times, *size))
    for n in range(1, times):
        fields[n] = 0.9 * np.roll(fields[n - 1], 1, 1) + 0.3 * generator.normal(size=size)
    dims = ("time", "latitude", "longitude")
    coordinates = {
        "time": xr.date_range("2001-01-01", periods=times, freq="6h"),
        "latitude": np.linspace(78.75, -78.75, 8),
        "longitude": np.arange(16) * 22.5,
    }
    variables = {
        "temperature": (dims, (280 + warmer + 5 * fields).astype("f4"), {"units": "K"}),
        "geopotential": (dims, (5000 + 5 * np.roll(fields, 1, 2)).astype("f4"), {"units": "m**2 s**-2"}),
    }
    xr.Dataset(variables, coordinates).to_netcdf(f"new-{path}")
    os.replace(f"new-{path}", path)  # as another program would, with the old one still open here


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with data to work in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_data()
    return tmp_path


def emul(*words):
    assert main(list(words)) == 0, words


def refused(capsys, *words):
    capsys.readouterr()
    assert main(list(words)) == 2, words
    return " ".join(capsys.readouterr().err.split())


def result(name):
    return json.loads(open(f"outputs/train/{name}/result.json").read())


def rows(folder):
    return {row["trial"]: row for row in csv.DictReader(open(f"{folder}/results.csv"))}


@pytest.mark.slow
def test_a_sweep_does_not_take_the_trials_of_another(place, capsys, warm_trials):
    emul("sweep", "seed=1,2", *SMALL)
    assert os.listdir("outputs/sweep") == ["netcdf_resnet_small_seed"]
    words = ["sweep", "seed=1,2", *TINY, "model=linear", "sweep.name=netcdf_resnet_small_seed"]
    said = refused(capsys, *words)
    assert "holds a trial of another sweep" in said
    assert "model._target_ was emulators.models.resnet" in said
    before = rows("outputs/sweep/netcdf_resnet_small_seed")
    emul(*words, "resume=anew")
    after = rows("outputs/sweep/netcdf_resnet_small_seed")
    assert before.keys() == after.keys() == {"seed1", "seed2"}
    emul("train", *TINY, "model=linear", "name=truth")
    assert float(after["seed1"]["score"]) == result("truth")["best"] != float(before["seed1"]["score"])
    write_data(seed=1)
    assert "the data have other content" in refused(capsys, *words)


@pytest.mark.slow
def test_values_that_differ_in_their_sign_have_folders_of_their_own(place, capsys):
    assert [name_piece(f"data.forcing={value}") for value in ("-8", "8", "-.5", "[-1]")] == [
        "forcing-8", "forcing8", "forcing-.5", "forcing1",
    ]  # fmt: skip
    taken = {}
    names = [distinct_name("forcing1", [f"data.forcing={value}"], taken) for value in ("[1]", "[-1]", "[1]", "[-1]")]
    assert len(set(names)) == 2
    assert names[:2] == names[2:]
    assert "seed: expected a whole number from 0, got -1" in refused(capsys, "sweep", "seed=1,-1", *SMALL)
    assert "seed: expected a whole number from 0, got -1" in refused(capsys, "train", "-m", "seed=1,-1", *SMALL)
    assert not os.path.exists("outputs")


@pytest.mark.slow
def test_an_evaluation_refuses_the_forecast_of_other_weights(place, capsys):
    emul("train", *SMALL, "name=a")
    emul("forecast", "run=outputs/train/a", "lead=12h")
    evaluation = ["eval", "run=outputs/train/a", "pictures=false"]
    emul(*evaluation)
    emul("eval", *evaluation[1:], "name=b")
    emul("eval", "compare", "a", "b")
    emul("train", *SMALL, "name=a", "seed=5", "resume=anew")
    assert "holds a forecast of other weights" in refused(capsys, *evaluation)
    assert "weights was" in refused(capsys, "forecast", "run=outputs/train/a", "lead=12h")
    emul("forecast", "run=outputs/train/a", "lead=12h", "resume=anew")
    emul(*evaluation)
    assert "after the scores of 'b' were written" in refused(capsys, "eval", "compare", "a", "b")
    write_data(warmer=1.0)
    assert "are not those that the forecast was made from (other content)" in refused(capsys, *evaluation)
    emul(*evaluation, "forecast=outputs/forecast/a", "truth=d.nc")
    shutil.rmtree("outputs/forecast/a")
    assert "make it first" in refused(capsys, *evaluation)


@pytest.mark.slow
def test_a_run_in_a_group_is_forecast_and_scored_in_its_group(place):
    for name, seed in (("one", 1), ("group/one", 2)):
        emul("train", *SMALL, f"name={name}", f"seed={seed}")
        emul("forecast", f"run=outputs/train/{name}", "lead=12h")
        emul("eval", f"run=outputs/train/{name}", "pictures=false")
    scores = []
    for name in ("one", "group/one"):
        assert read_manifest(f"outputs/forecast/{name}")["run"] == f"outputs/train/{name}"
        with xr.open_dataset(f"outputs/eval/{name}/scores.nc") as found:
            scores.append(float(found["temperature"].sel(metric="rmse", region="global")[0]))
    assert scores[0] != scores[1]


@pytest.mark.slow
def test_a_finished_training_goes_on_to_more_steps_or_says_why_not(place, capsys):
    emul("train", *SMALL, "name=a")
    words = ["train", *SMALL, "name=a", "training.steps=8"]
    assert "training.steps was 4, is 8" in refused(capsys, *words)
    emul(*words, "resume=changed")
    assert result("a")["step"] == 8
    assert "steps: 8" in open("outputs/train/a/config.yaml").read()
    assert checkpoints.load("outputs/train/a/checkpoints/last.ckpt")["emul"]["step"] == 8
    trained = open("outputs/train/a/config.yaml").read()
    said = refused(capsys, *words, "resume=changed", "optimizer.lr=0.1")
    assert "leaves none to make with what changed (optimizer.lr was" in said
    assert open("outputs/train/a/config.yaml").read() == trained
    emul(*words, "forecast.lead=3d")  # an option of another verb
    assert "lead: 3d" in open("outputs/train/a/config.yaml").read()
    assert "resume: expected one of" in refused(capsys, *words, "resume=maybe")


@pytest.mark.slow
def test_data_that_were_replaced_are_noticed_and_data_that_moved_are_not(place, capsys):
    words = ["train", *SMALL, "name=a", "training.checkpoint_every=2"]
    emul(*words)
    shutil.move("d.nc", "moved.nc")
    emul(*words, "data.path=moved.nc")
    write_data(seed=1)
    assert "the data have other content" in refused(capsys, *words)
    assert "other content" in refused(capsys, *words, "training.steps=8")
    emul(*words, "training.steps=8", "resume=changed")
    assert result("a")["step"] == 8


@pytest.mark.slow
def test_a_run_is_opened_from_elsewhere_moved_and_copied(place, monkeypatch, capsys):
    emul("train", *TINY, "model=linear", "name=group/a")
    assert "path: d.nc" in open("outputs/train/group/a/config.yaml").read()
    monkeypatch.chdir(place)
    forecast = ["forecast", "lead=12h", "output=results"]
    emul(*forecast, "run=here/outputs/train/group/a")
    emul("eval", "run=here/outputs/train/group/a", "output=results", "pictures=false")
    assert os.path.isfile("results/eval/group/a/scores.nc")
    shutil.move("here", "there")
    emul(*forecast, "run=there/outputs/train/group/a", "resume=anew")
    emul("eval", "run=there/outputs/train/group/a", "output=results", "pictures=false")
    shutil.copytree("there/outputs/train/group/a", "copy")
    shutil.copy("there/d.nc", "d.nc")
    shutil.rmtree("there")
    emul(*forecast, "run=copy")
    assert read_manifest("results/forecast/copy")["verdict"] == "verified"
    write_data("other.nc", warmer=2.0)
    emul(*forecast, "run=copy", "data.path=other.nc", "name=over")
    assert read_manifest("results/forecast/over")["settings"]["data"]["path"] == "other.nc"
    file = place / "copy" / "config.yaml"
    file.write_text(file.read_text().replace("output: residual", "output: absolute"))
    said = refused(capsys, *forecast, "run=copy", "name=edited")
    assert "disagree (step.output was residual, is absolute)" in said


@pytest.mark.slow
def test_weights_of_a_run_fit_by_name(place, capsys):
    emul("train", *SMALL, "name=a")
    words = ["train", *SMALL, "from_checkpoint=outputs/train/a", "training.steps=0"]
    emul(*words, "name=same")
    swapped = "variables.prognostic=[geopotential,temperature]"
    assert "step.output was residual, is absolute" in refused(capsys, *words, "step.output=absolute", "name=b")
    assert not os.path.exists("outputs/train/b")
    emul(*words, swapped, "name=swapped")
    order = "[temperature,geopotential]"
    emul(*words, swapped, f"step.reads={order}", f"step.writes={order}", "name=ordered")
    for name in ("swapped", "ordered"):
        assert result(name)["best"] == pytest.approx(result("same")["best"], rel=1e-5)
    capsys.readouterr()
    emul(*words, "data.timestep=12h", "name=slow")
    assert "was trained for steps of 6h, these are of 12h" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_taken_up_with_another_variable(place, capsys):
    one = "variables.prognostic=[temperature]"
    emul("train", *SMALL, one, "name=one")
    words = ["train", *SMALL, "from_checkpoint=outputs/train/one", "training.steps=0"]
    capsys.readouterr()
    emul(*words, "name=two")
    said = capsys.readouterr().out
    assert "new geopotential" in said
    assert "forecast as before" in said
    runs = [open_run(f"outputs/train/{name}") for name in ("one", "two")]
    before, after = (run.forecast("2001-03-21", "2d")["temperature"].values for run in runs)
    np.testing.assert_allclose(after, before, rtol=1e-5)  # BLAS may add other shapes in another order
    emul(*words, one, "transfer.scales=mixed", "name=again")
    emul(*words, one, "model.channels=16", "transfer.fresh=['*']", "name=anew")
    assert "scales" in refused(capsys, *words, "transfer.scales=all", "name=c")
    capsys.readouterr()
    emul(*words[:-2], "from_checkpoint=outputs/train/two", "training.steps=0", one, "name=back")
    assert "dropped geopotential" in capsys.readouterr().out


@pytest.mark.slow
def test_an_adapter_of_a_run_is_kept_apart_and_forecasts_as_the_run_that_learned_it(place, capsys):
    emul("train", *SMALL, "name=base")
    words = ["train", *SMALL, "from_checkpoint=outputs/train/base", "adapter=lora", "adapter.rank=2"]
    emul(*words, "name=tuned", "tuning.anchor=0.1", "optimizer.lr=0.01")
    base, tuned = (open_run(f"outputs/train/{name}") for name in ("base", "tuned"))
    weights, kept = (run.step.state_dict() for run in (base, tuned))
    rested = without_adapters(weights)
    assert all(torch.equal(without_adapters(kept)[name], value) for name, value in rested.items())
    forecast = ["forecast", "run=outputs/train/base", "init=2001-03-21", "lead=2d"]
    emul(*forecast, "adapter_file=outputs/train/tuned", "name=a")
    emul(*forecast, "adapter_file=outputs/train/tuned/adapter.pt", "merge_adapter=true", "name=b")
    emul("forecast", "run=outputs/train/tuned", *forecast[2:], "name=c")
    emul(*forecast, "name=d")
    a, b, c, d = (xr.open_zarr(f"outputs/forecast/{name}/forecast.zarr")["temperature"].values for name in "abcd")
    np.testing.assert_array_equal(a, c)
    np.testing.assert_allclose(b, a, rtol=1e-6)
    assert np.abs(d - a).max() > 1e-3
    said = refused(capsys, "forecast", "run=outputs/train/tuned", "adapter_file=outputs/train/base", "name=e")
    assert "adapter.pt" in said
    emul("train", *SMALL, "seed=1", "name=other")
    said = refused(capsys, "forecast", "run=outputs/train/other", "adapter_file=outputs/train/tuned", "name=e")
    assert "trained on other weights" in said
    emul("train", *SMALL, "from_checkpoint=outputs/train/tuned", "training.steps=0", "name=merged")
    run = open_run("outputs/train/merged")
    assert run.step.state_dict().keys() == weights.keys()
    np.testing.assert_allclose(run.forecast("2001-03-21", "2d")["temperature"].values, a, rtol=1e-6)
    assert "no weight fits 'haed'" in refused(capsys, *words, "tuning.trainable=[haed]", "name=f")


@pytest.mark.parametrize(
    "name",
    ["..", "../x", "/x", "a/../b", "", "' '", '"a\nb"', '"a\tb"', "a//b", "a/", ".x", "'~x'", "5", "null", "x" * 300],
)
def test_names_that_lead_elsewhere_are_refused_and_leave_nothing(place, capsys, name):
    before = sorted(place.rglob("*"))
    assert "name: expected a name such as baseline" in refused(capsys, "train", *SMALL, f"name={name}")
    if name not in ("5", "null"):  # a text here, and the default
        assert "name: expected a name such as" in refused(capsys, "sweep", "seed=1,2", *SMALL, f"sweep.name={name}")
    assert sorted(place.rglob("*")) == before


@pytest.mark.slow
def test_refused_trainings_leave_no_folder(place, capsys):
    refused(capsys, "train", *SMALL, "name=a", "data.path=nowhere.nc")
    refused(capsys, "train", *SMALL, "name=a", "optimizer.lr=fast")
    refused(capsys, "train", *SMALL, "name=a", "from_checkpoint=nowhere")
    refused(capsys, "train", *SMALL, "name=a", "scales=nowhere.nc")
    assert not os.path.exists("outputs")
    emul("train", *SMALL, "name=a")
    assert "would lie within the run" in refused(capsys, "train", *SMALL, "name=a/checkpoints")


@pytest.mark.slow
def test_stores_and_statistics_are_not_continued_with_other_settings(place, capsys):
    convert = ["data", "convert", *TINY[:4], "to=packed.zarr"]
    emul(*convert)
    emul(*convert)
    assert "units.temperature was not there, is degC" in refused(capsys, *convert, "data.units={temperature: degC}")
    assert "rename" in refused(capsys, *convert, "data.rename={temperature: geopotential, geopotential: temperature}")
    climatology = ["data", "climatology", *TINY[:4], "to=c.zarr"]
    emul(*climatology)
    emul(*climatology)
    assert "made otherwise" in refused(capsys, *climatology, "data.fill={temperature: 0}")
    write_data(seed=3)
    assert "fingerprint.content" in refused(capsys, *climatology)
    emul("data", "statistics", *TINY[:4], "to=s.nc")
    with xr.open_dataset("s.nc") as found:
        units = dict(zip(found["channel"].values, found["channel_units"].values, strict=True))
    assert {unit for channel, unit in units.items() if channel.startswith("temperature")} == {"K"}


@pytest.mark.slow
def test_an_evaluation_knows_the_content_of_what_it_is_compared_with(place):
    """Another ensemble of the truth, or another forecast under the same path, makes another evaluation."""
    times = "{train: [2001-01-01,2001-01-10], validation: [2001-01-11,2001-01-12], test: [2001-01-13,2001-01-20]}"
    small = ["data=lorenz96", "data.folder=cache", "data.days=40", "data.trajectories=1", "data.spinup_days=5"]
    words = ["data", "ensemble", *small, f"data.splits={times}", "inits=2001-01-13", "lead=12h", "members=2"]
    emul(*words)
    manifest = {"settings": {"data": plain(compose("train", words[2:8]).data)}}
    config = compose("eval", ["forecasts=f.zarr", "baselines=[persistence,perfect_model]"])
    before = evaluation_digest(config, manifest)
    emul(*words)
    assert evaluation_digest(config, manifest) == before
    emul(*words, "seed=1", "resume=anew")
    assert evaluation_digest(config, manifest) != before
    stored = compose("eval", ["forecasts=f.zarr", "truth=d.nc", "baselines=[{theirs: other.nc}]"])
    known = []
    for seed in (0, 1):
        write_data("other.nc", seed)
        known.append(evaluation_digest(stored, {}))
    assert known[0] != known[1]
