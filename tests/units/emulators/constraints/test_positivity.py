"""Positivity: what is cut, what is left alone, and what the gradient sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emulators.constraints.positivity import Positivity
from emulators.state import State
from emulators.variables import Variable, VariableSet


@pytest.fixture
def after(small_world):
    world = small_world()
    values = torch.randn(2, 6, *world.grid.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return State(values, world.predicted, np.zeros(2, "datetime64[s]"))


def test_water_is_cut_and_temperature_is_not(small_world, after):
    lawful = Positivity(small_world())(after, after, after)
    for name in ("specific_humidity", "total_precipitation_6hr"):
        torch.testing.assert_close(lawful[name], after[name].clamp(min=0))
    for name in ("temperature", "2m_temperature"):
        assert torch.equal(lawful[name], after[name])


def test_named_variables(small_world, after):
    lawful = Positivity(small_world(), variables=["2m_temperature"])(after, after, after)
    assert lawful["2m_temperature"].min() == 0
    assert torch.equal(lawful["specific_humidity"], after["specific_humidity"])
    with pytest.raises(ValueError, match="snow"):
        Positivity(small_world(), variables=["snow"])


def test_rain_is_cut_over_any_interval(small_world):
    plain = small_world()
    more = VariableSet(tuple(Variable(f"total_precipitation_{hours}hr", "m") for hours in (6, 24)))
    scales = {**plain.scales, "total_precipitation_24hr": plain.scales["total_precipitation_6hr"]}
    world = small_world(diagnostic=more, scales=scales)
    assert Positivity(world).variables == ("specific_humidity", *more.names)


@pytest.mark.parametrize("straight_through", [True, False])
def test_gradient(small_world, after, straight_through):
    lawful = Positivity(small_world(), straight_through=straight_through)(after, after, after)
    assert (lawful["specific_humidity"] >= 0).all()
    (gradient,) = torch.autograd.grad(lawful["specific_humidity"].sum(), after.values)
    below = after["specific_humidity"] < 0
    assert (gradient[:, 2:4][below] == float(straight_through)).all()
    assert (gradient[:, 2:4][~below] == 1).all()


def test_a_world_without_water_is_left_as_it_is(small_world):
    world = small_world()
    dry = small_world(prognostic=world.prognostic.select(["temperature"]), diagnostic=VariableSet())
    state = State(torch.randn(2, *world.grid.shape), dry.predicted, np.zeros((), "datetime64[s]"))
    assert Positivity(dry)(state, state, state) is state
