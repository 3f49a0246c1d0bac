"""Diagnostics: winds in solid-body rotation, moisture by hand, WeatherBench 2's forms against its own numbers."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.lazy_arrays import computed_when_read
from data_pipelines.derived.shaping import shaped
from data_pipelines.derived.variables import DERIVED, DIAGNOSTICS
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.opening.forecasts import open_forecast
from emulators.constants import EARTH_RADIUS, GRAVITY
from emulators.grid import equiangular_grid
from places import SHARED

FOLDER = SHARED / "reference" / "verification"


def winds(grid, u, v):
    """A canonical dataset of one time and level with winds (lat, lon)."""
    coords = {"time": [np.datetime64("2001-01-01", "ns")], "level": [500.0]}
    coords |= {"latitude": grid.latitude, "longitude": grid.longitude}
    fields = {"u_component_of_wind": u, "v_component_of_wind": v}
    dims = ("time", "level", "latitude", "longitude")
    return xr.Dataset({n: (dims, np.broadcast_to(f, grid.shape)[None, None]) for n, f in fields.items()}, coords)


@pytest.mark.parametrize("poles", [False, True])
def test_rotation_about_any_axis(poles):
    """Rotation about an axis at 45 degrees: vorticity is twice the rate times the sine of the latitude about the axis,
    divergence is zero, at the poles and across 0 degrees as everywhere."""
    grid = equiangular_grid(181 if poles else 180, 360, poles=poles)
    phi, lam = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)[None]
    speed, tilt = 20.0, np.pi / 4
    u = speed * (np.cos(phi) * np.cos(tilt) + np.sin(phi) * np.cos(lam) * np.sin(tilt))
    v = -speed * np.sin(lam) * np.sin(tilt)
    vorticity = 2 * speed / EARTH_RADIUS * (np.sin(phi) * np.cos(tilt) - np.cos(phi) * np.cos(lam) * np.sin(tilt))
    dataset, scale = winds(grid, u, v), 2 * speed / EARTH_RADIUS
    found = {name: DIAGNOSTICS[name](dataset).values[0, 0] / scale for name in ("vorticity", "divergence")}
    np.testing.assert_allclose(found["vorticity"], vorticity / scale, atol=4e-3)
    np.testing.assert_allclose(found["divergence"], 0, atol=3e-3)


def test_weatherbench_forms_err_at_the_seam_and_the_poles():
    """The same flow in WeatherBench 2's form: one-sided differences at 0 degrees, no convergence of the meridians."""
    grid = equiangular_grid(90, 180)
    lam = np.deg2rad(grid.longitude)[None]
    dataset = winds(grid, np.cos(np.deg2rad(grid.latitude))[:, None] * 20.0, 0 * lam)
    exact = 2 * 20.0 / EARTH_RADIUS * np.sin(np.deg2rad(grid.latitude))[:, None]
    other = DIAGNOSTICS["vorticity_weatherbench2"](dataset).values[0, 0]
    np.testing.assert_allclose(other[1:-1], np.broadcast_to(0.5 * exact, grid.shape)[1:-1], rtol=2e-3)  # half of it


def test_moisture_by_hand():
    levels = np.array([200.0, 300.0, 600.0, 1000.0])
    dims, shape = ("level", "latitude", "longitude"), (4, 4, 8)
    coords = {"level": levels, "latitude": [60.0, 20.0, -20.0, -60.0], "longitude": 45.0 * np.arange(8)}
    values = {"specific_humidity": 0.01, "u_component_of_wind": 3.0, "v_component_of_wind": -4.0, "temperature": 293.15}
    dataset = xr.Dataset({name: (dims, np.full(shape, v)) for name, v in values.items()}, coords)
    dataset["geopotential"] = (dims, np.broadcast_to(levels[:, None, None], shape).copy())
    transport = DIAGNOSTICS["integrated_vapor_transport"](dataset)
    np.testing.assert_allclose(transport, 0.01 * 5 * 70_000 / GRAVITY)
    np.testing.assert_allclose(DIAGNOSTICS["integrated_vapor_transport_weatherbench2"](dataset), 0.05 * 700 / 9.81)
    np.testing.assert_allclose(DIAGNOSTICS["total_column_vapor"](dataset), 0.01 * 80_000 / GRAVITY)
    np.testing.assert_allclose(
        DIAGNOSTICS["total_column_vapor"](dataset.isel(level=slice(None, None, -1))), 800 / GRAVITY
    )
    humidity = DIAGNOSTICS["relative_humidity"](dataset).sel(level=1000.0)
    np.testing.assert_allclose(humidity, 0.6787, atol=1e-4)  # e_s = 23.37 hPa, r_s = 0.01488, r = 0.0101
    dataset = dataset.assign_coords(level=[200.0, 500.0, 600.0, 1000.0])
    np.testing.assert_allclose(DIAGNOSTICS["geopotential_thickness"](dataset), 300.0 - 1000.0)


@pytest.mark.parametrize(
    ("temperature", "pressure"),  # of saturated vapour in hPa: tables over water and ice of the WMO, and their mean
    [(293.15, 23.37), (273.16, 6.11), (253.15, 1.032), (223.15, 0.0394), (263.16, (2.863 + 2.599) / 2)],
)
def test_specific_humidity_is_told_by_the_relative(temperature, pressure):
    dataset = xr.Dataset(
        {"temperature": ("level", [temperature]), "relative_humidity": ("level", [40.0], {"units": "%"})},
        {"level": [850.0]},
    )
    found = DERIVED["specific_humidity"](dataset)
    np.testing.assert_allclose(found, 0.4 * 0.622 * pressure / (850 - 0.378 * pressure), rtol=4e-3)


def test_sums_of_precipitation():
    lead = np.arange(6, 49, 6).astype("timedelta64[h]").astype("timedelta64[ns]")
    rain = xr.Dataset(
        {"total_precipitation_6hr": ("prediction_timedelta", np.arange(8.0))}, {"prediction_timedelta": lead}
    )
    daily = DIAGNOSTICS["total_precipitation_24hr"](rain)
    np.testing.assert_allclose(daily, [np.nan] * 3 + [6, 10, 14, 18, 22])
    flux = rain["total_precipitation_6hr"].assign_attrs(units="J m-2", positive="up", cell_methods="time: sum")
    half = DIAGNOSTICS["sensible_heat_flux_12hr"](xr.Dataset({"sensible_heat_flux_6hr": flux}))
    np.testing.assert_allclose(half, [np.nan, 1, 3, 5, 7, 9, 11, 13])
    assert half.attrs["positive"] == "up"
    assert half.attrs["cell_methods"] == "time: sum (interval: 12 hours)"
    with pytest.raises(ValueError, match="every 6 h"):
        DIAGNOSTICS["total_precipitation_24hr"](rain.isel(prediction_timedelta=slice(None, None, 2)))


def test_amounts_by_their_logarithm_and_insolation_of_the_valid_time():
    amounts = np.array([0.0, 0.001, 0.01, -1e-9])
    expected = np.log(np.array([0.001, 0.002, 0.011, 0.001])) - np.log(1e-3)
    for factor, units in ((1.0, "m"), (1000.0, "mm")):
        rain = xr.Dataset({"total_precipitation_1hr": ("x", factor * amounts, {"units": units})})
        found = shaped(rain, derive=["log_total_precipitation_1hr"])["log_total_precipitation_1hr"]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    grid, noon = equiangular_grid(8), np.datetime64("2001-03-21T12", "ns")
    analysis = winds(grid, 0.0, 0.0).assign_coords(time=[noon])
    light = shaped(analysis, derive=["insolation"])["insolation"]
    assert light.dims == ("time", "latitude", "longitude")
    np.testing.assert_allclose(light[0, :, 0], np.cos(np.deg2rad(grid.latitude)), atol=0.02)
    leads = {"prediction_timedelta": np.array([0, 12], "timedelta64[h]").astype("timedelta64[ns]")}
    forecast = analysis.expand_dims(leads).transpose("time", "prediction_timedelta", ...)
    later = DIAGNOSTICS["insolation"](forecast)
    np.testing.assert_allclose(later[:, 0], light)
    np.testing.assert_allclose(later[0, 1], light[0].roll(longitude=8), atol=0.02)  # half a day, and the sun goes on


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="lack u_component_of_wind, v_component_of_wind"):
        DIAGNOSTICS["vorticity"](xr.Dataset())
    with pytest.raises(ValueError, match=r"no rule for 'vortcity'; .*vorticity"):
        shaped(xr.Dataset(), derive=["vortcity"])


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the reference numbers are not beside this checkout")
def test_weatherbench_forms_are_weatherbenchs():
    want = xr.load_dataset(FOLDER / "expected_derived_64x32.nc", decode_timedelta=False)
    truth = open_dataset(FOLDER / "obs_64x32.nc").isel(time=[0])
    names = {
        "wind_speed": "wind_speed",
        **{name: f"{name}_weatherbench2" for name in (
            "divergence", "vorticity", "eddy_kinetic_energy", "geostrophic_wind_speed", "ageostrophic_wind_speed")},
    }  # fmt: skip
    for theirs, ours in names.items():
        found = DIAGNOSTICS[ours](truth.astype(np.float32)).transpose("time", ..., "longitude", "latitude")
        expected = want[theirs].values
        np.testing.assert_allclose(found.values[..., ::-1], expected, rtol=2e-5, atol=1e-6 * np.abs(expected).max())
    daily = DIAGNOSTICS["total_precipitation_24hr"](open_forecast(FOLDER / "forecast_64x32.nc").isel(time=0))
    expected = want["total_precipitation_24hr_from_6hr"].values
    np.testing.assert_allclose(daily.transpose(..., "longitude", "latitude").values[..., ::-1], expected, rtol=1e-6)
    without = {"vertical_velocity", "u_component_of_geostrophic_wind"}  # not offered; part of the geostrophic speed
    assert set(want.data_vars) == set(names) | without | {"total_precipitation_24hr_from_6hr"}


def stored(tmp_path, times=12):
    """Winds and rain of a few days in a file, one time of which is missing."""
    generator = np.random.default_rng(0)
    time = np.datetime64("2001-01-01", "ns") + np.delete(np.arange(times + 1), 8) * np.timedelta64(6, "h")
    dims = ("time", "level", "latitude", "longitude")
    names = ("u_component_of_wind", "v_component_of_wind")
    fields = {name: (dims, generator.normal(size=(times, 2, 4, 8))) for name in names}
    fields["total_precipitation_6hr"] = (("time", *dims[2:]), generator.random((times, 4, 8)))
    coords = {"time": time, "level": [500.0, 850.0], "latitude": [67.5, 22.5, -22.5, -67.5]}
    xr.Dataset(fields, {**coords, "longitude": 45.0 * np.arange(8)}).to_netcdf(tmp_path / "a.nc")
    return open_dataset(tmp_path / "a.nc")


@pytest.mark.parametrize("name", ["wind_speed", "vorticity", "total_precipitation_24hr"])
def test_what_is_made_when_read_is_the_whole_made_at_once(name, tmp_path):
    data = stored(tmp_path)
    whole, lazy = DIAGNOSTICS[name](data.load()), shaped(open_dataset(tmp_path / "a.nc"), derive=[name])[name]
    np.testing.assert_array_equal(lazy.values, whole.transpose(*lazy.dims).values)
    assert (lazy.dims[0], lazy.attrs["units"]) == ("time", whole.attrs["units"])
    keys = [slice(4, 9), np.array([11, 0, 5]), 3, slice(None, None, -4), slice(0, 0)]
    for key in keys:
        rest = {"latitude": slice(1, 3), "longitude": np.array([5, 0])}
        found, want = (field.isel(time=key, **rest) for field in (lazy, whole))
        np.testing.assert_array_equal(found.values, want.transpose(*found.dims).values)


def test_sums_do_not_reach_across_gaps(tmp_path):
    data = stored(tmp_path)
    daily = shaped(data, derive=["total_precipitation_24hr"])["total_precipitation_24hr"]
    missing = np.isnan(daily).all(("latitude", "longitude"))
    assert np.flatnonzero(missing).tolist() == [0, 1, 2, 8, 9, 10]
    rain = data["total_precipitation_6hr"].values
    np.testing.assert_allclose(daily[7], rain[4:8].sum(0))


def test_only_what_is_asked_for_is_read(tmp_path):
    def refuse(part):
        assert part.sizes["time"] <= 2, "more was read than asked for"
        return DIAGNOSTICS["wind_speed"](part)

    made = computed_when_read(stored(tmp_path), refuse)
    assert made.isel(time=[3, 7]).values.shape == (2, 2, 4, 8)
    assert made.shape == (12, 2, 4, 8)
