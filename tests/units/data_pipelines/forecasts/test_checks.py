"""Checks of a forecast as it runs: ranges, missing values and budgets are told with lead and extreme."""

import json

import numpy as np
import pytest
import torch

from data_pipelines.forecasts.checks import Checks, Watch, budget_drifts, describe, first_departures, gather
from emulators.grid import gaussian_grid
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, Vertical, World


def world():
    predicted = VariableSet((Variable("specific_humidity", "kg kg-1", (1, 2)), Variable("surface_pressure", "Pa")))
    return World(
        gaussian_grid(4), predicted, np.timedelta64(21_600, "s"), vertical=Vertical("sigma", (0, 0, 0), (0, 0.5, 1))
    )


def state(humidity=0.01, pressure=1e5, batch=2):
    values = torch.full((batch, 3, 4, 8), humidity)
    values[:, 2] = pressure
    return State(values, world().predicted, np.full(batch, np.datetime64("2003-01-01")))


def checked(states, more=None):
    checks = Checks(world(), more)
    good = [checks.add(lead, s) for lead, s in enumerate(states)]
    return checks.arrays(), good


def test_good_fields_pass():
    arrays, good = checked([state(), state(0.02)])
    variables, faults = describe(gather([arrays]), world())
    assert (good, faults) == ([True, True], [])
    humidity = variables["specific_humidity"]
    assert (humidity["minimum"], humidity["maximum"]) == (pytest.approx(0.01), pytest.approx(0.02))
    assert (humidity["nan_share"], humidity["units"], humidity["bounds"]) == (0.0, "kg kg-1", [-2e-3, 6e-2])


def test_values_beyond_their_range_are_told_with_lead_and_extreme():
    arrays, good = checked([state(), state(0.5), state(0.9)])
    _, faults = describe(gather([arrays]), world())
    assert good == [True, False, False]
    assert faults == [
        "specific_humidity: reaches 0.9 kg kg-1, beyond the physical range -0.002 .. 0.06, first at lead 12h"
    ]
    arrays, _ = checked([state()], {"surface_pressure": (1.1e5, 1.2e5)})
    _, faults = describe(gather([arrays]), world(), {"surface_pressure": (1.1e5, 1.2e5)})
    assert len(faults) == 1
    assert faults[0].startswith("surface_pressure: reaches 1e+05 Pa, beyond the physical range 110000 .. 120000")


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_counted(broken):
    bad = state()
    bad.values[1, 0, 2, 3] = broken
    arrays, good = checked([state(), bad])
    variables, faults = describe(gather([arrays]), world())
    assert good == [True, False]
    assert variables["specific_humidity"]["nan_share"] == 1 / (2 * 2 * 2 * 32)
    assert variables["specific_humidity"]["maximum"] == pytest.approx(0.01)
    assert len(faults) == 1
    assert "NaN or infinite, first at lead 12h" in faults[0]
    json.dumps(variables, allow_nan=False)


def test_fields_without_a_single_number_are_told():
    arrays, _ = checked([state(float("nan"), float("nan"))])
    variables, faults = describe(gather([arrays]), world())
    assert variables["surface_pressure"] == {
        "units": "Pa", "minimum": None, "maximum": None, "bounds": [3e4, 1.15e5], "nan_share": 1.0,
    }  # fmt: skip
    assert len(faults) == 2


def test_batches_add_up_to_the_whole():
    states = [state(0.01), state(0.03), state(0.5)]
    first = [State(s.values[:1], s.variables, s.time[:1]) for s in states]
    second = [State(s.values[1:], s.variables, s.time[1:]) for s in states]
    whole, _ = checked(states)
    parts, _ = zip(checked(first), checked(second), strict=True)
    merged = gather(parts)
    assert set(merged) == set(whole)
    for name, value in gather([whole]).items():
        assert np.array_equal(merged[name], value), name


def test_budgets_tell_drift_in_dry_air_and_water():
    arrays, _ = checked([state(0.01, 1e5), state(0.01, 1.01e5)])
    found = budget_drifts(gather([arrays]), world())
    assert found["days"] == 0.25
    assert found["column_water"]["first"] == pytest.approx(0.01 * 1e5 / 9.80665, rel=1e-6)
    assert found["dry_air"]["largest_relative_drift"] == pytest.approx(0.01, rel=1e-6)
    assert found["dry_air"]["mean_drift"] == pytest.approx(0.99 * 1e3 / 9.80665, rel=1e-5)
    assert budget_drifts({}, world()) is None


# --- what a run was trained on --------------------------------------------------------------------------------------

GRID = gaussian_grid(16)
DRAWN = {"values": (250.0, 310.0), "means": (280.0, 282.0)}  # of training


def watched(extent=(*DRAWN["values"], *DRAWN["means"])):
    """Temperature and a wind of which training tells no extent, daily; two initial times."""
    predicted = VariableSet((Variable("temperature", "K", (500,)), Variable("u_component_of_wind", "m s-1", (500,))))
    scales = {"temperature_500": Scale(281.0, 10.0, 1.0, {}, extent), "u_component_of_wind_500": Scale(0.0, 5.0, 1.0)}
    return World(GRID, predicted, np.timedelta64(86_400, "s"), scales=scales)


def smooth(noise=0.01, warm=0.0, wave=10.0):
    """A wave of total wavenumber 1 about 281 K, and a wind with noise of grid scale; the second start is changed."""
    values = torch.zeros(2, 2, *GRID.shape)
    north = torch.as_tensor(np.sin(np.deg2rad(GRID.latitude)))[:, None]
    values[0, 0], values[1, 0] = 281.0 + 10.0 * north, 281.0 + warm + wave * north
    values[:, 1] = 1.0 - north.square()
    values[1, 1] += noise * torch.randn(GRID.shape, generator=torch.Generator().manual_seed(1))
    return State(values, watched().predicted, np.array(["2003-01-01", "2003-02-01"], "datetime64[s]"))


@pytest.mark.parametrize(
    ("change", "lead", "kind", "words"),
    [
        ({"warm": 0.5, "wave": 14.0, "noise": 0.02}, 0, None, ""),
        ({"wave": 45.0}, 3, "value", "temperature_500 reaches 325.523 K at 81.65 N, 0 E, 15.5 above that of training"),
        ({"warm": 2.5}, 13, "mean", "an area mean of 283.115 K over 13 d, 1.12 above those of training (282)"),
        ({"noise": 0.1}, 3, "power", "u_component_of_wind_500 has 100 times the initial power beyond wavenumber 11"),
    ],
)
def test_a_forecast_that_leaves_what_was_trained_on_is_told_once(change, lead, kind, words):
    """With lead, initial time and place; neither what lies within the room, nor what training does not tell of.

    281 + 45 sin 81.65 = 325.523, (2 x 281 + 11 x 283.5) / 13 = 283.115, (0.1 / 0.01)^2 = 100.
    """
    watch = Watch(watched(), smooth())
    told = [watch.add(number, smooth(**change) if number >= 2 else smooth()) for number in range(40)]
    found = [(number, sentence) for number, sentences in enumerate(told, start=1) for sentence in sentences.values()]
    assert [*watch.departures] == ([] if kind is None else [kind])
    assert len(found) == len(watch.departures)
    for number, sentence in found:
        assert number == lead
        assert sentence.startswith(f"At lead {lead}d the forecast from 2003-02-01T00:00:00 leaves what the run")
        assert words in sentence
    with_no_extent = Watch(watched(extent=()), smooth())
    assert not any(with_no_extent.add(number, smooth(warm=100.0)) for number in range(3))


def test_a_watch_goes_on_where_it_was_saved():
    states = [smooth(warm=0.2 * lead) for lead in range(40)]
    whole, first, again = (Watch(watched(), smooth()) for _ in range(3))
    told = [whole.add(lead, state) for lead, state in enumerate(states)]
    for lead in range(15):
        first.add(lead, states[lead])
    again.restore(first.arrays())
    assert [again.add(lead, states[lead]) for lead in range(15, 40)] == told[15:]
    assert again.departures == whole.departures != first.departures
    assert first_departures([first.departures, whole.departures, {"mean": (99, "later"), "value": (2, "before")}]) == [
        "before", whole.departures["mean"][1],
    ]  # fmt: skip
