"""What an evaluation can be asked for: presets, derived fields, other baselines, the climate, our own climatologies."""

import re

import numpy as np
import pytest
import xarray as xr

from data_pipelines.opening.datasets import open_dataset
from data_pipelines.opening.forecasts import open_forecast
from data_pipelines.options.folders import options_of
from data_pipelines.verification.baselines import reference_forecasts
from data_pipelines.verification.pairs import Pairs
from emul.config.compose import compose
from emul.eval import evaluate
from emul.main import main
from emulators.metrics.rmse import RMSE

LATITUDE, LONGITUDE = np.linspace(75, -75, 6), np.arange(12) * 30.0
INITS = np.datetime64("2004-02-27", "ns") + np.arange(4) * np.timedelta64(12, "h")
LEADS = np.arange(6, 121, 6)
DIMS = ("time", "level", "latitude", "longitude")


@pytest.fixture(scope="module")
def truth():
    """Four years and a bit, every 6 hours: winds, temperature, rain; the last is a leap year."""
    time = np.arange("2001-01-01", "2004-03-10", np.timedelta64(6, "h"), dtype="datetime64[ns]")
    generator = np.random.default_rng(0)
    upper = generator.normal(0, 5, (3, time.size, 2, 6, 12)).astype("float32")
    surface = generator.normal(280, 3, (time.size, 6, 12)).astype("float32")
    surface += 10 * np.cos(2 * np.pi * np.arange(time.size) / 1461)[:, None, None].astype("float32")
    rain = np.maximum(generator.normal(0, 1e-3, (time.size, 6, 12)), 0).astype("float32")
    return xr.Dataset(
        {
            "u_component_of_wind": (DIMS, upper[0], {"units": "m s-1"}),
            "v_component_of_wind": (DIMS, upper[1], {"units": "m s-1"}),
            "temperature": (DIMS, 250 + upper[2], {"units": "K"}),
            "2m_temperature": (DIMS[:1] + DIMS[2:], surface, {"units": "K"}),
            "total_precipitation_6hr": (DIMS[:1] + DIMS[2:], rain, {"units": "m"}),
            "land_sea_mask": (DIMS[2:], np.tile([1.0, 0.0], (6, 6)).astype("float32")),
        },
        {"time": time, "level": [500, 850], "latitude": LATITUDE, "longitude": LONGITUDE},
    )


def forecast_of(truth, inits=INITS, leads=LEADS, offset=1.0):
    """The truth at the valid time plus `offset` in everything but rain."""
    valid = xr.DataArray(inits[:, None] + leads.astype("timedelta64[h]"), dims=("time", "prediction_timedelta"))
    made = truth.drop_vars("land_sea_mask").sel(time=valid).drop_vars("time")
    made = made.assign(
        {name: made[name] + offset for name in made.data_vars if "rain" not in name and "prec" not in name}
    )
    made = made.transpose("time", "prediction_timedelta", "level", "latitude", "longitude").astype("float32")
    return made.assign_coords(time=inits, prediction_timedelta=("prediction_timedelta", leads, {"units": "hours"}))


@pytest.fixture(scope="module")
def stores(truth, tmp_path_factory):
    """Forecast, truth, and another forecast that lacks an initial time, leads and winds."""
    folder = tmp_path_factory.mktemp("stores")
    paths = {name: folder / f"{name}.nc" for name in ("forecast", "truth", "other")}
    truth.to_netcdf(paths["truth"])
    forecast_of(truth).to_netcdf(paths["forecast"])
    other = forecast_of(truth, INITS[1:], LEADS[:10], 3.0)
    other.drop_vars(["u_component_of_wind", "v_component_of_wind"]).to_netcdf(paths["other"])
    return paths


@pytest.fixture(scope="module")
def climatology(stores, tmp_path_factory):
    """The truth's own, as the command makes it."""
    path = tmp_path_factory.mktemp("climatology") / "climatology.zarr"
    words = ["years=[2001,2003]", "quantiles=[0.9]", "fields=[2m_temperature,total_precipitation_6hr]"]
    assert main(["data", "climatology", str(stores["truth"]), f"to={path}", *words]) == 0
    return path


def scores(folder, stores, *words, **options):
    """The folder of an evaluation of the forecast against the truth."""
    given = {"pictures": "false", "maps.fields": "[]", "spectra.fields": "[]", "output": folder} | options
    files = [f"forecasts={stores['forecast']}", f"truth={stores['truth']}"]
    return evaluate(compose("eval", [*files, *words, *(f"{key}={value}" for key, value in given.items())]))


def loaded(target, name="scores.nc"):
    return xr.load_dataset(target / name, decode_timedelta=True)


def test_derived_fields_are_those_of_the_formulas(tmp_path, stores, truth):
    fields = "wind_speed,vorticity,vorticity_weatherbench2,divergence,total_precipitation_24hr"
    found = loaded(
        scores(tmp_path, stores, f"derive=[{fields}]", "metric=[bias]", regions="[global]", leads="[12h,1d]")
    )
    one = found.sel(metric="bias", region="global")
    assert set(fields.split(",")) <= set(found.data_vars)
    rain = one["total_precipitation_24hr"]
    assert np.isnan(rain.isel(lead_time=0)), "a sum over 24 h is not known 12 h ahead"
    np.testing.assert_allclose(rain.isel(lead_time=1), 0, atol=1e-9)
    valid = (INITS + np.timedelta64(24, "h")).astype("datetime64[ns]")
    u, v = (truth[f"{x}_component_of_wind"].sel(time=valid, level=850).values.astype(float) for x in "uv")
    edges = np.sin(np.deg2rad([90, 60, 30, 0, -30, -60, -90]))
    weights = ((edges[:-1] - edges[1:]) / 2)[:, None] / 12
    speed = ((np.hypot(u + 1, v + 1) - np.hypot(u, v)) * weights).sum((1, 2)).mean()
    np.testing.assert_allclose(one["wind_speed"].sel(level=850).isel(lead_time=1), speed, rtol=1e-5)
    shear = one["vorticity_weatherbench2"].sel(level=850)
    np.testing.assert_allclose(shear, 0, atol=1e-9)  # a uniform offset has no derivative in WeatherBench 2's form


@pytest.mark.slow
def test_the_climatology_made_here_serves_acc_seeps_and_thresholds(tmp_path, stores, climatology):
    metrics = "metric=[acc,seeps_6hr,csi,ets,sedi,brier]"
    target = scores(tmp_path, stores, metrics, f"climatology={climatology}", fields="all", regions="[global]")
    found = loaded(target)
    assert set(found["metric"].values) == {"acc", "seeps_6hr", "csi", "ets", "sedi", "brier"}
    near = found["2m_temperature"].isel(region=0, lead_time=0)
    assert 0.9 < near.sel(metric="acc") < 1
    assert 0.3 < near.sel(metric="csi") < 1
    assert found["total_precipitation_6hr"].isel(region=0, lead_time=0).sel(metric="seeps_6hr") == pytest.approx(
        0, abs=1e-6
    )
    assert np.isnan(found["temperature"].sel(metric="acc")).all()
    assert found.attrs["climatology"].endswith("without u_component_of_wind, v_component_of_wind, temperature")


def test_sampled_years_are_members(tmp_path, stores, truth, capsys):
    words = ["baselines=[probabilistic_climatology]", "sampled_years=[2001,2004]", "metric=[rmse,crps,spread]"]
    target = scores(tmp_path, stores, *words, fields="[2m_temperature]", regions="[global]")
    found = loaded(target, "baselines.nc").sel(source="probabilistic_climatology", region="global")["2m_temperature"]
    valid = INITS[:, None] + LEADS[None].astype("timedelta64[h]")
    start = valid.astype("datetime64[Y]")
    members = np.stack(
        [
            truth["2m_temperature"].sel(time=(np.datetime64(str(y)) + (valid - start)).ravel())
            for y in (2001, 2002, 2003)
        ]
    ).astype(float)
    target_fields = truth["2m_temperature"].sel(time=valid.ravel()).values.astype(float)
    edges = np.sin(np.deg2rad([90, 60, 30, 0, -30, -60, -90]))
    weights = ((edges[:-1] - edges[1:]) / 2)[:, None] / 12
    error = (np.square(members.mean(0) - target_fields) * weights).sum((1, 2)).reshape(valid.shape).mean(0) ** 0.5
    np.testing.assert_allclose(found.sel(metric="rmse"), error, rtol=1e-6)
    spread = (members.var(0, ddof=1) * weights).sum((1, 2)).reshape(valid.shape).mean(0) ** 0.5
    np.testing.assert_allclose(found.sel(metric="spread"), spread, rtol=1e-6)
    assert "probabilistic_climatology has 3 members; 2004" in capsys.readouterr().err
    with pytest.raises(ValueError, match="at least 2 years"):
        scores(tmp_path, stores, "baselines=[probabilistic_climatology]", "sampled_years=[1990,2001]")


def test_years_of_a_preset_that_the_truth_lacks_are_told(stores):
    pairs = Pairs(open_forecast(stores["forecast"]), open_dataset(stores["truth"]))
    asked = ["probabilistic_climatology"], pairs, {"rmse": RMSE()}, None, (1990, 2001), 64.0
    found, notes = reference_forecasts(*asked, strict=False)
    assert not found
    assert notes[0].startswith("probabilistic_climatology left out: A probabilistic climatology needs at least 2 years")
    with pytest.raises(ValueError, match="at least 2 years"):
        reference_forecasts(*asked)


def test_another_store_is_a_baseline_on_the_same_pairs(tmp_path, stores, capsys):
    words = [f"baselines=[persistence,{{other: {stores['other']}}}]", "metric=[rmse]"]
    target = scores(tmp_path, stores, *words, regions="[global]")
    found = loaded(target, "baselines.nc")
    assert found["source"].values.tolist() == ["persistence", "other"]
    rmse = found["2m_temperature"].sel(source="other", metric="rmse", region="global")
    np.testing.assert_allclose(rmse[:10], 3, rtol=1e-5)
    assert np.isnan(rmse[10:]).all()
    assert found["inits"].sel(source="other").values.tolist() == [3] * 10 + [0] * 10
    assert np.isnan(found["u_component_of_wind"].sel(source="other")).all()
    said = capsys.readouterr().err
    assert "other lacks 50 of the 80 pairs" in said
    assert "other lacks u_component_of_wind_500" in said
    with pytest.raises(ValueError, match=r"such as .hres: hres\.zarr"):
        scores(tmp_path, stores, "baselines=[persistance]")


@pytest.mark.slow
@pytest.mark.parametrize("preset", [name for name in options_of("eval") if name != "default"])
def test_presets_take_what_there_is(tmp_path, stores, climatology, preset, capsys):
    words = ["sampled_years=[2001,2003]", *([] if preset == "s2s" else [f"climatology={climatology}"])]
    target = scores(tmp_path, stores, f"eval={preset}", "inits=all", *words)
    found, config = loaded(target), compose("eval", [f"eval={preset}"])
    asked = set(config.metric)
    assert set(found["metric"].values) | {"crps", "crps_fair"} <= asked | {"crps", "crps_fair"}
    assert "rmse" in found["metric"].values
    said = capsys.readouterr().err
    if config.get("fields"):
        assert "geopotential" in said
        assert "left out" in said
    if preset.startswith("wb2"):
        assert found["wind_speed"].sizes["level"] == 2
        assert "total_precipitation_24hr" in found
        assert {"tropics_land", "ausnz"} <= set(found["region"].values) | {"ausnz"}
        assert "The forecast has no lead of" in said
    if preset == "climate":
        assert "trends left out of the climate: 0 of the 10 whole years needed" in said
        assert loaded(target, "climate.nc")["2m_temperature"].sel(metric="bias", region="global") == pytest.approx(
            1, abs=1e-3
        )


def test_the_dates_of_a_preset_that_are_not_there_are_refused(tmp_path, stores):
    with pytest.raises(ValueError, match="inits=all"):
        scores(tmp_path, stores, "eval=wb1")
    with pytest.raises(ValueError, match=r"derive: needs geopotential"):
        scores(tmp_path, stores, "derive=[geopotential_thickness]")


@pytest.mark.slow
def test_the_climate_with_pictures(tmp_path, stores):
    target = scores(tmp_path, stores, "climate=true", regions="[global]", pictures="true", fields="[2m_temperature]")
    assert [path.name for path in (target / "climate").iterdir()] == ["2m_temperature_mean.png"]
    page = (target / "report.html").read_text()
    assert "annual means left out" in page
    assert re.search(r"2m temperature[^<]*, mean over", page)
