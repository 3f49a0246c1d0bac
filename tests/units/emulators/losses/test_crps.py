"""CRPS as a loss: known values, gradients, and a network with noise that learns how uncertain a forecast is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.grid import gaussian_grid
from emulators.losses.crps import CRPS
from emulators.models.sfno import SFNO
from emulators.objectives.forecast import Forecast
from emulators.state import State, Window
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

FIELD = VariableSet((Variable("temperature", "K"),))


@pytest.fixture
def world():
    return World(gaussian_grid(4), FIELD, np.timedelta64(6, "h"), scales={"temperature": Scale(0.0, 1.0, 1.0)})


def state(world, *values: float, dtype=torch.float64) -> State:
    """Uniform fields of one case, (batch, ...), or of one member each, (member, batch, ...)."""
    fields = torch.tensor(values, dtype=dtype).reshape(*([-1, 1] if len(values) > 1 else [1]), 1, 1, 1)
    return State(fields.expand(*fields.shape[:-2], *world.grid.shape), FIELD, np.zeros(1, "datetime64[s]"))


@pytest.mark.parametrize(
    ("kind", "members", "expected"),
    [
        ("fair", (0.0, 1.0, 3.0), 1 / 3),
        ("biased", (0.0, 1.0, 3.0), 2 / 3),
        ("almost_fair", (0.0, 1.0, 3.0), 0.35),
        ("fair", (0.0, 3.0), 0.0),
        ("biased", (0.0, 3.0), 0.75),
        ("almost_fair", (0.0, 3.0), 0.0375),
        ("fair", (1.5,), 0.5),
    ],
)
def test_known_values(world, kind, members, expected):
    score = CRPS(world, kind=kind)(state(world, *members), state(world, 2.0))
    torch.testing.assert_close(score, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-7)


def test_gradients_with_members(world):
    torch.manual_seed(0)
    truth = replace(state(world, 0.0), values=torch.randn(2, 1, *world.grid.shape, dtype=torch.float64))
    values = torch.randn(3, 2, 1, *world.grid.shape, dtype=torch.float64, requires_grad=True)
    for kind in ("fair", "almost_fair", "biased"):
        loss = CRPS(world, kind=kind)
        assert torch.autograd.gradcheck(lambda v, loss=loss: loss(replace(truth, values=v), truth), values, atol=1e-6)


def test_unknown_kinds_are_refused(world):
    with pytest.raises(ValueError, match="'unfair'"):
        CRPS(world, kind="unfair")
    with pytest.raises(ValueError, match="alpha"):
        CRPS(world, alpha=1.5)
    with pytest.raises(ValueError, match="members"):
        Forecast(world, members=0)


def test_a_network_with_noise_learns_to_spread_as_the_truth_does(world):
    torch.manual_seed(1)
    net = SFNO(world, embed=8, layers=1, norm="layer", noise=4, position_embedding="none")
    step, objective, loss = Step(world, net), Forecast(world, members=4), CRPS(world)
    optimizer = torch.optim.Adam(step.parameters(), lr=1e-2)
    time = np.zeros(8, "datetime64[s]")
    start = State(torch.zeros(8, 1, *world.grid.shape), FIELD, time)
    forcing = State(torch.zeros(8, 0, *world.grid.shape), VariableSet(()), time)

    def window() -> Window:
        """Truths that nothing tells beforehand: one number a case, of mean 0 and deviation 1."""
        truth = torch.randn(8, 1, 1, 1).expand(start.values.shape)
        return Window((start,), (replace(start, values=truth),), (forcing,))

    def average(rounds: int) -> float:
        with torch.no_grad():
            return float(torch.stack([objective(step, window(), {"crps": loss})[0] for _ in range(rounds)]).mean())

    before = average(20)
    for _ in range(150):
        optimizer.zero_grad()
        objective(step, window(), {"crps": loss})[0].backward()
        optimizer.step()
    assert average(20) < before - 0.1  # the mean absolute error of a normal deviate is 0.80, its CRPS 0.56
    with torch.no_grad():
        members = torch.stack([step((start,), forcing).values for _ in range(16)])
    assert 0.4 < members.std(0).mean() < 1.6
