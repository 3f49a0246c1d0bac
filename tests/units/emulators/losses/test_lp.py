"""L^p losses: values by hand, every scheme of weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.losses.lp import Lp
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import Vertical


def pair(world, error: torch.Tensor) -> tuple[State, State]:
    """A prediction off by `error`, (channel,) or broadcastable to (channel, lat, lon)."""
    time = np.array("2000-01-01", "datetime64[s]")
    truth = torch.randn(world.output_channels, *world.grid.shape, generator=torch.Generator().manual_seed(0)).double()
    error = error[:, None, None] if error.ndim == 1 else error
    return State(truth + error, world.predicted, time), State(truth, world.predicted, time)


def channel_weights(loss: Lp) -> np.ndarray:
    return loss.points.weights.double().numpy() * len(loss.points.weights)


def test_values_by_hand(small_world):
    world = small_world()
    scale = torch.tensor([1.0, 2.0, 4.0, 0.5, 1.0, 8.0]).double()
    for kind, expected in (("none", scale), ("std", None), ("tendency_std", None)):
        if expected is None:
            divisor = np.append(world.scale(world.prognostic, kind), world.scale(world.diagnostic, "std"))
            expected = scale / torch.from_numpy(divisor)
        states = pair(world, scale)
        for p in (1, 2, 3.5):
            value = Lp(world, p=p, scale=kind)(*states)
            torch.testing.assert_close(value, expected.pow(p).mean(), rtol=1e-6, atol=0)
        value = Lp(world, huber=1.5, scale=kind)(*states)
        by_hand = torch.where(expected < 1.5, expected**2 / 2, 1.5 * (expected - 0.75)).mean()
        torch.testing.assert_close(value, by_hand, rtol=1e-6, atol=0)


def test_points_count_by_their_area(small_world):
    world = small_world("equiangular")
    error = torch.zeros(6, *world.grid.shape).double()
    error[:, 0] = 1.0
    value = Lp(world, scale="none")(*pair(world, error))
    assert value.item() == pytest.approx((1 - np.sin(np.deg2rad(67.5))) / 2, rel=1e-6)


def test_points_that_count(small_world):
    """An error outside of them counts nothing; within them it counts by their share of that area."""
    world = small_world()
    inside = np.zeros((1, *world.grid.shape))
    inside[:, 1:3, 2:] = 1.0
    static = VariableSet((Variable("interior"),))
    world = replace(world, static=static, static_fields=inside)
    error = torch.full((6, *world.grid.shape), 3.0).double()
    error[:, 1:3, 2:] = 2.0
    everywhere = dict.fromkeys(world.predicted.names, "interior")
    for options, expected in (({"p": 2}, 4.0), ({"p": 1}, 2.0), ({"huber": 1.0}, 1.5)):
        value = Lp(world, scale="none", points=everywhere, **options)(*pair(world, error))
        assert value.item() == pytest.approx(expected, rel=1e-6)
    prediction, target = pair(world, error)
    values = prediction.values.clone().requires_grad_()
    Lp(world, scale="none", points=everywhere)(replace(prediction, values=values), target).backward()
    assert (values.grad[:, inside[0] == 1] != 0).all()
    assert (values.grad[:, inside[0] == 0] == 0).all()
    with pytest.raises(ValueError, match="needs the static variable 'sea_ice'"):
        Lp(world, points={world.predicted.names[0]: "sea_ice"})


def test_every_member_has_its_number(small_world):
    world = small_world()
    prediction, target = pair(world, torch.ones(6).double())
    members = State(prediction.values.expand(3, 2, *prediction.values.shape), world.predicted, target.time)
    assert Lp(world)(members, target).shape == (3, 2)


LEVELS = VariableSet(
    (
        Variable("geopotential", "", (100.0, 300.0, 1100.0)),
        Variable("specific_humidity", "", (500.0,)),
        Variable("2m_temperature"),
        Variable("10m_u_component_of_wind"),
    )
)


@pytest.mark.parametrize(
    ("variable_weights", "level_weights", "expected"),
    [
        ("uniform", "uniform", [1, 1, 1, 1, 1, 1]),
        ("uniform", "graphcast", [0.2, 0.6, 2.2, 1, 1, 1]),
        ("uniform", "anemoi", [0.2, 0.3, 1.1, 0.5, 1, 1]),
        ("uniform", "makani", [0.1, 0.3, 1.1, 0.5, 1, 1]),
        ("graphcast", "uniform", [1 / 3, 1 / 3, 1 / 3, 1, 1, 0.1]),
        ("anemoi", "uniform", [12, 12, 12, 0.6, 1, 0.1]),
        ("makani", "uniform", [1, 1, 1, 1, 1, 0.1]),
        ({"geopotential": 2.0, "geopotential_300": 5.0}, "uniform", [2, 5, 2, 1, 1, 1]),
        ("uniform", {500: 3.0, 1100: 0.0}, [1, 1, 0, 3, 1, 1]),
    ],
)
def test_schemes_of_weights(small_world, variable_weights, level_weights, expected):
    world = small_world(prognostic=LEVELS, diagnostic=VariableSet(), scales={})
    loss = Lp(world, scale="none", variable_weights=variable_weights, level_weights=level_weights)
    np.testing.assert_allclose(channel_weights(loss), np.array(expected) / np.mean(expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("vertical", "levels"),
    [
        (Vertical("sigma"), (0.1, 0.5, 0.9)),
        (Vertical("sigma", a=(0.0,) * 4, b=(0.0, 0.2, 0.8, 1.0)), (100.0, 500.0, 900.0)),  # in thousandths
        (Vertical("hybrid", a=(0.0, 10_000.0, 0.0, 0.0), b=(0.0, 0.1, 0.8, 1.0)), (1.0, 2.0, 3.0)),
    ],
)
def test_pressure_of_model_levels(small_world, vertical, levels):
    variables = VariableSet((Variable("temperature", "K", levels),))
    world = small_world(prognostic=variables, diagnostic=VariableSet(), vertical=vertical)
    loss = Lp(world, scale="none", level_weights="makani")
    np.testing.assert_allclose(channel_weights(loss), np.array([0.1, 0.5, 0.9]) / 0.5, rtol=1e-6)


@pytest.mark.parametrize("levels", [(0.0, 1.0, 2.0), (2.0, 3.0, 4.0), (1.5, 2.5, 3.5)])
def test_model_levels_that_are_no_numbers_have_no_pressure(small_world, levels):
    vertical = Vertical("hybrid", a=(0.0, 10_000.0, 0.0, 0.0), b=(0.0, 0.1, 0.8, 1.0))
    variables = VariableSet((Variable("temperature", "K", levels),))
    world = small_world(prognostic=variables, diagnostic=VariableSet(), vertical=vertical)
    with pytest.raises(ValueError, match="numbered 1 to 3"):
        Lp(world, scale="none", level_weights="makani")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 0.5}, "at least 1"),
        ({"huber": 0.0}, "positive huber"),
        ({"scale": "range"}, "tendency_std"),
        ({"variable_weights": "ecmwf"}, "graphcast"),
        ({"level_weights": "ecmwf"}, "graphcast"),
        ({"variable_weights": {"temprature": 1.0}}, "temprature"),
        ({"level_weights": {501: 1.0}}, "501"),
        ({"variable_weights": {"temperature": -1.0}}, "negative"),
    ],
)
def test_bad_options_are_refused(small_world, options, message):
    with pytest.raises(ValueError, match=message):
        Lp(small_world(), **options)


def test_states_of_other_variables_are_refused(small_world):
    world = small_world()
    prediction, target = pair(world, torch.ones(6).double())
    with pytest.raises(ValueError, match="Expected States of temperature"):
        Lp(world)(prediction.select(["temperature"]), target)


def test_logarithms_are_compared_where_asked(small_world):
    world = small_world()
    rain = world.diagnostic.names[0]
    prediction, target = pair(world, torch.linspace(-2.0, 3.0, 6).double())
    divisor = np.append(world.scale(world.prognostic, "std"), world.scale(world.diagnostic, "std"))[:, None, None]
    a, b = (state.values.numpy() / divisor for state in (prediction, target))
    errors = np.abs(a - b)
    errors[-1] = np.abs(np.sign(a[-1]) * np.log1p(np.abs(a[-1])) - np.sign(b[-1]) * np.log1p(np.abs(b[-1])))
    expected = (errors.mean(axis=(0, 2)) * world.grid.weights[:, 0]).mean() / world.grid.weights.mean()
    value = Lp(world, p=1, scale="std", logarithmic=[rain])(prediction, target)
    assert value.item() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="snow, which is not predicted"):
        Lp(world, logarithmic=["snow"])
