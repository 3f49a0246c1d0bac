"""Objectives by hand: which states a step is asked to join, and what that costs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from emulators.grid import gaussian_grid
from emulators.models.prithvi import Prithvi
from emulators.objectives.all_to_all import AllToAll
from emulators.objectives.forecast import Forecast
from emulators.objectives.masked_forecast import MaskedForecast
from emulators.objectives.random_intervals import RandomIntervals
from emulators.state import State, Window
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

HOUR = np.timedelta64(1, "h")
START = np.array(["2001-01-01", "2001-07-01"], dtype="datetime64[s]")
GRID = gaussian_grid(4)
WORLD = World(GRID, VariableSet((Variable("t"),)), 6 * HOUR, scales={"t": Scale(0.0, 4.0, 1.0, {2: 1.5, 4: 2.0})})


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


def masked(**options) -> tuple[Step, MaskedForecast]:
    torch.manual_seed(0)
    network = Prithvi(WORLD, patch=1, unit=[2, 4], embed=8, heads=2, encoder=0, decoder=0)
    return Step(WORLD, network, output="absolute"), MaskedForecast(WORLD, **options)


def test_what_is_hidden_is_not_seen_and_every_interval_meets_its_truth():
    """Units that are hidden from the network have no share in its answer."""
    step, objective = masked(intervals=[0, 2], masks=["units"])
    assert objective.longest == objective.length(9) == 3
    seen = set()
    for _ in range(8):
        window = counted(3)
        window.target[0].values.requires_grad_()
        loss, parts = objective(step, window, {"mse": squares})
        loss.backward()
        seen |= set(parts)
        units = window.target[0].values.grad[:, 0].abs().unflatten(2, (-1, 4)).unflatten(1, (-1, 2)).sum((2, 4)) > 0
        if "mse_2" in parts:  # else the state is also what the answer is compared with
            assert units.flatten(1).sum(1).tolist() == [2, 2]  # of the four, in each case
    assert seen == {"mse_0", "mse_2"}


def test_tokens_of_every_unit_are_hidden():
    step, objective = masked(intervals=[1], hidden=0.75, masks=["tokens"])
    window = counted(2)
    window.target[0].values.requires_grad_()
    objective(step, window, {"mse": squares})[0].backward()
    seen = window.target[0].values.grad[:, 0].unflatten(2, (-1, 4)).unflatten(1, (-1, 2)) != 0
    assert (seen.sum((2, 4)) == 2).all()  # of eight tokens


def test_masks_that_cannot_be():
    with pytest.raises(ValueError, match=r"objective\.hidden"):
        MaskedForecast(WORLD, hidden=1.0)
    with pytest.raises(ValueError, match="has no units to hide"):
        MaskedForecast(WORLD).begin(Step(WORLD, torch.nn.Identity()))
    step, objective = masked(intervals=[0])
    step.output = "residual"
    with pytest.raises(ValueError, match=r"step\.output=absolute"):
        objective.begin(step)


@pytest.mark.parametrize(
    ("several", "one"),
    [
        (AllToAll(WORLD, stretch=2), AllToAll(WORLD, stretch=1)),
        (RandomIntervals(WORLD, intervals=[1, 4]), RandomIntervals(WORLD, intervals=[4])),
    ],
)
def test_networks_that_are_not_told_the_interval_learn_one_alone(several, one):
    untold = Step(WORLD, torch.nn.Identity())
    one.begin(untold)
    with pytest.raises(ValueError, match="Identity is not told the interval"):
        several.begin(untold)
    several.begin(masked()[0])


def test_masks_need_a_network_that_is_told_the_interval():
    step, objective = masked()
    objective.begin(step)
    step.conditioning = frozenset()
    with pytest.raises(ValueError, match="of 0, 1, 2, 4 timesteps"):
        objective.begin(step)


def test_anomalies_are_of_the_fitted_climatology():
    """A network that writes them is one that reads normal weather as a forcing, and adds it to what that writes."""
    times = np.arange("2001-01-01", "2002-01-01", 6, dtype="datetime64[h]").astype("datetime64[s]").astype(np.int64)
    times = torch.from_numpy(times[::5].copy())
    cycle = torch.cos(2 * torch.pi * times / 31_556_925.0)[:, None, None, None] + 2.0
    noise = 0.5 * torch.randn(len(times), 1, *GRID.shape, generator=torch.Generator().manual_seed(1))
    options = {"patch": 1, "unit": [2, 4], "embed": 8, "heads": 2}
    network = Prithvi(WORLD, **options).eval()
    network.fit_climatology([(noise, times, cycle + noise)])
    assert float(network.deviation) == pytest.approx(0.5, rel=0.05)
    reads = World(GRID, WORLD.prognostic, 6 * HOUR, forcing=VariableSet((Variable("normal"),)))
    plain = Prithvi(reads, climatology=False, **options).eval()
    plain.load_state_dict(network.state_dict(), strict=False)
    with torch.no_grad():
        normal = torch.tensordot(network._basis(times), network.coefficients, dims=1)
        assert (normal - cycle).square().mean() < 0.02
        anomaly = plain(torch.cat([noise, normal], 1), times)
        torch.testing.assert_close(network(noise, times), normal + network.deviation * anomaly, rtol=1e-4, atol=1e-5)


class Multiplication(torch.nn.Module):
    """A step that multiplies by one number, which is to be learned."""

    comparable = Step.comparable

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))
        self.states: list[State] = []

    def forward(self, history, forcing):
        self.states.append(State(self.factor * history[-1].values, WORLD.prognostic, forcing.time))
        return self.states[-1]


@pytest.mark.parametrize(
    ("options", "gradient"),  # d/da of the mean of a^(2n) over the leads that are scored, of x(0) = 1
    [
        ({}, lambda a: (2 * a + 4 * a**3 + 6 * a**5) / 3),
        ({"gradient_steps": 5}, lambda a: (2 * a + 4 * a**3 + 6 * a**5) / 3),
        ({"gradient_steps": 2}, lambda a: (2 * a + 2 * a**3 + 4 * a**5) / 3),  # blocks of one step and of two
        ({"gradient_steps": 1}, lambda a: (2 * a + 2 * a**3 + 2 * a**5) / 3),
        ({"scored": "last"}, lambda a: 6 * a**5),
        ({"scored": "last", "gradient_steps": 2}, lambda a: 4 * a**5),
        ({"scored": "last", "gradient_steps": 1}, lambda a: 2 * a**5),
    ],
)
def test_gradients_end_where_a_block_begins(options, gradient):
    ones = State(torch.ones(2, 1, *GRID.shape), WORLD.prognostic, START)
    zeros = tuple(State(torch.zeros(2, 1, *GRID.shape), WORLD.prognostic, START + 6 * n * HOUR) for n in range(1, 4))
    step = Multiplication(1.5)
    loss, parts = Forecast(WORLD, rollout=3, **options)(
        step, Window((ones,), zeros, counted(3).forcing), {"mse": squares}
    )
    loss.backward()
    assert float(step.factor.grad) == pytest.approx(gradient(1.5))
    is_last = options.get("scored") == "last"
    assert {*parts} == ({"mse_3"} if is_last else {"mse_1", "mse_2", "mse_3"})
    graphs = [state.values.requires_grad for state in step.states]
    reached = options.get("gradient_steps", 3) if is_last else 3
    assert graphs == [n > 3 - reached for n in range(1, 4)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_steps": 0}, r"objective\.gradient_steps"),
        ({"scored": "first"}, r"objective\.scored"),
        ({"emission": True, "gradient_steps": 1}, "leave gradient_steps"),
    ],
)
def test_gradients_that_cannot_be_cut(options, message):
    with pytest.raises(ValueError, match=message):
        Forecast(WORLD, **options)
