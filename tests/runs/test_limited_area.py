"""A limited area driven by a global run: what it takes at its rim, in one command and in two, and what it refuses."""

import re

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.derived.regridding import regridded
from emul.config.build import build
from emul.main import main
from emul.training.runs import open_run

pytestmark = pytest.mark.slow

NAMES = ["temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity", "surface_pressure"]
PLANET = {"truncation": 10, "levels": 4, "days": 20, "trajectories": 2, "spinup_days": 3}
PERIODS = (("train", "01-01", "01-20"), ("validation", "01-31", "02-06"), ("test", "02-09", "02-19"))
SPLITS = ",".join(f"{name}: [2001-{first}, 2001-{last}T18]" for name, first, last in PERIODS)
SHORT = ["hardware=debug", "training.validation_cases=1", "forecast.every=2d", "objective.rollout=2"]
INTERIOR = ["variables.static=[boundary_zone,interior]", "loss.mse.points={temperature: interior}"]


def planet(key: str) -> list[str]:
    """A few days of a coarse planet in place of that of the experiments, under a key of the configuration."""
    return [*(f"{key}.{name}={value}" for name, value in PLANET.items()), f"{key}.splits={{{SPLITS}}}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a global run, its forecast every second day, and a run of a part of the same data."""
    folder = tmp_path_factory.mktemp("area")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        globe = ["experiment=planet_lam_globe", *planet("data"), "model.embed=8", "model.layers=1", "name=globe"]
        assert main(["train", *globe, *SHORT]) == 0
        words = ["forecast", "run=outputs/train/globe", "every=2d"]
        assert main([*words, "lead=1d"]) == 0
        assert main([*words, "lead=6h", "name=short"]) == 0
        area = ["experiment=planet_lam_hi_lam", *planet("data.source"), "model.latent=8", *INTERIOR, "name=area"]
        assert main(["train", *area, *SHORT]) == 0
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
    assert main([*words, "boundary=outputs/train/globe", "name=both"]) == 0
    assert main([*words, "name=alone"]) == 0
    nested, both, alone, globe = map(forecast_of, ("nested", "both", "alone", "globe"))
    np.testing.assert_array_equal(nested["time"], globe["time"])
    driving = regridded(globe[NAMES], grid_of(nested), "bilinear")
    cut = build(open_run("outputs/train/area").config.data).dataset()
    rim = cut["boundary_zone"].values == 1
    for name in NAMES:
        truth = cut[name].sel(time=nested["time"] + nested["prediction_timedelta"])
        predicted, at_once, lone, prescribed, valid = (
            field.transpose("time", "prediction_timedelta", ..., "latitude", "longitude").values
            for field in (nested[name], both[name], alone[name], driving[name], truth)
        )
        np.testing.assert_allclose(predicted[..., rim], prescribed[..., rim], rtol=1e-6)
        np.testing.assert_allclose(lone[..., rim], valid[..., rim], rtol=1e-6)
        np.testing.assert_allclose(at_once, predicted, rtol=1e-4, atol=1e-4 * np.abs(valid).max())
        assert np.abs(prescribed - valid)[..., rim].max() > 1e-3 * np.abs(valid).max()
        assert (predicted != lone)[..., ~rim].any()
        assert (predicted != prescribed)[..., ~rim].mean() > 0.99  # some may be rounded alike


def test_refusals(here, capsys):
    words = ["forecast", "run=outputs/train/area", "lead=1d", "every=2d", "name=refused"]
    forecast_of("globe").drop_vars("surface_pressure").to_zarr("bare.zarr", mode="w")
    stores = {
        ("boundary=outputs/forecast/short",): "ends at a lead of 6 h; expected 24 h",
        ("boundary=outputs/forecast/globe", "init=2001-02-10"): "has no forecast from 2001-02-10",
        ("boundary=bare.zarr",): "has no surface_pressure, which are prescribed at the boundary",
        ("boundary=outputs/train/globe", "share=1/2"): "a run makes its forecast in one process",
        ("boundary=outputs/train/area",): "expected a run on rows and columns around the globe",
    }
    for arguments, message in stores.items():
        assert main([*words, *arguments]) != 0
        assert message in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert not (here / "outputs/forecast/refused").exists()
    assert main(["forecast", "run=outputs/train/globe", "boundary=outputs/forecast/globe", "lead=1d"]) != 0
    assert "reads no forcings *_at_boundary" in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_scores_statistics_and_pictures_of_an_area(here):
    assert main(["forecast", "run=outputs/train/area", "every=2d", "lead=12h"]) == 0
    inner = "{interior: {latitude: [19, 71], longitude: [-45, 45]}}"
    assert main(["eval", "run=outputs/train/area", f"regions=[global,northern-hemisphere,{inner}]"]) == 0
    scores = xr.open_dataset("outputs/eval/area/scores.nc")
    rmse = scores["temperature"].sel(metric="rmse")
    assert np.isfinite(rmse).all()
    assert (rmse.sel(region="interior") > rmse.sel(region="global")).all()  # the truth lies in the zone
    for name in ("report.html", "hero.png", "case.html"):
        assert (here / "outputs/eval/area" / name).stat().st_size > 10_000
    words = ["data=limited_area", *planet("data.source"), "data.source.season=false"]
    main(["data", "statistics", *words, "to=statistics.nc"])
    main(["data", "climatology", *words, "hours=[0]", "fields=[surface_pressure]", "to=climatology.zarr"])
    channels = xr.open_dataset("statistics.nc")["channel"].values
    assert {"temperature_70", "temperature_at_boundary_70", "surface_pressure"} <= {*channels}
    mean = xr.open_zarr("climatology.zarr")["surface_pressure"].isel(dayofyear=9, hour=0)
    cut = build(open_run("outputs/train/area").config.data).dataset()
    assert grid_of(cut).same_as(grid_of(mean.to_dataset()))
    assert abs(float(mean.mean()) - float(cut["surface_pressure"][:80:4].mean())) < 100.0
