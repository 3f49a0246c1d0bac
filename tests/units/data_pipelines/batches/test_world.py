"""From a dataset and roles to a World."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.conventions.durations import duration, duration_text, spacing
from emulators.grid import LatLonGrid, gaussian_grid

GRID = gaussian_grid(4)


def dataset(count=3, **attributes) -> xr.Dataset:
    times = np.datetime64("2001-01-01", "s") + np.arange(count) * np.timedelta64(6, "h")
    return xr.Dataset(
        {
            "temperature": (
                ("time", "level", "latitude", "longitude"),
                np.ones((count, 2, *GRID.shape)),
                {"units": "K"},
            ),
            "surface_pressure": (("time", "latitude", "longitude"), np.ones((count, *GRID.shape)), {"units": "Pa"}),
            "orography": (("latitude", "longitude"), np.arange(32.0).reshape(GRID.shape), {"units": "m"}),
            "coast": (("time", "latitude", "longitude"), np.ones((count, *GRID.shape))),
        },
        {"time": times, "level": [500.0, 850.0], "latitude": GRID.latitude, "longitude": GRID.longitude},
        attributes,
    )


def test_world_has_what_the_roles_name():
    made = world_from_dataset(
        dataset(),
        VariableRoles(
            prognostic=[{"temperature": [850]}, "surface_pressure"],
            forcing=["sin_year"],
            static=["orography", "coast", "sin_latitude"],
        ),
        history=2,
    )
    assert made.prognostic.channels == ("temperature_850", "surface_pressure")
    assert made.prognostic.variable("temperature").units == "K"
    assert (made.input_channels, made.output_channels) == (2 * 2 + 1 + 3, 2)
    assert made.timestep == np.timedelta64(6, "h")
    assert made.vertical.kind == "pressure"
    assert made.static_fields.dtype == np.float32
    np.testing.assert_array_equal(made.static_fields[0], np.arange(32).reshape(GRID.shape))
    np.testing.assert_allclose(made.static_fields[2, :, 0], np.sin(np.deg2rad(GRID.latitude)), rtol=1e-6)


def test_all_levels_where_none_are_named():
    assert world_from_dataset(dataset(), VariableRoles(["temperature"])).prognostic.channels == (
        "temperature_500",
        "temperature_850",
    )


def test_vertical_from_attributes():
    made = world_from_dataset(
        dataset(vertical_kind="sigma", vertical_a=[0.0, 0.0, 0.0], vertical_b=[0.0, 0.5, 1.0]),
        VariableRoles(["temperature"]),
    )
    assert (made.vertical.kind, made.vertical.b) == ("sigma", (0.0, 0.5, 1.0))
    assert world_from_dataset(dataset().drop_dims("level"), VariableRoles(["surface_pressure"])).vertical.kind == "none"


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        (VariableRoles(["temprature"]), "did you mean 'temperature'"),
        (VariableRoles([{"temperature": [700]}]), r"no level 700; the nearest is 850"),
        (VariableRoles([{"surface_pressure": [850]}]), "has no levels"),
        (VariableRoles(["temperature"], forcing=["sin_yaer"]), r"Computed without data are .*sin_year"),
        (VariableRoles(["temperature"], forcing=["temperature"]), "as prognostic and as forcing"),
        (VariableRoles([]), "at least one prognostic"),
        (VariableRoles([["temperature", 850]]), r"a name or one pair \{name: \[levels\]\}"),
    ],
)
def test_roles_that_do_not_fit(roles, said):
    with pytest.raises(ValueError, match=said):
        world_from_dataset(dataset(), roles)


def test_history_and_timestep_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        world_from_dataset(dataset(), VariableRoles(["temperature"]), history=0)
    with pytest.raises(ValueError, match="timestep is unknown"):
        world_from_dataset(dataset(1), VariableRoles(["temperature"]))
    declared = world_from_dataset(dataset(1, timestep="6h"), VariableRoles(["temperature"]))
    assert declared.timestep == np.timedelta64(6, "h")


def test_missing_static_points_are_refused():
    ds = dataset()
    ds["orography"] = ds["orography"].where(ds.latitude > 0)
    with pytest.raises(ValueError, match=r"'orography' is missing at 16 points.*fill=\{orography: 0\}"):
        world_from_dataset(ds, VariableRoles(["temperature"], static=["orography"]))


@pytest.mark.parametrize(("text", "seconds"), [("6h", 21600), ("30min", 1800), ("5d", 432000), ("2w", 1209600)])
def test_durations(text, seconds):
    assert duration(text) == np.timedelta64(seconds, "s")
    assert duration(duration_text(duration(text))) == duration(text)


def test_durations_in_months_and_nonsense():
    assert duration("1y") == np.timedelta64(12, "M")
    assert duration_text(np.timedelta64(1, "M")) == "1M"
    for text in ("6", "h", "0h", "6 hrs and a bit", "-6h"):
        with pytest.raises(ValueError, match="length of time"):
            duration(text)


def test_spacing_in_seconds_or_months():
    months = np.arange("2001-01", "2003-01", dtype="datetime64[M]").astype("datetime64[s]")
    assert spacing(months) == np.timedelta64(1, "M")
    assert spacing(months[::12]) == np.timedelta64(12, "M")
    assert spacing(np.delete(months, 5) + np.timedelta64(14, "D")) == np.timedelta64(1, "M")
    days = np.datetime64("2001-01-01", "s") + np.arange(40) * np.timedelta64(30, "D")
    assert spacing(days) == np.timedelta64(30 * 86400, "s")
    assert spacing(days[:1]) is None


@pytest.mark.parametrize("longitude", [[350.0, 340.0, 330.0], [0.0, 180.0, 360.0]], ids=["westward", "repeated"])
def test_longitudes_that_do_not_run_eastward_once(longitude):
    with pytest.raises(ValueError, match="eastward"):
        LatLonGrid(np.array([10.0, 0.0]), np.array(longitude))
