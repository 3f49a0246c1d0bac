"""The climate of forecasts: bias, variability, trend and Nino index that were put in are found again; ClimateBench."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import gumbel_r

from data_pipelines.opening.datasets import open_dataset
from emulators.grid import LatLonGrid, equiangular_grid
from emulators.scores.climate import area_mean, nino_index, nrmse_global, nrmse_spatial, slope, whole_years
from emulators.state import State
from emulators.statistics.area_means import region_weights
from emulators.statistics.climatology import return_level
from emulators.variables import Variable, VariableSet
from emulators.verification.climate import ClimateCard
from emulators.verification.climate_dataset import climate_dataset
from emulators.world import World
from places import SHARED

GRID = equiangular_grid(18, 24)
VARIABLES = VariableSet((Variable("temperature", "K", (500.0, 850.0)), Variable("sea_surface_temperature", "K")))
WORLD = World(GRID, VARIABLES, np.timedelta64(5, "D"))
MONTHLY = VariableSet((Variable("temperature", "K", (850.0,)), Variable("sea_surface_temperature", "K")))
OTHERS = {"transports", "precipitation"}  # of which these variables have nothing
WEIGHTS = GRID.weights.ravel() / GRID.weights.sum()


def series(years, seed=0):
    """Twelve years of truth every 5 days: a season, noise of 1 K, half a kelvin a decade; and a forecast of it that is
    2 K too warm in the north, varies twice as much, warms by 1.5 K a decade."""
    times = np.arange("2001", str(2001 + years), np.timedelta64(5, "D"), dtype="datetime64[D]").astype("datetime64[s]")
    generator = np.random.default_rng(seed)
    decades = (times - times[0]) / np.timedelta64(3652, "D")
    season = 8 * np.cos(2 * np.pi * decades * 10)
    shape = (times.size, 3, *GRID.shape)
    noise = generator.normal(size=(2, *shape))
    line = np.ones(shape[1:])
    truth = 280 + noise[0] + (season + 0.5 * decades)[:, None, None, None] * line
    north = 2.0 * (GRID.latitude > 0)[:, None] * line
    forecast = (
        280
        + 2 * noise[1]
        + north
        + (season + 1.5 * (decades - decades.mean()) + 0.5 * decades.mean())[:, None, None, None]
    )
    return times, forecast, truth


def card(times, forecast, truth, parts=1, regions=("global", "northern-hemisphere")):
    """A card fed in `parts` batches; forecast may have members in front."""
    made = ClimateCard(WORLD, VARIABLES, regions, MONTHLY)
    for rows in np.array_split(np.arange(times.size), parts):
        states = (State(torch.from_numpy(f[..., rows, :, :, :]), VARIABLES, times[rows]) for f in (forecast, truth))
        made.add(*states)
    return made


@pytest.fixture(scope="module")
def dozen():
    return series(12)


def test_what_was_put_in_is_found_again(dozen):
    found = climate_dataset(card(*dozen, parts=7), {"forecast": "x"})
    temperature = found["temperature"].sel(level=850)
    north = float(WEIGHTS @ np.repeat(GRID.latitude > 0, GRID.shape[1]))
    want = {"bias": 2 * north, "bias_rmse": 2 * north**0.5, "trend_forecast": 1.5, "trend_truth": 0.5, "trend_rmse": 1}
    for name, value in want.items():
        assert temperature.sel(metric=name, region="global").item() == pytest.approx(value, rel=0.05), name
    forecast, truth = (temperature.sel(metric=f"mean_{name}", region="global").item() for name in ("forecast", "truth"))
    assert forecast - truth == pytest.approx(2 * north, rel=0.05)
    total = [8**2 / 2 + noise**2 for noise in (2, 1)]
    ratio = temperature.sel(metric="std_ratio", region="global").item()
    assert ratio == pytest.approx((total[0] / total[1]) ** 0.5, rel=0.01)
    assert found["temperature_mean"].dims == ("source", "level", "latitude", "longitude")
    zonal = found["temperature_zonal_mean"].sel(level=500)
    np.testing.assert_allclose(
        zonal.sel(source="forecast") - zonal.sel(source="truth"), 2.0 * (GRID.latitude > 0), atol=0.2
    )
    assert found["year"].values.tolist() == list(range(2001, 2013))
    assert {part.partition(":")[0] for part in found.attrs["left_out"].split("; ")} == OTHERS
    assert found.attrs["forecast"] == "x"


def test_annual_means_and_the_nrmse(dozen):
    times, forecast, truth = dozen
    made = card(times, forecast, truth, parts=3)
    found, year = climate_dataset(made), times.astype("datetime64[Y]").astype(int) + 1970
    area = [(f.reshape(*f.shape[:2], -1) @ WEIGHTS)[:, 0] for f in (forecast, truth)]
    yearly = np.array([[a[year == y].mean() for y in range(2001, 2013)] for a in area])
    annual = found["temperature_annual_mean"].sel(region="global", level=500)
    np.testing.assert_allclose(annual.transpose("source", "year"), yearly, rtol=1e-12)
    one = found["temperature"].sel(level=500, region="global")
    spatial = nrmse_spatial(forecast[:, 0].mean(0).ravel(), truth[:, 0].mean(0).ravel(), WEIGHTS[:, None])[0]
    whole = np.sqrt(np.square(yearly[0] - yearly[1]).mean()) / yearly[1].mean()
    np.testing.assert_allclose(one.sel(metric="nrmse"), spatial + 5 * whole, rtol=1e-12)
    np.testing.assert_allclose(one.sel(metric="interannual_std_truth"), yearly[1].std(ddof=1), rtol=1e-12)


def test_the_season_is_found_again(dozen):
    """Both swing by 8 K; waves of 4 K a month later are half as large, and apart as complex amplitudes are."""
    times, _, truth = dozen
    found = climate_dataset(card(*dozen))["temperature"].sel(level=500, region="global")
    assert found.sel(metric="cycle_ratio").item() == pytest.approx(1.0, abs=0.01)
    angle = 2 * np.pi * (times - times[0]) / np.timedelta64(3652, "D") * 10
    waves = np.broadcast_to((280 + 8 * np.cos(angle))[:, None, None, None], truth.shape)
    late = np.broadcast_to((280 + 4 * np.cos(angle - np.pi / 6))[:, None, None, None], truth.shape)
    made = card(times, late, waves)
    scores = made.scores()
    np.testing.assert_allclose(
        made.maps()["cycle"], np.array([4.0, 8.0])[:, None, None] * np.ones((2, 3, 432)), rtol=0.01
    )
    assert scores["cycle_ratio"][0, 0] == pytest.approx(0.5, rel=0.01)
    apart = np.abs(4 * np.exp(-1j * np.pi / 6) - 8) / np.sqrt(2)
    assert scores["cycle_rmse"][0, 0] == pytest.approx(apart, rel=0.01)


def test_bias_beside_the_noise_of_annual_means(dozen):
    times, forecast, truth = dozen
    scores = card(times, forecast, truth).scores()
    other = series(12, seed=5)[2]
    same = card(times, other, truth)
    annual = same.annual_means()[..., 0, 0]  # (year, truth and member)
    noise = np.sqrt((annual[:, 0].var(ddof=1) + annual[:, 1].var(ddof=1)) / 12)
    found = same.scores()
    assert found["bias_noise"][0, 0] == pytest.approx(noise, rel=1e-12)
    assert found["bias_over_noise"][0, 0] == pytest.approx(abs(np.subtract(*annual.T).mean()) / noise, rel=1e-12)
    assert found["bias_over_noise"].max() < 2.0  # both are the same climate
    assert scores["bias_over_noise"].min() > 3.0  # a kelvin too warm
    twice = card(times, np.stack([other, series(12, seed=6)[2]]), truth).scores()
    assert twice["bias_noise"][0, 0] < found["bias_noise"][0, 0]


def test_the_drift_is_the_slope_of_the_difference(dozen):
    """The forecast warms by 1.5 K a decade and the truth by 0.5."""
    scores = card(*dozen).scores()
    assert scores["drift"][0, 0] == pytest.approx(1.0, abs=3 * scores["drift_noise"][0, 0])
    assert 10.0 < scores["drift_over_noise"][0, 0]
    line, error = slope(np.arange(4.0), np.array([0.0, 2.0, 2.0, 4.0]))
    assert (line, error) == pytest.approx((1.2, np.sqrt(0.8 / 2 / 5)))  # departures of 0.2, 0.6, 0.6 and 0.2


def test_variance_by_scale_and_patterns_of_fields_kept_month_by_month(dozen):
    """The noise of 5 days is white: of about six times in a month 1/6 of its variance is left to months."""
    found = climate_dataset(card(*dozen, parts=5))
    assert found["channel"].values.tolist() == ["temperature_850", "sea_surface_temperature"]
    std = np.sqrt(np.square(found["scale_std"].sel(channel="temperature_850")).mean(("latitude", "longitude")))
    np.testing.assert_allclose(std.sel(scale="season"), [8 / np.sqrt(2)] * 2, rtol=0.02)
    season = 64 * (2 * np.pi / 12) ** 2 / 24  # of the cosine within its months
    np.testing.assert_allclose(np.square(std.sel(scale="days")), [4 * 5 / 6 + season, 5 / 6 + season], rtol=0.06)
    total = np.square(found["temperature_std"].sel(level=850)).mean(("latitude", "longitude"))
    np.testing.assert_allclose(np.square(std).sum("scale"), total, rtol=0.01)
    ratio = found["scale_ratio"].sel(channel="temperature_850", region="global")
    assert ratio.sel(scale="season") == pytest.approx(1.0, abs=0.01)
    assert ratio.sel(scale="months") == pytest.approx(2.0, rel=0.05)
    assert found["pattern"].dims == ("channel", "source", "mode", "latitude", "longitude")
    assert found["pattern_region"].values.tolist() == ["global", "northern-hemisphere"]
    assert float(found["pattern_overlap"].max()) < 0.3  # noise has no patterns in common


def test_return_levels_are_those_of_known_extremes(dozen):
    drawn = gumbel_r.rvs(300.0, 4.0, size=(20_000, 3), random_state=np.random.default_rng(1))
    for period in (10.0, 100.0):
        np.testing.assert_allclose(return_level(drawn, period), gumbel_r.ppf(1 - 1 / period, 300.0, 4.0), rtol=1e-3)
    times, forecast, truth = dozen
    made = card(times, np.stack([forecast, forecast + 1.0]), truth, parts=4)
    years = times.astype("datetime64[Y]").astype(int)
    yearly = [np.stack([f[years == year].max(axis=0) for year in np.unique(years)]) for f in (forecast, truth)]
    level = made.maps()["return10"].reshape(2, 3, *GRID.shape)
    np.testing.assert_allclose(level[1], return_level(yearly[1].astype(np.float32), 10.0), rtol=1e-6)
    both = np.concatenate([yearly[0], yearly[0] + 1.0])
    np.testing.assert_allclose(level[0], return_level(both, 10.0), rtol=1e-6)
    assert "temperature_return10" in climate_dataset(made)
    scores = made.scores()
    assert scores["return10_forecast"][0, 0] > scores["return10_truth"][0, 0] + 2.0  # it varies twice as much


def test_split_then_merge_is_the_whole(dozen):
    times, forecast, truth = dozen
    whole, half = card(times, forecast, truth), times.size // 2 + 3
    parts = [card(times[part], forecast[part], truth[part]) for part in (slice(half, None), slice(0, half))]
    merged = ClimateCard(WORLD, VARIABLES, ("global", "northern-hemisphere"), MONTHLY)
    for part in parts:
        merged.add_partial(part.partial())
    xr.testing.assert_allclose(climate_dataset(merged), climate_dataset(whole), rtol=1e-9)
    other = ClimateCard(WORLD, VARIABLES, ("global",))
    with pytest.raises(ValueError, match="same variables, regions"):
        merged.add_partial(other.partial())


def test_short_runs_say_what_they_lack():
    times, forecast, truth = series(2)
    made = card(times, forecast, truth)
    assert {name: why for name, why in made.left_out().items() if name not in OTHERS} == {
        name: f"2 of the {need} whole years needed"
        for name, need in (("interannual", 5), ("patterns", 5), ("nino", 5), ("trend", 10), ("return", 10))
    }
    found = climate_dataset(made)
    assert {"annual_rmse", "nrmse", "bias_rmse"} <= set(found["metric"].values)
    assert not {"trend_rmse", "interannual_std_truth"} & set(found["metric"].values)
    assert "temperature_trend" not in found
    months = card(times[:20], forecast[:20], truth[:20])
    years = {"annual", "nrmse", "cycle", "scales", "interannual", "patterns", "nino", "trend", "return"}
    assert set(months.left_out()) == years | OTHERS
    assert "temperature_annual_mean" not in climate_dataset(months)
    with pytest.raises(ValueError, match="No pair"):
        climate_dataset(ClimateCard(WORLD, VARIABLES))


def test_points_that_are_ever_missing_are_left_out(dozen):
    times, forecast, truth = (part.copy() for part in dozen)
    clean = climate_dataset(card(times, forecast, truth))
    truth[5, 2, 4:9, 7:12] = np.nan
    found = climate_dataset(card(times, forecast, truth, parts=2))
    sea = "sea_surface_temperature"
    assert int(found[f"{sea}_mean"].isnull().sum()) == 2 * 25
    bias = found[sea].sel(metric="bias", region="global").item()
    assert bias == pytest.approx(clean[sea].sel(metric="bias", region="global").item(), abs=0.1)
    assert np.isfinite(found["temperature_mean"]).all()


def test_members_of_an_ensemble_keep_their_variability(dozen):
    times, forecast, truth = dozen
    members = np.stack([forecast, series(12, seed=1)[1]])
    made, one = card(times, members, truth), card(times, forecast, truth)
    ratio, single = (c.scores()["std_ratio"][0, 0] for c in (made, one))
    assert ratio == pytest.approx(single, rel=0.01)
    np.testing.assert_allclose(made.maps()["mean"][0], 0.5 * sum(m.mean(0).reshape(3, -1) for m in members), rtol=1e-12)


def test_the_nino_index_of_known_events():
    months = np.arange(120)
    event = np.exp(-(((months - 60) / 6.0) ** 2))
    cycle = 2 * np.cos(2 * np.pi * months / 12)
    index = nino_index((300 + cycle + 3 * event)[:, None], months)[:, 0]
    assert np.isnan(index[:2]).all()
    assert np.isnan(index[-2:]).all()
    assert np.nanargmax(index) == 60
    assert 1.5 < np.nanmax(index) < 3
    gap = np.delete(months, 30)
    assert np.isnan(nino_index(np.zeros((119, 1)), gap)).sum() == 4 + 4
    made = card(*series(6))
    index, when = made.nino()
    assert index.shape == (72, 2)
    assert when[0] == np.datetime64("2001-01")


def test_whole_years():
    times = np.arange("2001-02", "2004-01", np.timedelta64(6, "h"), dtype="datetime64[s]")
    assert whole_years(times).tolist() == [2002, 2003]
    monthly = np.arange("2001-01", "2003-06", dtype="datetime64[M]").astype("datetime64[s]")
    assert whole_years(monthly).tolist() == [2001, 2002]
    yearly = np.arange("2001", "2005", dtype="datetime64[Y]").astype("datetime64[s]")
    assert whole_years(yearly).tolist() == [2001, 2002, 2003, 2004]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the reference numbers are not beside this checkout")
def test_climate_learn_numbers():
    """The parts of the NRMSE are ClimateLearn's, whose weights are cosines of latitude; what it divides both by differs
    from the truth's mean by up to 0.2 %."""
    folder = SHARED / "reference" / "verification"
    want = json.loads((folder / "expected_others_A.json").read_text())["climate_learn_240x121"]
    forecast, truth = (xr.open_dataset(folder / f"{name}_240x121.nc") for name in ("forecast", "obs"))
    weights = np.cos(np.deg2rad(forecast["latitude"].values))
    weights = np.tile(weights / weights.sum() / forecast.sizes["longitude"], forecast.sizes["longitude"])[:, None]
    for row, lead in enumerate(forecast["prediction_timedelta"].values):
        valid = forecast["time"].values + np.timedelta64(int(lead), "h")
        for column, (name, level) in enumerate((("2m_temperature", None), ("geopotential", 500))):
            fields = forecast[name].isel(prediction_timedelta=row), truth[name].sel(time=valid)
            fields = [f if level is None else f.sel(level=level) for f in fields]
            f, o = (f.transpose("time", "longitude", "latitude").values.reshape(len(valid), -1) for f in fields)
            f, o = f.astype(np.float64), o.astype(np.float64)
            spatial = nrmse_spatial(f.mean(0), o.mean(0), weights)[0]
            whole = nrmse_global((f @ weights)[:, 0], (o @ weights)[:, 0])
            expected = want["lat_nrmses"][row][column], want["lat_nrmseg"][row][column]
            np.testing.assert_allclose(spatial / whole, expected[0] / expected[1], rtol=1e-8)
            np.testing.assert_allclose((spatial, whole), expected, rtol=2e-3)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real fields are not beside this checkout")
def test_real_winters_of_el_nino():
    """Winters of the strongest events stand out in the Nino 3.4 box of observed anomalies."""
    data = open_dataset(SHARED / "realdata" / "sst_ndjfm_anom.nc")
    name = next(str(n) for n in data.data_vars if "time" in data[n].dims)
    grid = LatLonGrid(data["latitude"].values, data["longitude"].values)
    weights = region_weights(grid, ["nino-3.4"]).matrix
    field = data[name].transpose("time", "latitude", "longitude").values
    index = area_mean(field.reshape(len(field), -1).astype(np.float64), weights)[:, 0]
    years = data["time"].dt.year.values
    strongest = {int(year) for year in years[np.argsort(index)[-4:]]}
    assert len({1973, 1983, 1992, 1998} & {y + d for y in strongest for d in (0, 1)}) >= 3
    assert index.max() > 2.0


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real fields are not beside this checkout")
def test_real_trends_of_yearly_data_on_a_limited_area():
    """Trends of 65 winters of 500 hPa height are those of a straight line at each point."""
    data = open_dataset(SHARED / "realdata" / "hgt_djf.nc")
    name = next(str(n) for n in data.data_vars if "time" in data[n].dims)
    field = data[name].squeeze(drop=True).transpose("time", "latitude", "longitude").values.astype(np.float64)
    grid = LatLonGrid(data["latitude"].values, data["longitude"].values)
    variables, times = VariableSet((Variable("geopotential", "m"),)), data["time"].values.astype("datetime64[s]")
    made = ClimateCard(World(grid, variables, np.timedelta64(365, "D")), variables)
    states = (State(torch.from_numpy(f[:, None]), variables, times) for f in (field + 5.0, field))
    made.add(*states)
    decades = (times - times[0]) / np.timedelta64(1, "s") / 315_569_252
    line = np.polyfit(decades, field.reshape(len(field), -1), 1)[0]
    np.testing.assert_allclose(made.maps()["trend"][:, 0], [line, line], atol=0.02 * np.abs(line).max())
    assert len(made.years) >= 64
    scores = made.scores()
    assert scores["bias"][0, 0] == pytest.approx(5)
    assert scores["trend_rmse"][0, 0] == pytest.approx(0, abs=1e-9)
