"""Checks of a forecast as it runs: ranges, missing values and budgets are told with lead and extreme."""

import json

import numpy as np
import pytest
import torch

from data_pipelines.forecasts.checks import Checks, budget_drifts, describe, gather
from emulators.grid import gaussian_grid
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import Vertical, World


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
