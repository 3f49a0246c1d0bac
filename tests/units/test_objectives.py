"""Objectives by hand: which states a step is asked to join, and what that costs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from emulators.grid import gaussian_grid
from emulators.objectives.all_to_all import AllToAll
from emulators.state import State, Window
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

HOUR = np.timedelta64(1, "h")
START = np.array(["2001-01-01", "2001-07-01"], dtype="datetime64[s]")
GRID = gaussian_grid(4)
WORLD = World(GRID, VariableSet((Variable("t"),)), 6 * HOUR, scales={"t": Scale(0.0, 4.0, 1.0)})


def counted(leads: int) -> Window:
    """States whose value is their number, and forcings without channels."""
    truth = [
        State(torch.full((2, 1, *GRID.shape), float(n)), WORLD.prognostic, START + 6 * n * HOUR)
        for n in range(leads + 1)
    ]
    forcings = [State(torch.zeros(2, 0, *GRID.shape), VariableSet(), state.time) for state in truth[1:]]
    return Window((truth[0],), tuple(truth[1:]), tuple(forcings))


class Standstill(torch.nn.Module):
    """A step that goes nowhere, and remembers from where to where it was asked to go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int]] = []

    def forward(self, history, forcing):
        ends = ((state.time - START)[0] // (6 * HOUR) for state in (history[-1], forcing))
        self.asked.append(tuple(int(end) for end in ends))
        return State(history[-1].values, WORLD.prognostic, forcing.time)


def squares(state: State, target: State) -> torch.Tensor:
    assert (state.time == target.time).all()
    return (state.values - target.values).square().mean((1, 2, 3))


def test_all_go_to_all():
    step, objective = Standstill(), AllToAll(WORLD, stretch=3)
    loss, parts = objective(step, counted(3), {"mse": squares})
    assert objective.longest == objective.length(7) == 3
    assert step.asked == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert {name: float(value) for name, value in parts.items()} == {"mse_1": 1, "mse_2": 4, "mse_3": 9}
    assert float(loss) == pytest.approx((3 * 1 + 2 * 4 + 9) / 6)


def test_some_of_all_are_drawn():
    step, objective = Standstill(), AllToAll(WORLD, stretch=3, pairs=2)
    torch.manual_seed(0)
    for _ in range(20):
        objective(step, counted(3), {"mse": squares})
    drawn = [tuple(step.asked[k : k + 2]) for k in range(0, 40, 2)]
    assert all(first < second for first, second in drawn)
    assert {pair for both in drawn for pair in both} == set(combinations(range(4), 2))


@pytest.mark.parametrize("options", [{"stretch": 0}, {"pairs": 11}, {"pairs": 0}])
def test_stretches_that_are_none(options):
    with pytest.raises(ValueError, match=r"objective\.stretch"):
        AllToAll(WORLD, **options)
