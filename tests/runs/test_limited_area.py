"""A limited area driven by the forecast of a global run: what it takes at its rim, and what it refuses."""

import re

import numpy as np
import pytest
import xarray as xr
from omegaconf import OmegaConf

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.derived.regridding import regridded
from data_pipelines.sources.weatherbench2 import WeatherBench2
from emul.main import main

pytestmark = pytest.mark.slow

NAMES = ["temperature", "surface_pressure"]
AREA = "{latitude: [15, 75], longitude: [-60, 60], boundary: 9, prescribe: [temperature, surface_pressure]}"
SPLITS = (
    "data.splits={train: [2001-01-01, 2001-01-20T18], validation: [2001-01-31, 2001-02-06T18],"
    "test: [2001-02-09, 2001-02-19T18]}"
)
SMALL = ["hardware=debug", "training.steps=4", "training.validation_cases=1", "forecast.every=2d"]
VARIABLES = ["variables.prognostic=[temperature,surface_pressure]", "variables.forcing=[]", "variables.static=[]"]
PRESCRIBED = [
    "constraint=[prescribed]",
    "constraint.prescribed.mask=boundary_zone",
    "constraint.prescribed.variables={temperature: temperature_at_boundary,"
    "surface_pressure: surface_pressure_at_boundary}",
]
FORCED = "variables.forcing=[temperature_at_boundary,surface_pressure_at_boundary]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a global run, its forecast every second day, and a run of a part of the same data."""
    folder = tmp_path_factory.mktemp("area")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["data", "regrid", "data=planet_tiny", "grid=32x16_gaussian", "to=planet.zarr"])
        source = ["data=weatherbench2", "data.path=planet.zarr", SPLITS]
        assert main(["train", *source, *VARIABLES, *SMALL, "model=linear", "name=globe"]) == 0
        words = ["forecast", "run=outputs/train/globe", "every=2d"]
        assert main([*words, "lead=1d"]) == 0
        assert main([*words, "lead=6h", "name=short"]) == 0
        cut = [*VARIABLES[:1], FORCED, "variables.static=[boundary_zone,interior]", f"data.area={AREA}"]
        area = [*source, *cut, *PRESCRIBED, *SMALL, "model=hi_lam_small", "model.latent=8", "name=area"]
        assert main(["train", *area]) == 0
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def forecast_of(name: str) -> xr.Dataset:
    return xr.open_zarr(f"outputs/forecast/{name}/forecast.zarr")


def test_the_rim_is_that_of_the_driving_forecast(here):
    words = ["forecast", "run=outputs/train/area", "every=2d", "lead=1d"]
    assert main([*words, "boundary=outputs/forecast/globe", "name=nested"]) == 0
    assert main([*words, "name=alone"]) == 0
    nested, alone, globe = forecast_of("nested"), forecast_of("alone"), forecast_of("globe")
    np.testing.assert_array_equal(nested["time"], globe["time"])
    driving = regridded(globe[NAMES], grid_of(nested), "bilinear")
    cut = WeatherBench2("planet.zarr", area=OmegaConf.to_container(OmegaConf.create(AREA))).dataset()
    rim = cut["boundary_zone"].values == 1
    for name in NAMES:
        truth = cut[name].sel(time=nested["time"] + nested["prediction_timedelta"])
        predicted, lone, prescribed, valid = (
            part[name].transpose("time", "prediction_timedelta", ..., "latitude", "longitude").values
            for part in (nested, alone, driving, truth.to_dataset())
        )
        np.testing.assert_allclose(predicted[..., rim], prescribed[..., rim], rtol=1e-6)
        np.testing.assert_allclose(lone[..., rim], valid[..., rim], rtol=1e-6)
        assert np.abs(prescribed - valid)[..., rim].max() > 1e-3 * np.abs(valid).max()
        assert (predicted != lone)[..., ~rim].any()
        assert (predicted != prescribed)[..., ~rim].all()


def test_refusals(here, capsys):
    words = ["forecast", "run=outputs/train/area", "lead=1d", "every=2d", "name=refused"]
    stores = {
        ("boundary=outputs/forecast/short",): "ends at a lead of 6 h; expected 24 h",
        ("boundary=outputs/forecast/globe", "init=2001-02-10"): "has no forecast from 2001-02-10",
        ("boundary=bare.zarr",): "has no surface_pressure, which are prescribed at the boundary",
    }
    forecast_of("globe").drop_vars("surface_pressure").to_zarr("bare.zarr", mode="w")
    for arguments, message in stores.items():
        assert main([*words, *arguments]) != 0
        assert message in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert not (here / "outputs/forecast/refused").exists()
    assert main(["forecast", "run=outputs/train/globe", "boundary=outputs/forecast/globe", "lead=1d"]) != 0
    assert "reads no forcings *_at_boundary" in re.sub(r"\s+", " ", capsys.readouterr().err)
