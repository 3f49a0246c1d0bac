"""The same quantity in other units is refused wherever fields meet."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.conventions.attributes import assumptions, vertical_coordinate
from data_pipelines.conventions.canonical import canonical
from data_pipelines.conventions.units import refuse_other_units
from data_pipelines.derived.variables import total_column_vapor
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.verification.matching import shared_variables, units_by_value
from emulators.grid import gaussian_grid

GRID = gaussian_grid(4)


def dataset(units, start="2001-01-01"):
    times = np.datetime64(start, "ns") + np.arange(4) * np.timedelta64(6, "h")
    field = (("time", "latitude", "longitude"), np.ones((4, *GRID.shape), np.float32), {"units": units})
    return xr.Dataset({"p": field}, {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude})


@pytest.mark.parametrize(
    ("one", "other"), [("K", "kelvin"), ("m**2 s**-2", "m2/s2"), ("Pa", ""), ("kg kg**-1", "1"), ("m s-1", "m/s")]
)
def test_spellings_and_what_is_not_known_pass(one, other):
    assert refuse_other_units("x", one, other, "the data") is None


@pytest.mark.parametrize(("one", "other"), [("K", "degC"), ("Pa", "hPa"), ("m", "m2 s-2"), ("kg kg-1", "g/kg")])
def test_other_units_are_refused(one, other):
    with pytest.raises(ValueError, match="Convert it first"):
        refuse_other_units("x", one, other, "the data")


def test_a_run_a_truth_and_a_second_file_in_other_units(tmp_path):
    a_world = world_from_dataset(dataset("Pa"), VariableRoles(["p"]))
    Archive(dataset("Pa"), a_world)
    said = r"'p' is in 'hPa' in .*; expected it in 'Pa'"
    with pytest.raises(ValueError, match=said):
        Archive(dataset("hPa"), a_world)
    with pytest.raises(ValueError, match=said):
        shared_variables(dataset("Pa"), dataset("hPa"))
    for number, units in enumerate(("Pa", "hPa"), start=1):
        dataset(units, f"2001-01-0{number}").to_netcdf(tmp_path / f"{number}.nc")
    with pytest.raises(ValueError, match=said):
        open_dataset(str(tmp_path / "*.nc"))
    dataset("pascal", "2001-01-02").to_netcdf(tmp_path / "2.nc")
    assert open_dataset(str(tmp_path / "*.nc"))["p"].attrs["units"] == "Pa"


def test_the_side_that_departs_from_the_usual_units_is_named():
    for units, truth_units, side, usual in (
        ("degC", "K", "forecast", "K"), ("1", "K", "forecast", "K"), ("K", "degC", "truth", "K"),
    ):  # fmt: skip
        sides = [dataset(text).rename(p="2m_temperature") for text in (units, truth_units)]
        with pytest.raises(ValueError, match=rf"in the {side}; expected it in '{usual}'"):
            shared_variables(*sides)


def test_numbers_of_rows_and_columns_are_no_degrees():
    rows, columns = np.arange(6.0), np.arange(8.0)
    for north in (rows, rows[::-1]):
        with pytest.raises(ValueError, match="numbers of rows and columns"):
            canonical(field(north, columns))
    for sound in (field(rows, columns, north="degrees_north"), field(rows, LONGITUDE), field(rows, np.arange(360.0))):
        assert canonical(sound).sizes["latitude"] == 6


def test_unknown_units_are_decided_by_values_and_told_or_refused():
    values = np.random.default_rng(0).normal(280.0, 10.0, GRID.shape)

    def of(units, fields=values):
        return xr.Dataset({"x": (("latitude", "longitude"), fields, {"units": units})})

    near = values + 0.5
    for same in (("K", "K"), ("K", "kelvin"), ("", "celcius"), ("furlongs of heat", "furlongs of heat"), ("K", "m")):
        assert units_by_value(of(same[0]), of(same[1], near), ["x"]) == []  # nothing to decide, or decided elsewhere
    for units in (("K", "celcius"), ("celcius", "K")):
        assert "taken as 'K', since values agree" in units_by_value(of(units[0]), of(units[1], near), ["x"])[0]
    for wrong in (near - 273.15, near * 4.0, near / 2.0):
        with pytest.raises(ValueError, match=r"'celcius' in the truth.*units=\{truth: \{x: '<its units> -> K'\}\}"):
            units_by_value(of("K"), of("celcius", wrong), ["x"])
    with pytest.raises(ValueError, match=r"units=\{forecast: \{x: '<its units> -> m'\}\}"):
        units_by_value(of("mm/6h", 1000.0 * values), of("m", near), ["x"])


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


@pytest.mark.parametrize("kind", ["lat-lon", "cells"])
def test_radians_are_converted_or_refused(kind):
    def told(units):
        south, east = np.deg2rad(LATITUDE), np.deg2rad(LONGITUDE)
        made = field(latitude=south, longitude=east, north=units, east=units)
        cells = made.isel(level=0, drop=True).stack(ncol=["lat", "lon"]).reset_index("ncol")
        for name in ("lat", "lon"):
            cells[name].attrs["units"] = units
        return canonical(made if kind == "lat-lon" else cells)

    np.testing.assert_allclose(np.unique(told("radian")["longitude"]), LONGITUDE, atol=1e-9)
    for units in ("", "degrees"):
        with pytest.raises(ValueError, match="in radians by their values"):
            told(units)


def test_units_that_say_nothing_are_decided_by_value():
    np.testing.assert_array_equal(canonical(field(east="grid points"))["longitude"], LONGITUDE)


@pytest.mark.parametrize("units", ["Pa", "Pascal", "pascals", "PASCALS", "N m-2"])
def test_levels_in_pascals(units):
    made = canonical(field(levels=(50000.0, 85000.0), units=units))
    assert made["level"].values.tolist() == [500.0, 850.0]
    assert made["level"].attrs["units"] == "hPa"


@pytest.mark.parametrize(("units", "name"), [("", "level"), ("", "plev"), ("unknown", "level"), ("1", "level")])
def test_levels_that_can_only_be_pascals_are_told(units, name):
    made = canonical(field(levels=(50000.0, 85000.0), units=units, name=name))
    assert made["level"].values.tolist() == [500.0, 850.0]
    assert any("read as Pa" in line for line in assumptions(made))


def test_levels_that_contradict_their_units_or_say_nothing_are_refused():
    with pytest.raises(ValueError, match="units='hPa'"):
        canonical(field(levels=(50000.0, 85000.0)))
    with pytest.raises(ValueError, match="attribute `units`"):
        canonical(field(levels=(3000.0, 5000.0), units=""))


@pytest.mark.parametrize(("levels", "units"), [((500.0, 8500.0), "m"), ((0.5, 8.5), "km")])
def test_levels_in_metres_are_no_pressures(levels, units):
    made = canonical(field(levels=levels, units=units))
    assert made["level"].values.tolist() == [500.0, 8500.0]
    assert made["level"].attrs["units"] == "m"
    assert vertical_coordinate(made).kind == "height"
    humid = made.assign(specific_humidity=made[next(iter(made.data_vars))])
    with pytest.raises(ValueError, match="got levels in m"):
        total_column_vapor(humid)
    assert vertical_coordinate(canonical(field(levels=(300.0, 350.0), units="K"))).kind == "none"
    assert vertical_coordinate(canonical(field(units="hPa"))).kind == "pressure"


def test_names_of_levels_are_compared_with_their_units():
    with pytest.raises(ValueError, match="850 hPa by their name"):
        canonical(field(units="Pa", name="isobaricInhPa"))
    assert canonical(field(units="", name="isobaricInPa"))["level"].values.tolist() == [5.0, 8.5]
    told = canonical(field(units="Pa"))  # may be the stratosphere
    assert told["level"].values.tolist() == [5.0, 8.5]
    assert "reach 8.5 hPa only by units='Pa'" in assumptions(told)[0]


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


def test_columns_are_cells():
    points = xr.Dataset(
        {"tas": (("time", "ncol"), np.ones((1, 9)))},
        {"time": [np.datetime64("2001-01-01", "ns")], "lat": ("ncol", np.arange(9.0)), "lon": ("ncol", np.arange(9.0))},
    )
    assert canonical(points)["2m_temperature"].dims == ("time", "cell")


def test_units_in_unknown_words_that_differ_between_files_are_told(tmp_path):
    for number, (words, start) in enumerate({"my index": "2001-01-01", "index of mine": "2001-01-02"}.items()):
        dataset(words, start).rename(p="odd_index").to_netcdf(tmp_path / f"{number}.nc")
    (told,) = assumptions(open_dataset(str(tmp_path / "*.nc")))
    assert told == "odd_index is in 'my index' in one file and in 'index of mine' in another, taken as the same."
    assert assumptions(open_dataset(tmp_path / "0.nc")) == []
