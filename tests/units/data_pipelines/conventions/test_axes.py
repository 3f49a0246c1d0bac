"""Coordinates mean what their units say; what says nothing is decided by value and told, or refused."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.attributes import assumptions
from data_pipelines.conventions.canonical import canonical

LATITUDE, LONGITUDE = np.linspace(75.0, -75.0, 6), np.arange(8) * 45.0


def field(latitude=LATITUDE, longitude=LONGITUDE, levels=(500.0, 850.0), north="", east="", units="hPa", name="level"):
    """A field whose numbers are its longitudes as stored, (time, level, lat, lon)."""
    values = np.broadcast_to(longitude, (2, len(levels), len(latitude), len(longitude))).astype("f4")
    times = np.datetime64("2001-01-01", "ns") + np.arange(2) * np.timedelta64(6, "h")
    coords = {
        "time": times,
        name: (name, np.asarray(levels), {"units": units} if units else {}),
        "lat": ("lat", latitude, {"units": north} if north else {}),
        "lon": ("lon", longitude, {"units": east} if east else {}),
    }
    return xr.Dataset({"t": (("time", name, "lat", "lon"), values, {"units": "K"})}, coords)


def test_degrees_west_and_south():
    made = canonical(field(east="degrees_west", north="degrees_south"))
    np.testing.assert_array_equal(made["latitude"], LATITUDE)
    np.testing.assert_array_equal(made["temperature"].sel(longitude=300.0 + 15.0)[0, 0], 45.0)


@pytest.mark.parametrize("units", ["m", "km", "radians", "kelvin"])
def test_what_is_no_degree_is_refused(units):
    with pytest.raises(ValueError, match=rf"'lon' in .* is in '{units}'"):
        canonical(field(east=units))


def test_units_that_say_nothing_are_decided_by_value():
    np.testing.assert_array_equal(canonical(field(east="grid points"))["longitude"], LONGITUDE)


@pytest.mark.parametrize("units", ["Pa", "Pascal", "pascals", "PASCALS", "N m-2"])
def test_levels_in_pascals(units):
    made = canonical(field(levels=(50000.0, 85000.0), units=units))
    assert made["level"].values.tolist() == [500.0, 850.0]
    assert made["level"].attrs["units"] == "hPa"


@pytest.mark.parametrize(("units", "name"), [("", "level"), ("", "plev"), ("unknown", "level")])
def test_levels_that_can_only_be_pascals_are_told(units, name):
    made = canonical(field(levels=(50000.0, 85000.0), units=units, name=name))
    assert made["level"].values.tolist() == [500.0, 850.0]
    assert any("read as Pa" in line for line in assumptions(made))


def test_levels_that_contradict_their_units_or_say_nothing_are_refused():
    with pytest.raises(ValueError, match="units='hPa'"):
        canonical(field(levels=(50000.0, 85000.0)))
    with pytest.raises(ValueError, match="attribute `units`"):
        canonical(field(levels=(3000.0, 5000.0), units=""))


@pytest.mark.parametrize("noise", [0.0, 2e-4, -2e-4])
def test_a_repeated_column_is_dropped(noise):
    made = canonical(field(longitude=np.append(LONGITUDE, 360.0 + noise).astype("f4")))
    np.testing.assert_allclose(made["longitude"], LONGITUDE, atol=1e-3)


@pytest.mark.parametrize(
    ("dim", "word"), [("time", "times"), ("lon", "longitudes"), ("lat", "latitudes"), ("level", "levels")]
)
def test_empty_axes_are_named(dim, word):
    with pytest.raises(ValueError, match=f"has no {word}"):
        canonical(field().isel({dim: slice(0, 0)}))


def test_an_axis_without_coordinates_is_refused():
    with pytest.raises(ValueError, match=r"'lat' in .* has no coordinate"):
        canonical(field().drop_vars("lat"))


def test_columns_are_named():
    points = xr.Dataset(
        {"tas": (("time", "ncol"), np.ones((1, 9)))},
        {"time": [np.datetime64("2001-01-01", "ns")], "lat": ("ncol", np.arange(9.0)), "lon": ("ncol", np.arange(9.0))},
    )
    with pytest.raises(ValueError, match=r"set of points .dimension 'ncol'"):
        canonical(points)
