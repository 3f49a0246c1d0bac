"""Climatologies by day of the year: WeatherBench 2's own numbers, closed forms, stores that are whole or not there."""

import json

import numpy as np
import pytest
import xarray as xr

from data_pipelines.opening.datasets import open_dataset
from data_pipelines.verification import climatology_store
from data_pipelines.verification.baselines import ClimatologyFile
from data_pipelines.verification.climatology_store import Recipe, Samples, climatology, days_without
from emul.main import main
from emulators.grid import LatLonGrid
from emulators.statistics.climatology import (
    calendar,
    dry_fraction,
    mean_and_std,
    quantiles,
    seeps_threshold,
    window_weights,
)
from emulators.variables import Variable, VariableSet
from places import SHARED

FOLDER = SHARED / "reference" / "verification"
T2M, RAIN = "2m_temperature", "total_precipitation_6hr"
reference = pytest.mark.skipif(not FOLDER.is_dir(), reason="the reference numbers are not beside this checkout")


@pytest.fixture(scope="module")
def weather():
    """Three years of a coarse world, every 12 hours, with a leap year, rain and a sea with missing points."""
    time = np.arange("2019", "2022", np.timedelta64(12, "h"), dtype="datetime64[ns]")
    generator = np.random.default_rng(0)
    season = 10 * np.cos(2 * np.pi * np.arange(time.size) / 730.5)[:, None, None, None]
    upper = 260 + season + generator.normal(0, 2, (time.size, 2, 3, 4))
    rain = np.maximum(generator.normal(0, 1e-3, (time.size, 3, 4)), 0)
    sea = 290 + generator.normal(0, 1, (time.size, 3, 4))
    sea[:, 1, 2] = np.nan
    dims = ("time", "level", "latitude", "longitude")
    return xr.Dataset(
        {
            "temperature": (dims, upper.astype("f4"), {"units": "K"}),
            RAIN: (dims[:1] + dims[2:], rain.astype("f4"), {"units": "m"}),
            "sea_surface_temperature": (dims[:1] + dims[2:], sea.astype("f4"), {"units": "K"}),
            "land_sea_mask": (dims[2:], np.ones((3, 4), "f4")),
        },
        {"time": time, "level": [500, 850], "latitude": [60.0, 0.0, -60.0], "longitude": np.arange(4) * 90.0},
    )


@pytest.fixture(scope="module")
def source(weather, tmp_path_factory):
    path = tmp_path_factory.mktemp("weather") / "weather.nc"
    weather.to_netcdf(path)
    return path


@reference
def test_weatherbench_numbers():
    data, want = open_dataset(FOLDER / "clim_source_8x4.nc"), xr.load_dataset(FOLDER / "expected_climatology_8x4.nc")
    days, weights = want["dayofyear"].values - 1, window_weights()
    expected = json.loads((FOLDER / "expected_values_A.json").read_text())["wb2_window_weights_61"]
    np.testing.assert_allclose(weights, expected, atol=1e-15)
    want = want.transpose("quantile", "number", "hour", "dayofyear", "latitude", "longitude").isel(
        latitude=slice(None, None, -1)
    )

    def assert_same(found, name, rtol=1e-12):
        np.testing.assert_allclose(found[..., days, :], want[name].values.reshape(*found.shape[:-2], 12, 32), rtol=rtol)

    samples = Samples(data, Recipe())
    warm, rain = (samples.of(data[name], lambda share: None) for name in (T2M, RAIN))
    mean, std = (np.stack(part) for part in zip(*(mean_and_std(hour, weights) for hour in warm), strict=True))
    assert_same(mean, "mean_explicit")
    assert_same(std, "std_explicit")
    assert_same(np.stack([mean_and_std(hour, window_weights(15))[0] for hour in warm]), "mean_window_15")
    assert_same(mean.mean(0), "daily_mean_explicit")
    assert_same(np.stack([dry_fraction(hour, 61, 1e-4) for hour in rain]), f"{RAIN}_seeps_dry_fraction")
    want = want.isel(hour=[1])  # the others by the same road
    some = quantiles(warm[1], weights, want["quantile"].values)[:, None]
    assert_same(some, f"{T2M}_quantile")
    assert_same(seeps_threshold(rain[1], weights, 1e-4)[None], f"{RAIN}_seeps_threshold")
    without = {"mean_fast", "std_fast"}  # the same mean by another road; a standard deviation of daily means
    assert without < set(want.data_vars)


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_a_quantile_by_hand():
    """Equal weights give numpy's quantile; the day itself alone counts in a window of three."""
    samples = np.random.default_rng(1).normal(size=(9, 366, 5)).astype(np.float32)
    samples[2:5, 100, 3] = np.nan
    samples[:, 200, 4] = np.nan
    levels = [0.1, 0.5, 0.9]
    found = quantiles(samples, window_weights(3), levels)
    np.testing.assert_allclose(found, np.nanquantile(samples.astype(np.float64), levels, axis=0), rtol=1e-12)
    assert np.isnan(found[:, 200, 4]).all()
    assert np.isnan(found).sum() == 3


def test_moments_leave_out_what_is_missing():
    samples = np.random.default_rng(2).normal(300, 2, (4, 366, 3))
    samples[1, 50:90, 0] = np.nan
    weights = window_weights(7)
    mean, std = mean_and_std(samples, weights)
    values = np.concatenate([samples[:, 57:64, 0]])
    weight = np.where(np.isnan(values), 0, weights)
    direct = np.nansum(weight * values) / weight.sum()
    spread = np.sqrt(np.nansum(weight * (values - direct) ** 2) / weight.sum())
    np.testing.assert_allclose([mean[60, 0], std[60, 0]], [direct, spread], rtol=1e-10)


def test_days_of_the_year():
    year, day, second = calendar(np.array(["2019-03-01T06", "2020-03-01", "2020-12-31"], dtype="datetime64[h]"))
    assert (year.tolist(), day.tolist(), second.tolist()) == ([2019, 2020, 2020], [59, 60, 365], [21600, 0, 0])


@pytest.mark.parametrize("width", [2, 1, 367])
def test_bad_windows_are_refused(width):
    with pytest.raises(ValueError, match="odd number of days"):
        Recipe(window=width)


def test_the_command_makes_what_eval_reads(source, tmp_path, capsys):
    path = tmp_path / "normal.zarr"
    words = [
        "data",
        "climatology",
        str(source),
        f"to={path}",
        "quantiles=[0.25,0.9]",
        "window=31",
        "levels=[850]",
        "hours=[12]",
    ]
    assert main(words) == 0
    variables = VariableSet((Variable("temperature", "K", (850.0,)), Variable(RAIN, "m")))
    grid = LatLonGrid(np.array([60.0, 0.0, -60.0]), np.arange(4) * 90.0)
    file = ClimatologyFile(path, variables, grid)
    when = np.array(["2020-02-29T12", "2021-03-01T12"], dtype="datetime64[s]")
    assert {
        name: file.has(name) for name in ("std", "quantile_0.25", "quantile_0.9", "seeps_threshold")
    } == dict.fromkeys(("std", "quantile_0.25", "quantile_0.9", "seeps_threshold"), True)
    mean, low, high = (file(when, name).numpy() for name in ("mean", "quantile_0.25", "quantile_0.9"))
    assert (low[:, 0] < mean[:, 0]).all()
    assert (mean[:, 0] < high[:, 0]).all()
    share = file(when, "seeps_dry_share")[0, 1].numpy()
    np.testing.assert_allclose(share, 0.5398, atol=0.06)  # 0.1 mm is a tenth of a standard deviation
    stored = xr.open_zarr(path)
    assert stored["temperature_quantile"].dims == ("hour", "quantile", "dayofyear", "level", "latitude", "longitude")
    assert "land_sea_mask" not in stored
    assert np.isnan(stored["sea_surface_temperature"].sel(latitude=0, longitude=180)).all()
    assert stored["sea_surface_temperature"].isnull().mean() == pytest.approx(1 / 12)
    assert "Next: emul eval run=... climatology=" in capsys.readouterr().out


def values_of(path):
    return xr.open_zarr(path).load()


def test_blocks_do_not_change_the_numbers_and_a_stopped_one_goes_on(weather, tmp_path, monkeypatch):
    recipe = Recipe(window=5, variables=["temperature"], levels=(850.0, 500.0), hours=(12,))
    whole = climatology(weather, tmp_path / "whole.zarr", recipe)
    calls, original = [], climatology_store._of_hour

    def stops(samples, part, recipe):
        calls.append(part.name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(samples, part, recipe)

    monkeypatch.setattr(climatology_store, "_of_hour", stops)
    path = tmp_path / "parts.zarr"
    with pytest.raises(KeyboardInterrupt):
        climatology(weather, path, recipe, megabytes=0.3)
    assert not path.exists()
    climatology(weather, path, recipe, megabytes=0.3)
    assert len(calls) == 1 + 2 * 3  # levels x rows, one of them twice
    assert values_of(path).attrs == values_of(whole).attrs
    xr.testing.assert_allclose(values_of(path), values_of(whole), rtol=1e-6)
    by_level = climatology(weather, tmp_path / "levels.zarr", recipe, megabytes=0.6)  # one level fits
    xr.testing.assert_allclose(values_of(by_level), values_of(whole), rtol=1e-6)
    assert not list(tmp_path.glob(".*"))
    before = len(calls)
    climatology(weather, path, recipe)
    assert len(calls) == before  # it is there
    with pytest.raises(ValueError, match="made otherwise"):
        climatology(weather, path, Recipe(window=7))


def test_a_period_of_the_data(weather, tmp_path):
    one = climatology(weather, tmp_path / "one.zarr", Recipe(period=("2020", "2020"), window=3, hours=(12,)))
    stored = values_of(one)
    assert stored.attrs["years"] == [2020, 2020]
    direct = weather["temperature"].sel(time="2020-02-29T12").values
    np.testing.assert_allclose(stored["temperature"].sel(hour=12, dayofyear=60), direct, rtol=1e-6)
    np.testing.assert_allclose(stored["temperature_std"], 0, atol=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["years=[1850,1860]"], "no time from 1850"),
        (["quantiles=[1.5]"], "between 0 and 1"),
        (["fields=[temprature]"], "did you mean 'temperature'"),
        (["levels=[300]", "fields=[temperature]"], "No level 300"),
        (["quantile=[0.5]"], "did you mean quantiles="),
        (["years=[2019,2020,2021]"], "the first and the last"),
        (["split=train"], "no splits"),
    ],
)
def test_what_makes_no_sense_is_told(source, tmp_path, words, said, capsys):
    assert main(["data", "climatology", str(source), f"to={tmp_path / 'x.zarr'}", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_days_without_data_are_counted(weather):
    assert days_without(weather, Recipe()) == 0
    january = Recipe(period=("2019-01-01", "2019-01-10"), window=7)
    assert days_without(weather, january) == 366 - 10 - 4
    december = Recipe(period=("2019-12-31", "2019-12-31"), window=3)
    assert days_without(weather, december) == 364  # an ordinary year's last day stands for the 366th


def test_monthly_data_have_no_days(weather, tmp_path):
    with pytest.raises(ValueError, match="daily data or finer"):
        climatology(weather.resample(time="1MS").mean(), tmp_path / "x.zarr", Recipe())
