"""Guards from a training to its scores: what it has seen is kept, and forecasts of it are marked or refused."""

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.batches.seen import seen_of_card
from data_pipelines.files import checkpoints
from data_pipelines.files.fingerprints import read_json, write_json
from data_pipelines.forecasts.manifest import read_manifest
from data_pipelines.opening.published import card_path
from emul.config.compose import compose
from emul.eval import evaluate
from emul.forecast import forecast
from emul.main import main

SEEN = "forecasts are of times that the run was trained on"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run of two steps, and one tuned from it on later dates."""
    folder = tmp_path_factory.mktemp("guarded")
    few = [
        "data=planet_tiny",
        "model=unet",
        "hardware=debug",
        "training.steps=2",
        f"output={folder}",
        "training.validation_cases=1",
    ]
    assert main(["train", *few, "name=base"]) == 0
    later = ["data.splits.train=[2001-02-09,2001-02-14]", "data.splits.test=[2001-01-31,2001-02-06T18]"]
    later += [f"from_checkpoint={folder}/train/base", "name=tuned"]
    assert main(["train", *few, *later]) == 0
    return folder


def card(folder, name):
    return checkpoints.load(folder / "train" / name / "checkpoints" / "last.ckpt")["emul"]


@pytest.mark.slow
def test_a_run_carries_what_it_and_its_base_have_seen(trained):
    base, tuned = (card(trained, name) for name in ("base", "tuned"))
    assert seen_of_card(base).train == (("2001-01-01T00:00:00", "2001-01-20T18:00:00"),)
    assert seen_of_card(tuned).train == (*seen_of_card(base).train, ("2001-02-09T00:00:00", "2001-02-14T18:00:00"))
    for channel, values in base["world"]["scales"].items():
        if len(values) > 4:
            low, high, least, greatest = values[4]
            lower, higher, *_ = tuned["world"]["scales"][channel][4]
            assert lower <= low <= least <= greatest <= high <= higher


@pytest.mark.slow
def test_forecasts_of_the_test_split_are_not_marked(trained, capsys):
    assert main(["forecast", f"run={trained}/train/base", f"output={trained}", "lead=6h", "name=later"]) == 0
    assert read_manifest(trained / "forecast" / "later")["marks"] == {}
    assert "trained on" not in capsys.readouterr().err


@pytest.mark.slow
def test_forecasts_of_training_are_marked_from_forecast_to_score_card(trained, capsys):
    words = [f"run={trained}/train/tuned", f"output={trained}"]
    assert main(["forecast", *words, "init=2001-01-19", "lead=6h"]) == 0
    assert SEEN in capsys.readouterr().err
    manifest = read_manifest(trained / "forecast" / "tuned")
    assert SEEN in manifest["marks"]["training_dates"][0]
    assert manifest["seen"]["train"][1] == ["2001-02-09T00:00:00", "2001-02-14T18:00:00"]
    assert main(["eval", *words, "pictures=false"]) == 0
    assert SEEN in capsys.readouterr().err
    with pytest.raises(ValueError, match=SEEN):
        evaluate(compose("eval", [*words, "guards.training_dates=refuse"]))
    with pytest.raises(ValueError, match=SEEN):
        forecast(compose("forecast", [*words, "init=2001-01-19", "lead=6h", "guards.training_dates=refuse"]))


@pytest.mark.slow
def test_a_run_from_published_weights_has_their_card_and_their_dates(trained):
    weights = card(trained, "base")["weights"]
    file = trained / "theirs.pt"
    network = {name.removeprefix("network."): w for name, w in weights.items() if name.startswith("network.")}
    torch.save({"state_dict": network}, file)
    few = ["data=planet_tiny", "model=unet", "hardware=debug", "training.steps=0", f"output={trained}"]
    for name, entry, train, unknown in (
        ("stated", {"name": "theirs", "train": [["1979", "2017"]]}, (("1979", "2017"),), ()),
        ("unstated", {"name": "theirs", "train": None}, (), ("theirs.pt",)),
    ):
        write_json(card_path(file), entry)
        assert main(["train", *few, f"from_checkpoint={file}", f"name={name}"]) == 0
        seen = seen_of_card(card(trained, name))
        assert (seen.train, seen.unknown) == (train, unknown)
        assert read_json(trained / "train" / name / "model_card.json")["name"] == "theirs"
        assert all(len(values) < 5 for values in card(trained, name)["world"]["scales"].values())


def test_an_analysis_in_other_units_is_named_before_the_first_step(home, tmp_path):
    data = home.fields()
    data["2m_temperature"] = data["2m_temperature"] + 30.0
    data["2m_temperature"].attrs["units"] = "K"
    data.to_netcdf(tmp_path / "warm.nc")
    checkpoint = home.run("tame") / "checkpoints" / "last.ckpt"
    assert any(len(values) > 4 for values in checkpoints.load(checkpoint)["emul"]["world"]["scales"].values())
    words = ["data=netcdf", f"data.path={tmp_path}/warm.nc", "init=2003-01-12", "lead=6h", "guards.ranges=refuse"]
    with pytest.raises(
        ValueError, match=r"^2m_temperature: its mean of .* lies .* above .* guards\.ranges=mark goes on"
    ):
        forecast(home.config(tmp_path, *words))
    assert not (tmp_path / "forecast").exists()
    xr.open_dataset(tmp_path / "warm.nc").isel(time=slice(44, 50)).to_netcdf(tmp_path / "short.nc")
    words = ["data=netcdf", f"data.path={tmp_path}/short.nc", "init=2003-01-12", "lead=6h"]
    folder = forecast(home.config(tmp_path, *words))
    (told,) = read_manifest(folder)["marks"]["ranges"]
    assert np.isclose(float(told.split(" lies ")[1].split()[0]), 30.0, atol=0.5)


def test_a_forecast_that_drifts_is_marked_or_stops_and_goes_on(home, tmp_path, capsys):
    """Stopped in the second of its segments, and then made whole by the same command with another word."""
    words = ["init=2003-01-13", "lead=2d", "segment=1d", "writer.chunk_megabytes=1e-5"]
    growing = home.run("growing")
    if not growing.is_dir():
        home.save_run(growing, home.data, home.fields(), growth=3.0)
    with pytest.raises(ValueError, match=r"^At lead \S+ the forecast from 2003-01-13T.* guards\.drift=mark goes on"):
        forecast(home.config(tmp_path, *words, "guards.drift=refuse", run="growing"))
    stopped = read_manifest(tmp_path / "forecast" / "growing")
    assert (stopped["finished"], stopped["marks"]) == (False, {})
    folder = forecast(home.config(tmp_path, *words, run="growing"))
    drift = read_manifest(folder)["marks"]["drift"]
    assert drift[0] in stopped["reasons"][0]
    assert drift[0] in " ".join(capsys.readouterr().err.split())
    ignored = forecast(home.config(tmp_path, *words, "guards.drift=ignore", "name=ignored", run="growing"))
    assert read_manifest(ignored)["marks"] == {}
    same = (xr.open_zarr(path / "forecast.zarr")["temperature"].values for path in (folder, ignored))
    np.testing.assert_array_equal(*same)
    capsys.readouterr()
    two = ["init=[2003-01-13,2003-01-14]", "batch_size=1", "name=two", *words[1:]]
    kinds = len(read_manifest(forecast(home.config(tmp_path, *two, run="growing")))["marks"]["drift"])
    assert capsys.readouterr().err.count("leaves") == kinds  # once, not for each initial time
