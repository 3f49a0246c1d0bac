"""Paths over several intervals and through several networks, and what a network is told of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from data_pipelines.files.checkpoints import constants_of_files
from emulators.grid import gaussian_grid
from emulators.losses.crps import CRPS
from emulators.losses.lp import Lp
from emulators.models.stormer import Stormer
from emulators.objectives.random_intervals import RandomIntervals
from emulators.rollout import Rollout
from emulators.state import State, Window
from emulators.steps.ensembles import StepCascade
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

HOUR = np.timedelta64(1, "h")
START = np.array(["2001-01-01", "2001-07-01"], dtype="datetime64[s]")
WORLD = World(
    gaussian_grid(2),
    VariableSet((Variable("t"),)),
    np.timedelta64(6, "h"),
    scales={"t": Scale(0.0, 4.0, 1.0, {2: 1.8, 4: 2.5})},
)


class Told(torch.nn.Module):
    """Writes the number `value` and remembers what it was told."""

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value))
        self.heard: list[tuple[float, float]] = []

    conditioning = ("interval", "lead")

    def forward(self, fields, time, *, interval=None, lead=None):
        self.heard.append((float(interval[0]), float(lead[0])))
        return self.value.expand(fields.shape)


def states(leads: int) -> tuple[State, list[State]]:
    """A start of zeros, and forcings without channels at its leads."""
    forcings = [State(torch.zeros(2, 0, 2, 4), VariableSet(), START + n * 6 * HOUR) for n in range(1, leads + 1)]
    return State(torch.zeros(2, 1, 2, 4), WORLD.prognostic, START), forcings


def counting(history, forcing) -> State:
    """Ten for every step made, and its interval's square as the last digit but one."""
    before = history[-1]
    steps = int((forcing.time - before.time)[0] / (6 * HOUR))
    return State(before.values + 10 + 0.01 * steps**2, before.variables, forcing.time)


def rolled_out(kind, step, start, forcings, intervals=(1,)) -> list[State]:
    return list(Rollout(step, WORLD, (start,), scheme=kind, intervals=intervals).states(forcings))


def test_the_longest_intervals_are_gone_first():
    start, forcings = states(11)
    made = [float(s.values[0, 0, 0, 0]) for s in rolled_out("aggregated", counting, start, forcings, [1, 2, 4])]
    expected = [(1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1), (0, 0, 2), (1, 0, 2)]
    for value, (ones, twos, fours) in zip(made, expected, strict=False):
        assert value == pytest.approx(10 * (ones + twos + fours) + 0.01 * (ones + 4 * twos + 16 * fours), abs=1e-4)
    assert made[10] == pytest.approx(40.37, abs=1e-4)


def test_ways_of_getting_there_are_averaged():
    start, forcings = states(4)
    made = [float(s.values[0, 0, 0, 0]) for s in rolled_out("averaged", counting, start, forcings, [1, 2, 4])]
    assert made == pytest.approx([10.01, (20.02 + 10.04) / 2, 30.03, (40.04 + 20.08 + 10.16) / 3], abs=1e-4)


@pytest.mark.parametrize(("kind", "intervals"), [("rollout", [1]), ("aggregated", [1, 2, 4]), ("averaged", [1, 3, 4])])
def test_a_path_is_taken_up_where_it_was_left(kind, intervals):
    start, forcings = states(11)
    whole = [(s.values, s.time) for s in rolled_out(kind, counting, start, forcings, intervals)]
    for left in range(1, 11):
        first, second = (Rollout(counting, WORLD, (start,), scheme=kind, intervals=intervals) for _ in range(2))
        list(first.states(forcings[:left]))
        second.restore(first.arrays())
        again = list(second.states(forcings[left:]))
        assert len(again) == 11 - left
        for state, (values, time) in zip(again, whole[left:], strict=True):
            assert torch.equal(state.values, values)
            assert (state.time == time).all()


def test_one_interval_is_a_rollout():
    start, forcings = states(3)
    for kind in ("rollout", "aggregated", "averaged"):
        made = [float(s.values[0, 0, 0, 0]) for s in rolled_out(kind, counting, start, forcings)]
        assert made == pytest.approx([10.01, 20.02, 30.03], abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "intervals", "known", "message"),
    [
        ("jump", [1], 1, "rollout, aggregated, averaged"),
        ("rollout", [1, 4], 1, "path=aggregated"),
        ("averaged", [2, 4], 1, "1 among them"),
        ("aggregated", [1, 2], 2, "one known state"),
    ],
)
def test_wrong_paths_are_refused(kind, intervals, known, message):
    start, _ = states(1)
    with pytest.raises(ValueError, match=message):
        Rollout(counting, WORLD, (start,) * known, scheme=kind, intervals=intervals)


def test_a_network_is_told_the_interval_and_its_change_is_in_units_of_the_measured_one():
    network = Told()
    step = Step(WORLD, network)
    start, forcings = states(5)
    first = step((start,), forcings[0])
    torch.testing.assert_close(first.values, torch.ones(2, 1, 2, 4))
    later = step((first,), forcings[4])
    assert network.heard == [(6.0, 6.0), (24.0, 30.0)]
    torch.testing.assert_close(later.values, torch.full((2, 1, 2, 4), 1.0 + 2.5))
    with pytest.raises(ValueError, match="over 3 timesteps was not measured; known are intervals of 1, 2, 4"):
        step((first,), forcings[3])
    mixed = State(forcings[0].values, VariableSet(), START + np.array([6, 12]) * HOUR)
    with pytest.raises(ValueError, match="the same for all cases of a batch; got 1, 2"):
        step((start,), mixed)


def test_intervals_are_drawn_and_every_one_is_met_by_its_truth():
    network = Told(0.0)
    step = Step(WORLD, network)
    start, forcings = states(8)
    truth = [State(torch.full((2, 1, 2, 4), float(n)), WORLD.prognostic, f.time) for n, f in enumerate(forcings, 1)]
    objective = RandomIntervals(WORLD, intervals=[1, 4], rollout=2)
    assert objective.longest == objective.length(100) == 8
    torch.manual_seed(0)
    drawn = set()
    for _ in range(12):
        network.heard.clear()
        loss, parts = objective(step, Window((start,), tuple(truth), tuple(forcings)), {"mse": squares})
        interval = int(network.heard[0][0]) // 6
        drawn.add(interval)
        assert set(parts) == {f"mse_{interval}", f"mse_{2 * interval}"}
        assert float(loss) == pytest.approx((interval**2 + (2 * interval) ** 2) / 2)
        loss.backward()
    assert drawn == {1, 4}
    assert network.value.grad is not None
    with pytest.raises(ValueError, match=r"objective\.intervals"):
        RandomIntervals(WORLD, intervals=[])


def squares(state: State, target: State) -> torch.Tensor:
    return (state.values - target.values).square().mean((1, 2, 3))


def test_a_cascade_hands_over_by_lead():
    start, forcings = states(4)
    relay = StepCascade("lead", {0.0: Step(WORLD, Told(1.0)), 12.0: Step(WORLD, Told(100.0))})
    made = [float(s.values[0, 0, 0, 0]) for s in rolled_out("rollout", relay, start, forcings)]
    assert made == pytest.approx([1, 2, 102, 202])
    assert relay.steps[1].network.heard == [(6.0, 18.0), (6.0, 24.0)]
    relay.observer = print
    assert [step.observer for step in relay.steps] == [print, print]
    assert relay.constraints == {}


def test_each_interval_has_a_step_of_its_own():
    start, forcings = states(5)
    relay = StepCascade("interval", {6.0: Step(WORLD, Told(1.0)), 24.0: Step(WORLD, Told(0.0))})
    made = list(rolled_out("aggregated", relay, start, forcings, [1, 4]))
    assert [float(s.values[0, 0, 0, 0]) for s in made] == pytest.approx([1, 2, 3, 0, 1])
    with pytest.raises(ValueError, match="12 hours, only for 6, 24"):
        relay((start,), forcings[1])
    with pytest.raises(ValueError, match="12 hours, only for 6, 24"):
        rolled_out("aggregated", relay, start, forcings, [1, 2])


def test_paths_that_a_step_does_not_know_are_refused_before_they_begin():
    start, forcings = states(4)
    with pytest.raises(ValueError, match="over 3 timesteps was not measured"):
        rolled_out("averaged", Step(WORLD, Told()), start, forcings, [1, 3])
    with pytest.raises(ValueError, match="Linear is not told the interval"):
        rolled_out("aggregated", Step(WORLD, torch.nn.Linear(1, 1)), start, forcings, [1, 2])


def test_a_mean_over_intervals_comes_from_the_mean_before():
    start, forcings = states(4)
    made = rolled_out("averaged", counting, start, forcings, [1, 2, 4])
    for before, state in zip([start, *made], made, strict=False):
        assert state.start is start
        assert torch.equal(state.origin.before.values, before.values)
        assert (state.time - state.origin.before.time == 6 * HOUR).all()


@pytest.mark.parametrize(
    ("by", "steps", "message"), [("season", {0.0: None}, "by 'lead'"), ("lead", {6.0: None}, "from the start")]
)
def test_wrong_relays_are_refused(by, steps, message):
    with pytest.raises(ValueError, match=message):
        StepCascade(by, {hours: Step(WORLD, Told()) for hours in steps})


STORMER = {6: 1.0, 12: 1.7, 24: 2.6}  # hours, and how much more the state changes over them


def test_published_stormer_weights_mean_over_each_interval_what_they_meant(tmp_path):
    """x + std_diff(hours) net((x - mean) / std, hours / 10), as its code has it, on random weights and constants."""
    random = np.random.default_rng(0)
    variables = VariableSet((Variable("t"), Variable("u"), Variable("v")))
    made = World(gaussian_grid(8), variables, np.timedelta64(6, "h"))
    constants = {"mean": random.normal(size=3), "std": 1.0 + random.random(3)}
    constants |= {f"tendency_std_{h}h".removesuffix("_6h"): f * (0.3 + random.random(3)) for h, f in STORMER.items()}
    for name, values in constants.items():
        np.savez(tmp_path / f"{name}.npz", **dict(zip(variables.names, values, strict=True)))
    files = {name: str(tmp_path / f"{name}.npz") for name in constants}
    known = constants_of_files(files, made)
    assert sorted(known) == ["changes", "mean", "std", "tendency_std"]
    scales = {n: Scale(**{kind: numbers[n] for kind, numbers in known.items()}) for n in variables.names}
    made = replace(made, scales=scales)
    torch.manual_seed(1)
    network = Stormer(made, embed=16, depth=2, heads=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    step = Step(World.from_plain(made.plain()), network).eval()
    fields = torch.randn(2, 3, *made.grid.shape)
    start = State(fields, variables, START)
    for hours in STORMER:
        forcing = State(torch.zeros(2, 0, *made.grid.shape), VariableSet(), START + hours * HOUR)
        column = {n: torch.as_tensor(v, dtype=torch.float32).reshape(-1, 1, 1) for n, v in constants.items()}
        change = column["tendency_std" if hours == 6 else f"tendency_std_{hours}h"]
        with torch.no_grad():
            raw = network((fields - column["mean"]) / column["std"], torch.zeros(2), interval=torch.full((2,), hours))
            torch.testing.assert_close(step((start,), forcing).values, fields + change * raw)
    with pytest.raises(ValueError, match="tendency_std_12h and the like"):
        constants_of_files({"tendency_std_9h": files["mean"]}, made)


def test_each_interval_has_an_equal_share_in_the_loss():
    """A standstill has the loss 1 where states change as measured, over any interval."""
    start, forcings = states(4)
    for interval, change in {1: 1.0, 2: 1.8, 4: 2.5}.items():
        still = Step(WORLD, Told(0.0))((start,), forcings[interval - 1])
        truth = State(torch.full((2, 1, 2, 4), change), WORLD.prognostic, still.time)
        for loss in (Lp(WORLD), Lp(WORLD, p=1), CRPS(WORLD)):
            torch.testing.assert_close(loss(still, truth), torch.ones(2))
        torch.testing.assert_close(Lp(WORLD, scale="std")(still, truth), torch.full((2,), (change / 4.0) ** 2))
    unknown = Step(WORLD, Told(0.0), output="absolute")((start,), forcings[2])
    with pytest.raises(ValueError, match="needs the change over 3 timesteps"):
        Lp(WORLD)(unknown, unknown)
