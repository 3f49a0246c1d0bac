"""Coupled components: the order in which they step, what they exchange and keep, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emulators.constraints.slab_ocean import SlabOcean
from emulators.grid import Grid, equiangular_grid, gaussian_grid
from emulators.models.persistence import Persistence
from emulators.rollout import Rollout
from emulators.state import State
from emulators.steps.coupled import CoupledStep
from emulators.steps.ensembles import CasesApart
from emulators.steps.exchange import LEAST
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

HOURS = np.timedelta64(6, "h")
AIR, SEA, FLUX = Variable("air_temperature", "K"), Variable("sea_temperature", "K"), Variable("heat_flux", "W m-2")
SUN = Variable("sun", "W m-2")
GIVEN = Variable("heat", "W m-2")
COARSE, FINE = equiangular_grid(6), equiangular_grid(8)


def made_world(grid: Grid, timestep: np.timedelta64 = HOURS, history: int = 1, **roles: tuple[Variable, ...]) -> World:
    sets = {role: VariableSet(variables) for role, variables in roles.items()}
    channels = [channel for variables in sets.values() for channel in variables.channels]
    scales = {channel: Scale(0.0, 1.0, 1.0) for channel in channels}
    return World(grid, timestep=timestep, history=history, scales=scales, **sets)


class Computed(nn.Module):
    """Write what a function makes of the fields that are read, and keep these."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.seen, self.times = function, list[Tensor](), list[Tensor]()

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        self.seen.append(fields.clone())
        self.times.append(time)
        return self.function(fields)


def counting(grid: Grid) -> Step:
    """An atmosphere whose temperature is the number of its step, and whose flux is ten times that and its forcing."""
    world = made_world(grid, prognostic=(AIR,), diagnostic=(FLUX,), forcing=(SEA,))

    def function(fields: Tensor) -> Tensor:
        number = fields[:, :1] + 1.0
        return torch.cat([number, 10.0 * number + fields[:, 1:2]], dim=1)

    return Step(world, Computed(function), output="absolute")


def warming(grid: Grid, days: int = 5, history: int = 1, forcing: tuple[Variable, ...] = (AIR,)) -> Step:
    """An ocean that adds what it is given to the newest state that it knows."""
    world = made_world(grid, np.timedelta64(days, "D"), history, prognostic=(SEA,), forcing=forcing)

    def function(fields: Tensor) -> Tensor:
        return fields[:, history - 1 : history] + fields[:, history:].sum(1, keepdim=True)

    return Step(world, Computed(function), output="absolute")


def joint(grid: Grid = COARSE, history: int = 1, forcing: tuple[Variable, ...] = ()) -> World:
    return made_world(grid, history=history, prognostic=(AIR, SEA), diagnostic=(FLUX,), forcing=forcing)


def coupled(world: World, constraints: Any = None, **options: Any) -> CoupledStep:
    return CoupledStep(world, Persistence(world), constraints, **options)


def start(world: World, lead: tuple[int, ...] = (1,), seed: int | None = None) -> tuple[State, ...]:
    """Known States: zero, or drawn."""
    time = np.datetime64("2001-01-01", "s") + np.arange(lead[-1]) * np.timedelta64(1, "D")
    draws = torch.Generator().manual_seed(seed or 0)
    shape = *lead, world.prognostic.size, *world.grid.shape
    return tuple(
        State(torch.zeros(shape) if seed is None else torch.randn(shape, generator=draws), world.prognostic,
              world.after(time, -back), len(world.grid.shape))
        for back in reversed(range(world.history))
    )  # fmt: skip


def forcings(world: World, known: tuple[State, ...], steps: int, first: int = 1) -> list[State]:
    size, rank = world.forcing.size, len(world.grid.shape)
    return [
        State(torch.full((len(known[-1].time), size, *world.grid.shape), float(lead)), world.forcing,
              world.after(known[-1].time, lead), rank)
        for lead in range(first, first + steps)
    ]  # fmt: skip


def rolled(step: Any, known: tuple[State, ...], steps: int) -> list[State]:
    return list(Rollout(step, step.world, known).states(forcings(step.world, known, steps)))


def test_the_ocean_gets_the_mean_of_the_new_states():
    """The order of SamudrACE: an atmosphere that emits 1 ... 20 gives a forcing of 10.5, then 30.5 for 21 ... 40."""
    sea = warming(COARSE)
    states = rolled(coupled(joint(), atmosphere=counting(COARSE), ocean=sea), start(joint()), 40)
    given = [fields[:, 1].unique().tolist() for fields in sea.network.seen]
    assert given == [[10.5], [30.5]]
    temperatures = [state["sea_temperature"].unique().tolist() for state in states]
    assert temperatures == [[0.0]] * 19 + [[10.5]] * 20 + [[41.0]]
    assert [state["air_temperature"].unique().item() for state in states] == [float(n) for n in range(1, 41)]


def test_the_atmosphere_sees_the_ocean_held_until_it_steps():
    air = counting(COARSE)
    rolled(coupled(joint(), atmosphere=air, ocean=warming(COARSE)), start(joint()), 41)
    seen = [fields[:, 1].unique().item() for fields in air.network.seen]
    assert seen == [0.0] * 20 + [10.5] * 20 + [41.0]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"mean": "air_temperature"}, 10.5),
        ({"sum": "air_temperature"}, 210.0),
        ({"last": "air_temperature"}, 20.0),
        ({"mean": {"air_temperature": 2.0, "sun": -1.0}}, 10.5),
        ({"sum": {"sun": 1.0, "heat_flux": 0.1}}, 420.0),
    ],
)
def test_exchanges(declared, expected):
    sea, world = warming(COARSE, forcing=(GIVEN,)), joint(forcing=(SUN,))
    step = coupled(world, exchange={"ocean": {"heat": declared}}, atmosphere=counting(COARSE), ocean=sea)
    rolled(step, start(world), 20)
    assert sea.network.seen[0][:, 1].unique().item() == pytest.approx(expected)


def test_other_forcings_are_those_at_the_target():
    sea, world = warming(COARSE, days=1, forcing=(SUN,)), joint(forcing=(SUN,))
    rolled(coupled(world, atmosphere=counting(COARSE), ocean=sea), start(world), 8)
    assert [fields[:, 1].unique().item() for fields in sea.network.seen] == [4.0, 8.0]


def test_components_know_states_at_their_own_times():
    """An ocean that knows two states starts from those a day apart, and goes on with its own."""
    sea, world = warming(COARSE, days=1, history=2), joint(history=5)
    known = start(world, seed=3)
    states = rolled(coupled(world, atmosphere=counting(COARSE), ocean=sea), known, 12)
    first, second, third = ([fields[:, 0], fields[:, 1]] for fields in sea.network.seen)
    assert torch.equal(first[0], known[0]["sea_temperature"])
    assert torch.equal(first[1], known[-1]["sea_temperature"])
    assert torch.equal(second[0], first[1])
    assert torch.equal(second[1], states[3]["sea_temperature"])
    assert torch.equal(third[0], second[1])
    assert torch.equal(third[1], states[7]["sea_temperature"])
    assert [time.item() for time in sea.network.times] == [states[n].time.astype(np.int64).item() for n in (3, 7, 11)]


def test_a_slab_stands_inside_the_timestep():
    """The order of ACE2-SOM: 100 W m-2 on 50 m for 6 h give +0.0108 K, which the next timestep of the air sees."""
    air_world = made_world(COARSE, prognostic=(AIR,), diagnostic=(FLUX,), forcing=(SEA,))
    network = Computed(lambda fields: torch.cat([fields[:, :1], torch.full_like(fields[:, :1], -100.0)], dim=1))
    flux = replace(FLUX, positive="up", cell="mean")
    world = replace(joint(), diagnostic=VariableSet((flux,)))
    slab = SlabOcean(world, temperature="sea_temperature", depth=50.0, fluxes=["heat_flux"])
    air = Step(air_world, network, output="absolute")
    states = rolled(coupled(world, {"slab_ocean": slab}, atmosphere=air), start(world), 2)
    assert states[0]["sea_temperature"].unique().item() == pytest.approx(0.0108, abs=1e-6)
    assert states[1]["sea_temperature"].unique().item() == pytest.approx(0.0216, abs=1e-6)
    assert network.seen[1][:, 1].unique().item() == pytest.approx(0.0108, abs=1e-6)


# --- grids of their own -------------------------------------------------------------------------------------------


def integral(grid: Grid, field: Tensor) -> float:
    weights = torch.as_tensor(grid.weights, dtype=torch.float64)
    return float((field.double() * weights).sum() / weights.sum())


def masked_ocean(mask: np.ndarray) -> Step:
    """An ocean on the fine grid that warms by its forcing where there is water."""
    own = made_world(
        FINE, np.timedelta64(1, "D"), prognostic=(SEA,), forcing=(GIVEN,), static=(Variable("ocean_mask"),)
    )
    own = replace(own, static_fields=mask[None].astype(np.float32))
    water = torch.as_tensor(mask, dtype=torch.float32)
    network = Computed(lambda fields: fields[:, :1] + water * fields[:, 1:2])
    return Step(own, network, output="absolute")


@pytest.mark.parametrize("per", ["part", "cell"])
@pytest.mark.parametrize("grid", [COARSE, gaussian_grid(8), gaussian_grid(12)], ids=repr)
def test_heat_is_conserved_to_another_grid_and_back(grid, per):
    """What the water gains is what the air gives on the share of water of its cells, or in all on cells with water, and
    the means that come back hold it: to 1e-6 of what is exchanged."""
    world, draws = joint(grid), np.random.default_rng(0)
    mask = (draws.random(FINE.shape) > 0.4).astype(float)
    sea, air = masked_ocean(mask), counting(grid)
    field = torch.as_tensor(draws.normal(size=grid.shape), dtype=torch.float32)
    air.network.function = lambda fields: torch.cat(
        [field + 0 * fields[:, :1], 100.0 * field + 0 * fields[:, 1:2]], dim=1
    )
    exchange = {"ocean": {"heat": {"mean": "heat_flux", "per": per}}}
    step = coupled(world, exchange=exchange, masks={"ocean": "ocean_mask"}, atmosphere=air, ocean=sea)
    states = rolled(step, start(world), 4)
    component = step._ordered[1]
    share = component.to_world.share
    received = share if per == "part" else (share > LEAST).double()
    given = integral(grid, received * 100.0 * field)
    known, water = states[-1].carried[0]["sea_temperature"], torch.as_tensor(mask)
    scale = integral(grid, received * 100.0 * field.abs())
    assert integral(FINE, water * known) == pytest.approx(given, abs=1e-6 * scale)
    seen = share * states[-1]["sea_temperature"].double()
    assert integral(grid, seen) == pytest.approx(given, abs=1e-6 * scale)


def test_an_ocean_on_its_own_grid_keeps_what_the_world_cannot_show():
    """Its states go on as they are, not as they come back from the grid of the World."""
    mask = np.ones(FINE.shape)
    sea, world = masked_ocean(mask), joint(COARSE)
    checkers = torch.as_tensor(np.indices(FINE.shape).sum(0) % 2, dtype=torch.float32)
    sea.network.function = lambda fields: fields[:, :1] + checkers
    step = coupled(world, exchange={"ocean": {"heat": {"sum": "heat_flux"}}}, atmosphere=counting(COARSE), ocean=sea)
    states = rolled(step, start(world), 12)
    assert torch.equal(states[-1].carried[0]["sea_temperature"][0], 3.0 * checkers)


def test_states_outside_the_mask_do_not_reach_the_air():
    """At coasts the air sees the mean over water, on land what is held."""
    mask = np.zeros(FINE.shape)
    mask[:, :8] = 1.0
    sea, world = masked_ocean(mask), joint(COARSE)
    sea.network.function = lambda fields: torch.where(torch.as_tensor(mask) > 0, 290.0, 5.0).float() + 0 * fields[:, :1]
    options = {"exchange": {"ocean": {"heat": {"sum": "heat_flux"}}}, "masks": {"ocean": "ocean_mask"}}
    step = coupled(world, atmosphere=counting(COARSE), ocean=sea, **options)
    seen = rolled(step, start(world), 4)[-1]["sea_temperature"]
    assert set(seen.unique().tolist()) == {0.0, 290.0}


# --- resumed, with members, case by case --------------------------------------------------------------------------


def everything() -> tuple[CoupledStep, tuple[State, ...]]:
    """An ocean of two states on another grid, under an atmosphere."""
    world = joint(COARSE, history=5, forcing=(SUN,))
    sea = warming(FINE, days=1, history=2, forcing=(GIVEN, SUN))
    options = {"exchange": {"ocean": {"heat": {"mean": {"heat_flux": 0.1, "sun": 0.3}}}}}
    return coupled(world, atmosphere=counting(COARSE), ocean=sea, **options), start(world, lead=(2,), seed=5)


@pytest.mark.parametrize("at", [1, 3, 4, 6])
def test_a_rollout_goes_on_with_the_same_bits(at):
    step, known = everything()
    whole = rolled(step, known, 10)
    first = Rollout(step, step.world, known)
    list(first.states(forcings(step.world, known, at)))
    arrays = {name: np.array(array) for name, array in first.arrays().items()}
    again = Rollout(step, step.world, known)
    again.restore(arrays)
    rest = list(again.states(forcings(step.world, known, 10 - at, first=at + 1)))
    assert all(torch.equal(a.values, b.values) for a, b in zip(rest, whole[at:], strict=True))


def test_cases_apart_have_the_same_numbers():
    step, known = everything()
    together = rolled(step, known, 9)
    apart = list(Rollout(CasesApart(step), step.world, known).states(forcings(step.world, known, 9)))
    assert all(torch.allclose(a.values, b.values) for a, b in zip(apart, together, strict=True))


def test_members_step_as_one():
    step, known = everything()
    alone = rolled(step, known, 9)
    members = list(Rollout(step, step.world, known, members=3).states(forcings(step.world, known, 9)))
    assert members[-1].lead == (3, 2)
    assert torch.allclose(members[-1].values[2], alone[-1].values)


def test_memory_does_not_grow():
    """No State holds those of earlier timesteps."""
    step, known = everything()
    last = rolled(step, known, 9)[-1]
    assert all(state.origin is None and not state.carried for state in last.carried)
    assert last.origin is not None
    assert last.origin.before.origin is None


# --- what does not fit --------------------------------------------------------------------------------------------


def refused(match: str, world: World, **options: Any) -> None:
    with pytest.raises(ValueError, match=match):
        coupled(world, **options)


def test_what_does_not_fit_is_refused():
    air, sea = counting(COARSE), warming(COARSE)
    refused("needs trained runs", joint())
    refused("No component predicts sea_temperature", joint(), atmosphere=air)
    refused("Both atmosphere and copy predict", joint(), atmosphere=air, copy=counting(COARSE), ocean=sea)
    refused("forced by sun.*say what it is made of", joint(), atmosphere=air, ocean=warming(COARSE, forcing=(SUN,)))
    refused("no component 'lake'", joint(), atmosphere=air, ocean=sea, exchange={"lake": {}})
    refused(
        "'wind' is no forcing of ocean", joint(), atmosphere=air, ocean=sea, exchange={"ocean": {"wind": {"mean": "x"}}}
    )
    nonsense = {"ocean": {"air_temperature": {"median": "heat_flux"}}}
    refused("expected {mean: name} or", joint(), atmosphere=air, ocean=sea, exchange=nonsense)
    absent = {"ocean": {"air_temperature": {"mean": "sand"}}}
    for word, why in (("sea", "expected part or cell; got sea"), ("cell", "got cell, and no step.masks.ocean")):
        given = {"ocean": {"air_temperature": {"mean": "heat_flux", "per": word}}}
        refused(rf"ocean\.air_temperature\.per: .*{why}", joint(), atmosphere=air, ocean=sea, exchange=given)
    refused("No variable or channel 'sand'", joint(), atmosphere=air, ocean=sea, exchange=absent)
    refused("history=5 or more", joint(), atmosphere=air, ocean=warming(COARSE, days=1, history=2))
    refused("whole number", replace(joint(), timestep=np.timedelta64(7, "h")), atmosphere=air, ocean=sea)
    refused("'ocean_mask' is no static variable", joint(), atmosphere=air, ocean=sea, masks={"ocean": "ocean_mask"})
    refused("list it among the prognostic", made_world(COARSE, prognostic=(SEA,)), atmosphere=air, ocean=sea)


def test_diagnostics_are_told_before_they_are_given():
    """A component that is forced by what another diagnoses stands after it."""
    ice = Step(made_world(COARSE, prognostic=(SEA,), forcing=(FLUX,)), nn.Identity())
    refused("diagnosed later", joint(), ocean=ice, atmosphere=counting(COARSE))
    assert coupled(joint(), atmosphere=counting(COARSE), ocean=ice).components


def test_a_state_of_another_step_is_refused():
    step, known = everything()
    foreign = replace(rolled(step, known, 1)[-1], carried=())
    with pytest.raises(ValueError, match="made itself"):
        step((*known[1:], foreign), forcings(step.world, known, 1, first=2)[0])
