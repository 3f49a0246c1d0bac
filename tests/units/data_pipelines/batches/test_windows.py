"""Archive and Windows: the right states at the right times, and no window across a gap."""

import json

import numpy as np
import pytest
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.windows import Windows
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.conventions.durations import bounds
from data_pipelines.derived.forcings import INSOLATION, moving
from emulators.grid import gaussian_grid

GRID = gaussian_grid(4)
START = np.datetime64("2001-01-01", "s")
SIX = np.timedelta64(6, "h")
ROLES = VariableRoles(
    prognostic=[{"temperature": [850, 500]}], diagnostic=["rain"], forcing=["sst", "sin_year"], static=["sin_latitude"]
)


def dataset(times) -> xr.Dataset:
    """Fields that tell their own time: hours since the start, plus 0.1 and 0.2 for the levels, plus their variable."""
    hours = ((times - START) / np.timedelta64(1, "h"))[:, None, None] + np.zeros(GRID.shape)
    return xr.Dataset(
        {
            "temperature": (("time", "level", "latitude", "longitude"), np.stack([hours + 0.1, hours + 0.2], 1)),
            "rain": (("time", "latitude", "longitude"), hours + 1000),
            "sst": (("time", "latitude", "longitude"), hours + 2000),
        },
        {"time": times, "level": [500.0, 850.0], "latitude": GRID.latitude, "longitude": GRID.longitude},
    )


def archive(count=20, drop=(), history=2, roles=ROLES, **options) -> Archive:
    ds = dataset(np.delete(START + np.arange(count) * SIX, list(drop)))
    return Archive(ds, world_from_dataset(ds, roles, history=history), **options)


@pytest.mark.parametrize("cache", [4.0, 0.0])
def test_states(cache):
    data = archive(cache_gigabytes=cache)
    assert data.in_memory == bool(cache)
    times = START + np.array([5, 3, 5]) * SIX
    state = data.states(times)
    assert state.variables == data.world.predicted
    np.testing.assert_allclose(state.values[:, :, 0, 0], [[30.2, 30.1, 1030], [18.2, 18.1, 1018], [30.2, 30.1, 1030]])
    assert (state.time == times).all()
    alone = data.states(times[0], data.world.prognostic)
    assert (alone.lead, alone.time.shape) == ((), ())
    np.testing.assert_allclose(alone["temperature"][:, 0, 0], [30.2, 30.1])


def test_history_and_forcing():
    data = archive()
    inits = START + np.array([4, 7]) * SIX
    old, new = data.history(inits)
    np.testing.assert_allclose(old["temperature"][:, 1, 0, 0], [18.1, 36.1])
    np.testing.assert_allclose(new["temperature"][:, 1, 0, 0], [24.1, 42.1])
    forcing = data.forcing(inits)
    np.testing.assert_allclose(forcing["sst"][:, 0, 0], [2024, 2042])
    np.testing.assert_allclose(forcing.values[:, 1], moving(["sin_year"], inits, GRID)[:, 0])
    np.testing.assert_allclose(data.states(inits)["rain"][:, 0, 0], [1024, 1042])
    assert data.has(inits + 15 * SIX).tolist() == [True, False]


def test_forcing_beyond_the_data():
    late = START + np.array([18, 30]) * SIX
    with pytest.raises(ValueError, match=r"No fields at 2001-01-08T12.*1 of 2"):
        archive().forcing(late)
    forcing = archive(persisted=["sst"]).forcing(late)
    np.testing.assert_allclose(forcing["sst"][:, 0, 0], [2108, 2114])
    np.testing.assert_allclose(forcing["sin_year"], moving(["sin_year"], late, GRID)[:, 0])


def test_a_forcing_goes_through_its_last_year_again_and_again():
    times = np.arange("1999-06-01", "2001-06-01", dtype="datetime64[D]").astype("datetime64[s]")
    data = Archive(
        ds := dataset(times), world_from_dataset(ds, VariableRoles(["temperature"], forcing=["sst"])), repeated=["sst"]
    )
    for late, same in (
        ("2001-06-01", "2000-05-31"),  # day 151, as in any year
        ("2030-05-31", "2001-05-31"),
        ("2101-12-31", "2000-12-30"),  # day 365; a leap year's last day is its 366th
        ("2000-12-31", "2000-12-31"),
        ("2104-12-31", "2000-12-31"),
    ):
        there, stands = (np.array([day], dtype="datetime64[s]") for day in (late, same))
        np.testing.assert_array_equal(data.forcing(there)["sst"], data.forcing(stands)["sst"])
        assert data.forcing(there).time == there


@pytest.mark.parametrize(("factor", "goes_on"), [(1.0, True), (3600.0, False)])
def test_insolation_of_the_data_goes_on_where_it_is_the_computed_one(factor, goes_on):
    ds = dataset(START + np.arange(20) * SIX)
    field = moving([INSOLATION], ds.time.values, GRID)[:, 0]
    ds[INSOLATION] = (("time", "latitude", "longitude"), factor * field, {"units": "W m**-2"})
    ds.attrs["ranges"] = json.dumps({INSOLATION: [0, 1e7]})
    data = Archive(ds, world_from_dataset(ds, VariableRoles(["temperature"], forcing=[INSOLATION])))
    late = START + np.array([18, 30]) * SIX
    if goes_on:
        np.testing.assert_allclose(data.forcing(late)[INSOLATION], moving([INSOLATION], late, GRID)[:, 0])
    else:
        with pytest.raises(ValueError, match="No fields at"):
            data.forcing(late)


def test_times_are_matched_to_a_tenth_of_a_timestep():
    data = archive()
    assert data.index(START + np.timedelta64(30, "m")) == 0
    for wrong in (START + np.timedelta64(60, "m"), START - SIX):
        with pytest.raises(ValueError, match="No fields at"):
            data.index(wrong)


@pytest.mark.parametrize("cache", [4.0, 0.0])
def test_windows_hold_consecutive_states(cache):
    windows = Windows(archive(cache_gigabytes=cache), ["2001-01-01", "2001-01-05"], rollout=3)
    assert len(windows) == 20 - 4
    window = windows.window(np.array([7, 0]))
    assert [len(part) for part in (window.history, window.target, window.forcing)] == [2, 3, 3]
    for k, state in enumerate([*window.history, *window.target]):
        np.testing.assert_allclose(state["temperature"][:, 1, 0, 0], [6 * (7 + k) + 0.1, 6 * k + 0.1], rtol=1e-6)
        assert (state.time == START + (np.array([7, 0]) + k) * SIX).all()
    assert window.target[0].variables == windows.world.predicted
    assert window.history[0].variables == windows.world.prognostic
    np.testing.assert_allclose(window.target[1]["rain"][:, 0, 0], [1000 + 60, 1000 + 18])
    np.testing.assert_allclose(window.forcing[1]["sst"][:, 0, 0], [2000 + 60, 2000 + 18])
    assert (window.forcing[2].time == window.target[2].time).all()
    assert len(windows.window(np.array([0]), rollout=1).target) == 1
    with pytest.raises(ValueError, match="1 to 3 targets"):
        windows.window(np.array([0]), rollout=4)


def test_no_window_bridges_a_gap_or_leaves_the_period():
    windows = Windows(archive(drop=[8]), ["2001-01-01T06", "2001-01-05"], rollout=2)
    numbers = (windows.init_times - START) // SIX
    assert numbers.tolist() == [2, 3, 4, 5, *range(10, 18)]
    assert ((Windows(archive(), ["2001", "2001"], stride=5).init_times - START) // SIX).tolist() == [1, 6, 11, 16]


def test_a_timestep_of_several_intervals():
    ds = dataset(START + np.arange(20) * SIX).assign_attrs(timestep="12h")
    data = Archive(ds, world_from_dataset(ds, VariableRoles(["temperature"])))
    window = Windows(data, ["2001", "2001"]).window(np.array([3]))
    assert window.target[0].time - window.history[0].time == np.timedelta64(12, "h")


def test_months_and_winters():
    months = np.arange("2001-01", "2004-01", dtype="datetime64[M]").astype("datetime64[s]")
    ds = dataset(months)
    data = Archive(ds, world_from_dataset(ds, VariableRoles(["temperature"])))
    assert (data.following == [*range(1, 36), -1]).all()
    winters = np.array(["1948-01-15T12", "1949-01-15T00", "1950-01-15T00", "1952-01-15T12"], "datetime64[s]")
    ds = dataset(winters)
    data = Archive(ds, world_from_dataset(ds, VariableRoles(["temperature"])))
    assert data.following.tolist() == [1, 2, -1, -1]
    assert data.index(data.world.after(winters[0], 2)) == 2


@pytest.mark.parametrize("period", [["2005", "2006"], ["2001-01-01T00", "2001-01-01T06"]])
def test_a_split_without_windows(period):
    with pytest.raises(ValueError, match=r"has no window of 3 times.*timestep \(6h\)"):
        Windows(archive(), period)


def test_periods():
    assert bounds(["2003", "2003"]) == (np.datetime64("2003-01-01T00:00:00"), np.datetime64("2003-12-31T23:59:59"))
    assert bounds([2003, "2003-02-28T06"])[1] == np.datetime64("2003-02-28T06:59:59")
    with pytest.raises(ValueError, match="ends before it begins"):
        bounds(["2004", "2003"])
    with pytest.raises(ValueError, match="Expected a period"):
        bounds(["soon", "later"])


def test_missing_values_are_named():
    ds = dataset(START + np.arange(20) * SIX)
    ds["temperature"][7, 1, 2, 3] = np.nan
    data = Archive(ds, world_from_dataset(ds, VariableRoles(["temperature"])))
    data.states(START)
    with pytest.raises(ValueError, match=r"'temperature_850' is missing .* 1 of 32 points at 2001-01-02T18:00:00"):
        data.load(["2001", "2001"])


def test_what_the_world_needs_must_be_there():
    data = archive()
    with pytest.raises(ValueError, match="No variable 'temperature'"):
        Archive(data.dataset.drop_vars("temperature"), data.world)
    with pytest.raises(ValueError, match="no level 500"):
        Archive(data.dataset.sel(level=[850.0]), data.world)
    with pytest.raises(ValueError, match="Expected the grid"):
        Archive(data.dataset.isel(latitude=slice(0, 3)), data.world)
    with pytest.raises(ValueError, match="has no times"):
        Archive(data.dataset.isel(time=0, drop=True), data.world)
    partial = Archive(data.dataset.drop_vars(["rain", "sst"]), data.world)
    assert partial.absent == ("rain", "sst")
    with pytest.raises(ValueError, match="has no rain"):
        partial.states(START)
    with pytest.raises(ValueError, match="lacks rain, sst"):
        Windows(partial, ["2001", "2001"])
    with pytest.raises(ValueError, match="Forcing 'sst'"):
        partial.forcing(START)


def test_a_field_without_time_serves_as_forcing():
    ds = dataset(START + np.arange(20) * SIX)
    ds["sst"] = ds["sst"].isel(time=3, drop=True)
    data = Archive(ds, world_from_dataset(ds, VariableRoles(["temperature"], forcing=["sst"])))
    np.testing.assert_allclose(Windows(data, ["2001", "2001"]).window(np.array([9])).forcing[0]["sst"], 2018)
