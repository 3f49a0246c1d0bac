"""Laws over steps of several lengths leave the truth as it is, or refuse: every interval, path and objective."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.constraints.dry_air_mass import DryAirMass
from emulators.constraints.global_mean import GlobalMean
from emulators.constraints.moisture_budget import MoistureBudget
from emulators.constraints.positivity import Positivity
from emulators.constraints.total_energy import TotalEnergy
from emulators.interfaces import Constraint, Loss, refuse_unknown_intervals
from emulators.losses.energy_budget import EnergyBudget
from emulators.losses.moisture_budget import MoistureBudget as MoistureLoss
from emulators.objectives.all_to_all import AllToAll
from emulators.objectives.masked_forecast import MaskedForecast
from emulators.objectives.random_intervals import RandomIntervals
from emulators.rollout import Rollout
from emulators.state import Origin, State, Window
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.verification.budget_ledger import Ledger

HOUR = np.timedelta64(1, "h")
FLUXES = ("total_precipitation", "evaporation", "sensible_heat_flux", "net_radiation", "friction")
LAWS = {"positivity": Positivity, "dry_air_mass": DryAirMass, "moisture_budget": MoistureBudget,
        "total_energy": TotalEnergy}  # fmt: skip


class Exact(Step):
    """Steps from wherever to the truth, under the laws; the network is told the interval."""

    conditioning = frozenset({"interval"})

    def __init__(self, world, constraints, truth):
        super().__init__(world, torch.nn.Identity(), constraints, output="absolute")
        self.conditioning, self.truth = frozenset({"interval"}), truth

    def forward(self, history, forcing, **conditioning):
        after = next(state for state in self.truth if (state.time == forcing.time).all())
        return self.constrained(history[-1].select(self.world.prognostic.names), after, forcing)


@pytest.fixture(scope="module")
def worlds(column_world):
    """Two worlds, without and with sums over two and four timesteps."""
    plain = column_world()
    sums = [
        Variable(f"{name}_{hours}hr", v.units, (), v.positive, f"sum {hours}h")
        for hours in (12, 24)
        for name, v in ((flux, plain.diagnostic.variable(f"{flux}_6hr")) for flux in FLUXES)
    ]
    scales = {**plain.scales, **{v.name: plain.scales[v.name.rsplit("_", 1)[0] + "_6hr"] for v in sums}}
    return plain, replace(plain, diagnostic=plain.diagnostic + VariableSet(tuple(sums)), scales=scales)


def trajectory(world, weather, steps=8):
    """A truth whose budgets of water and energy are closed from one timestep to the next, with all sums."""
    laws = {name: law(world) for name, law in LAWS.items()}
    start = replace(weather(world, world.prognostic, 0), time=np.array(["2000-01-01", "2000-07-01"], "datetime64[s]"))
    forcings = [replace(weather(world, world.forcing, n), time=start.time + 6 * n * HOUR) for n in range(1, steps + 1)]
    truth, before = [], start
    for n, forcing in enumerate(forcings, start=1):
        state = replace(weather(world, world.predicted, 10 + n), time=forcing.time)
        state = replace(state, origin=Origin(start, replace(before, origin=None), forcing))
        for law in laws.values():
            state = law(before, state, forcing)
        truth.append(state)
        before = state.select(world.prognostic.names)
    known = [name for name in world.diagnostic.names if name.endswith(("_12hr", "_24hr"))]
    whole = []
    for n, state in enumerate(truth):
        count = {name: 2 if name.endswith("_12hr") else 4 for name in known}
        past = {name: truth[max(0, n + 1 - count[name]) : n + 1] for name in known}
        sums = {name: sum(s[name.rsplit("_", 1)[0] + "_6hr"] for s in states) for name, states in past.items()}
        whole.append(replace(state.with_(**sums), origin=None))
    return start, whole, forcings


def apart(state: State, target: State) -> torch.Tensor:
    """The largest difference, in parts of the largest value of each variable."""
    shares = (
        ((state[name] - target[name]).abs() / target[name].abs().amax()).flatten(1).amax(1)
        for name in target.variables.names
    )
    return torch.stack([*shares]).amax(0)


@pytest.fixture(scope="module")
def truth(worlds, weather):
    return trajectory(worlds[1], weather)


@pytest.mark.parametrize("interval", [1, 2, 4])
def test_a_step_over_any_interval_leaves_the_truth(worlds, truth, interval):
    start, states, forcings = truth
    step = Exact(worlds[1], {name: law(worlds[1]) for name, law in LAWS.items()}, states)
    known = [start, *states]
    for begin in range(0, len(known) - interval):
        after = step((known[begin],), forcings[begin + interval - 1])
        assert float(apart(after, states[begin + interval - 1]).max()) < 1e-10


def test_a_step_without_sums_is_refused(worlds, truth, weather):
    plain, _ = worlds
    start, states, forcings = trajectory(plain, weather, 4)
    for name in ("moisture_budget", "total_energy"):
        step = Exact(plain, {name: LAWS[name](plain)}, states)
        with pytest.raises(ValueError, match=r"here of 4 timesteps; .* total_precipitation_24hr, or leave"):
            step((start,), forcings[3])
        with pytest.raises(
            ValueError, match=f"{name} takes fluxes .* for steps of 1 timesteps; some steps are of 2, 4"
        ):
            RandomIntervals(plain, intervals=[1, 2, 4]).begin(step)
        with pytest.raises(ValueError, match="some steps are of 2, 3, 4"):
            AllToAll(plain, stretch=4).begin(step)
        with pytest.raises(ValueError, match="some steps are of 4"):
            Rollout(step, plain, (start,), scheme="averaged", intervals=[1, 4])
    masked = MaskedForecast(plain, intervals=[0, 1])
    with pytest.raises(ValueError, match="some steps are of 0"):
        refuse_unknown_intervals({"total_energy": TotalEnergy(plain)}, Constraint, masked.intervals)
    budget = GlobalMean(plain, budget={"surface_pressure": "surface_pressure"})
    with pytest.raises(ValueError, match="is of one timestep; the step takes 4"):
        budget(start, states[3], forcings[3])
    losses = {"moisture_budget": MoistureLoss(plain), "energy_budget": EnergyBudget(plain)}
    with pytest.raises(ValueError, match="moisture_budget takes fluxes"):
        refuse_unknown_intervals(losses, Loss, [1, 4])


@pytest.mark.parametrize("path", [("rollout", [1]), ("aggregated", [1, 2, 4]), ("averaged", [1, 2, 4])], ids=str)
def test_every_path_leaves_the_truth_and_its_ledger_is_closed(worlds, truth, path):
    (scheme, intervals), (start, states, forcings) = path, truth
    step = Exact(worlds[1], {name: law(worlds[1]) for name, law in LAWS.items()}, states)
    ledger = Ledger(worlds[1], step.constraints, leads=len(states))
    with ledger.record_corrections(step):
        made = Rollout(step, worlds[1], (start,), scheme=scheme, intervals=intervals).states(forcings)
        for lead, (state, target) in enumerate(zip(made, states, strict=True)):
            assert float(apart(state, target).max()) < 1e-10
            ledger.add(lead, state)
    series = ledger.results().series
    assert np.abs(series["moisture_residual"]).max() < 1e-9
    assert np.abs(series["energy_residual"]).max() < 1e-6
    assert max(share.max() for share in ledger.results().shares.values()) < 1e-6


def test_a_ledger_compares_states_a_timestep_apart(worlds, truth):
    """One that was wrong over a day, though closed over that day, is not certified."""
    start, states, forcings = truth
    step = Exact(worlds[1], {"moisture_budget": MoistureBudget(worlds[1])}, states)
    wet = {"specific_humidity": 1.01 * states[3]["specific_humidity"]}
    step.truth = [*states[:3], states[3].with_(**wet)]
    ledger = Ledger(worlds[1], step.constraints, leads=4)
    for lead, state in enumerate(
        Rollout(step, worlds[1], (start,), scheme="aggregated", intervals=[1, 4]).states(forcings[:4])
    ):
        ledger.add(lead, state)
    residual = np.abs(ledger.results().series["moisture_residual"])
    assert residual[:, :3].max() < 1e-9
    assert residual[:, 3].min() > 1e-3


@pytest.mark.parametrize("kind", [RandomIntervals, AllToAll])
def test_every_objective_leaves_the_truth(worlds, truth, kind):
    start, states, forcings = truth
    world = worlds[1]
    step = Exact(world, {name: law(world) for name, law in LAWS.items()}, states)
    options = {"intervals": [1, 2, 4], "rollout": 2} if kind is RandomIntervals else {"stretch": 2}
    objective = kind(world, **options)
    objective.begin(step)
    torch.manual_seed(0)
    losses = {"apart": apart, "water": MoistureLoss(world), "energy": EnergyBudget(world)}
    for _ in range(6):
        _, parts = objective(step, Window((start,), tuple(states), tuple(forcings)), losses)
        assert max(float(value) for value in parts.values()) < 1e-10
