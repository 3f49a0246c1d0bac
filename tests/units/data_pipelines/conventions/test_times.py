"""Initial times and leads as they are typed."""

import numpy as np
import pytest

from data_pipelines.conventions.durations import initial_times, lead_steps, lead_times, thinned
from emulators.grid import gaussian_grid
from emulators.variables import Variable, VariableSet
from emulators.world import World


def texts(times):
    return [str(time) for time in times.astype("datetime64[h]")]


def world(timestep):
    return World(gaussian_grid(4), VariableSet((Variable("temperature", "K"),)), timestep)


def test_one_date_and_lists_of_dates():
    assert texts(initial_times("2003-01-01")) == ["2003-01-01T00"]
    assert texts(initial_times("2003-01-01T06:00Z")) == ["2003-01-01T06"]
    assert texts(initial_times("2003-02-01, 2003-01-01T12,2003-02-01")) == ["2003-01-01T12", "2003-02-01T00"]
    assert texts(initial_times(["2003-01-01", "2003-01-03/2003-01-04/1d"])) == [
        "2003-01-01T00", "2003-01-03T00", "2003-01-04T00",
    ]  # fmt: skip
    assert initial_times("2003-01-01").dtype == np.dtype("datetime64[s]")


def test_ranges_take_in_their_last_day():
    year = initial_times("2003-01-01/2003-12-31/5d")
    assert (len(year), texts(year[-1:])) == (73, ["2003-12-27T00"])
    assert texts(initial_times("2003-12-31/2003-12-31/12h")) == ["2003-12-31T00", "2003-12-31T12"]
    assert len(initial_times("2003/2004/6h")) == (365 + 366) * 4


def test_months_and_years_follow_the_calendar():
    assert texts(initial_times("2003-01-15T06/2003-04-01/1mo")) == ["2003-01-15T06", "2003-02-15T06", "2003-03-15T06"]
    assert texts(initial_times("2000/2004/2y")) == ["2000-01-01T00", "2002-01-01T00", "2004-01-01T00"]
    assert texts(initial_times("2003-01-31/2003-04-30/1mo")) == ["2003-01-31T00", "2003-03-31T00"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("yesterday", "Expected a date such as"),
        ("2003-13-01", "Expected a date such as"),
        ("2003-01-02/2003-01-01/1d", "must not be before"),
        ("2003-01-01/2003-01-02", "start/stop/step"),
        ("2003-01-01/2003-01-02/5", "length of time"),
        ("2003-01-01/2003-01-02/0d", "length of time"),
        ("2003-01-01/2003-01-02/5 fortnights", "length of time"),
        ("", "empty"),
    ],
)
def test_what_cannot_be_read_is_named(spec, said):
    with pytest.raises(ValueError, match=said):
        initial_times(spec)


@pytest.mark.parametrize(
    ("lead", "timestep", "steps"),
    [
        ("10d", np.timedelta64(6, "h"), 40),
        ("240h", np.timedelta64(6, "h"), 40),
        ("1460 steps", np.timedelta64(6, "h"), 1460),
        (7, np.timedelta64(6, "h"), 7),
        ("1y", np.timedelta64(6, "h"), 1461),
        ("20y", np.timedelta64(12, "M"), 20),
        ("18mo", np.timedelta64(1, "M"), 18),
    ],
)
def test_leads_count_timesteps(lead, timestep, steps):
    assert lead_steps(lead, world(timestep)) == steps


@pytest.mark.parametrize("lead", ["7h", "0", "ten days", "1y"])
def test_leads_that_do_not_fit_are_refused(lead):
    with pytest.raises(ValueError, match=r"whole number of timesteps of 5d|length of time"):
        lead_steps(lead, world(np.timedelta64(5, "D")))


def test_thinning_keeps_times_far_enough_apart():
    times = np.datetime64("2003-01-01", "s") + np.array([0, 6, 12, 30, 60, 61]) * np.timedelta64(3600, "s")
    assert texts(thinned(times, "1d")) == ["2003-01-01T00", "2003-01-02T06", "2003-01-03T12"]
    winters = np.array(["1990-01-01", "1991-01-01", "1992-01-01"], dtype="datetime64[s]")
    assert len(thinned(winters, "5d")) == 3
    assert len(thinned(winters, "2y")) == 2


def test_leads_in_months():
    assert lead_times(["1mo", "1y"]).astype(int).tolist() == [30.4375 * 86400, 365.25 * 86400]
    month = world(np.timedelta64(1, "M"))
    assert lead_steps("1mo", month) == lead_steps("1", month) == 1
    assert lead_steps("1y", month) == 12
