"""`emul init` proposes an experiment for data as they are: with comments, free of faults, trained as it stands."""

import re

import numpy as np
import pytest
import xarray as xr
import yaml

from data_pipelines.inspection.proposals import propose, split_times
from emul.main import main
from example_data import dataset


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder of a user who has era5.nc and nobody at the terminal."""
    dataset().to_netcdf(tmp_path / "era5.nc")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMUL_CONF", "")
    monkeypatch.setattr("sys.stdin", open("/dev/null"))
    return tmp_path


def test_an_experiment_is_written_and_has_no_faults(here, capsys):
    assert main(["init", "era5.nc", "model=unet"]) == 0
    said = capsys.readouterr().out
    assert "Next: emul run --config-dir my_parts experiment=era5_unet" in said
    text = (here / "my_parts" / "experiment" / "era5_unet.yaml").read_text()
    written = yaml.safe_load(text)
    assert written["variables"] == {
        "prognostic": ["temperature", "2m_temperature"],
        "forcing": [
            "sea_surface_temperature", "toa_incident_solar_radiation", "sin_year", "cos_year", "sin_day", "cos_day",
        ],
        "diagnostic": ["total_precipitation_6hr"],
        "static": ["land_sea_mask", "sin_latitude", "cos_latitude_sin_longitude", "cos_latitude_cos_longitude"],
    }  # fmt: skip
    assert written["data"]["fill"] == {"sea_surface_temperature": 273.15}
    assert "left out: soil_temperature" in text
    keys = [line for line in text.splitlines() if re.match(r" *\w+:( |$)", line)]
    assert all(
        "  # " in line or line in ("defaults:", "data:", "variables:", "training:", "forecast:") for line in keys
    ), keys
    assert main(["check", "--config-dir", "my_parts", "experiment=era5_unet"]) == 0
    assert "Next: emul train --config-dir my_parts experiment=era5_unet" in capsys.readouterr().out


@pytest.mark.slow
def test_it_is_trained_forecast_and_scored_as_it_stands(here):
    assert main(["init", "era5.nc", "name=first", "predict=[temperature]"]) == 0
    words = ["training.steps=4", "training.validate_every=2", "model.embed=16", "model.layers=1", "eval.pictures=false"]
    assert main(["run", "--config-dir", "my_parts", "experiment=first", *words]) == 0
    assert (here / "outputs" / "eval" / "first" / "scores.nc").is_file()


@pytest.mark.slow
def test_a_store_of_a_region_gets_a_unet_and_a_folder_of_files_is_one_dataset(here, capsys):
    region = dataset(latitude=np.linspace(60.0, 40.0, 9), longitude=np.linspace(0.0, 20.0, 10))
    region.to_zarr(here / "region.zarr", zarr_format=2)
    assert main(["init", "region.zarr", "--config-dir", "."]) == 0
    assert yaml.safe_load((here / "experiment/region_unet.yaml").read_text())["defaults"][0] == {
        "override /data": "zarr"
    }
    (here / "parts").mkdir()
    for index in range(2):
        dataset().isel(time=slice(60 * index, 60 * index + 60)).to_netcdf(here / "parts" / f"part_{index}.nc")
    assert main(["init", "parts", "name=joined", "model=linear", "folder=mine"]) == 0
    assert re.search(r"times +120, 2001-01-01", capsys.readouterr().out)
    assert (here / "mine/experiment/joined.yaml").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "write emul init era5/, or another folder"),
        (["nowhere.zarr"], "No data at nowhere.zarr; in this folder there is era5.nc"),
        (["era.nc"], "did you mean 'era5.nc'?"),
        (["era5.nc", "predict=[t2m]"], "did you mean '2m_temperature'?"),
        (["era5.nc", "predict=[t, sst, x]"], "did you mean 'temperature'?"),
        (["era5.nc", "model=sfon"], "did you mean 'sfno'?"),
        (["era5.nc", "name=planet_sfno"], "write name=planet_sfno_2"),
        (["era5.nc", "name=../x"], "expected a name such as era5_sfno"),
        (["era5.nc", "hours=0"], "above 0"),
        (["era5.nc", "modle=unet"], "did you mean model=?"),
        (["era5.nc", "batch=3"], "name=, folder=, predict=[...], model=, hours= and data.KEY=value; got batch=3"),
        (["era5.nc", "data.levls=[500]"], "write data.levels=[500]"),
        (["few.nc"], "Expected at least 48 times to train, validate and test on; got 20, every 6h"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_written(here, words, said, capsys):
    if words == ["few.nc"]:
        dataset(20).to_netcdf(here / "few.nc")
    assert main(["init", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (here / "my_parts").exists()


def test_a_file_that_exists_is_kept(here, capsys):
    (here / "my_parts" / "experiment").mkdir(parents=True)
    (here / "my_parts" / "experiment" / "mine.yaml").write_text("name: mine\n")
    assert main(["init", "era5.nc", "name=mine"]) == 2
    assert "mine.yaml exists; remove it, or write name=mine_2" in capsys.readouterr().err
    assert (here / "my_parts" / "experiment" / "mine.yaml").read_text() == "name: mine\n"


@pytest.mark.slow
def test_a_terminal_is_asked_until_the_answers_are_good(here, monkeypatch, capsys):
    class Terminal:
        def isatty(self):
            return True

    answers = iter(["era5.nc", "t2m", "2m_temperature", "lineer", "linear", "bad name/", "spoken"])
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda: next(answers))
    assert main(["init"]) == 0
    said = capsys.readouterr().out
    for part in ("did you mean '2m_temperature'?", "did you mean 'linear'?", "expected a name such as era5_sfno"):
        assert part in said
    written = yaml.safe_load((here / "my_parts/experiment/spoken.yaml").read_text())
    assert written["variables"]["prognostic"] == ["2m_temperature"]
    assert {"override /model": "linear"} in written["defaults"]


@pytest.mark.parametrize(
    ("times", "step", "train"),
    [
        (30 * 365, "1D", ["1981", "2004"]),
        (240, "MS", ["1981", "1996"]),
        (365 * 4, "6h", ["1981-01", "1981-10"]),
        (100, "6h", ["1981-01-01", "1981-01-21"]),
        (60, "1h", ["1981-01-01T00", "1981-01-02T19"]),
    ],
)
def test_splits_are_whole_years_months_or_days_and_follow_each_other(times, step, train):
    made = xr.Dataset(coords={"time": xr.date_range("1981-01-01", periods=times, freq=step)})
    splits = split_times(made)
    assert splits["train"] == train
    ordered = [date for split in ("train", "validation", "test") for date in splits[split]]
    assert ordered == sorted(ordered)
    assert len(dict.fromkeys(ordered)) >= 3


def test_impossible_values_and_constant_fields_are_left_out_with_the_reason():
    celsius = dataset(60)
    celsius["2m_temperature"] = celsius["2m_temperature"] - 273.15
    celsius["temperature"].attrs["units"] = "K"
    celsius["land_sea_mask"][:] = 1.0
    celsius = celsius.assign(orography=dataset(60)["2m_temperature"].isel(time=0).expand_dims(time=celsius["time"]))
    made = propose(celsius.transpose("time", "level", "latitude", "longitude"))
    assert "is beyond 165 to 345" in made.left_out["2m_temperature"]
    assert made.left_out["land_sea_mask"] == "the same everywhere"
    assert "orography" in made.roles["static"]
    assert made.roles["prognostic"] == ["temperature"]
    with pytest.raises(ValueError, match="can be predicted"):
        propose(celsius[["land_sea_mask", "soil_temperature"]])


def test_a_split_ends_with_the_data_within_a_month():
    splits = split_times(dataset(times=800, step="1D"))  # to 2003-03-11
    assert splits["test"] == ["2003-01", "2003-03-11T00:00:00"]
    assert split_times(dataset(times=730, step="1D"))["test"][1] == "2002-12"
