"""Every law holds after its constraint, on random weather, for all coordinates, grids and precisions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from emulators.constraints.dry_air_mass import DryAirMass
from emulators.constraints.global_mean import GlobalMean
from emulators.constraints.hydrostatic import Hydrostatic
from emulators.constraints.moisture_budget import MoistureBudget
from emulators.constraints.positivity import Positivity
from emulators.constraints.probconserv import ProbConserv
from emulators.constraints.total_energy import TotalEnergy
from emulators.constraints.zero_mean_moisture_advection import ZeroMeanMoistureAdvection
from emulators.physics.budgets import DryAir, Energy, Water
from emulators.physics.hydrostatics import Hydrostatics
from emulators.state import Origin

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

KINDS, GLOBES = ("sigma", "hybrid", "pressure"), ("gaussian", "equiangular", "equiangular_with_poles")
CASES = st.tuples(
    st.sampled_from(KINDS),
    st.sampled_from(GLOBES),
    st.sampled_from((torch.float32, torch.float64)),
    st.integers(0, 2**31),
    st.sampled_from(((), (2,), (2, 3))),
)
# of the state: of 128 numbers and more
ROUNDING = {torch.float32: 1e-7, torch.float64: 1e-13}
property_ = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)


@pytest.fixture(scope="session")
def case(column_world, weather):
    """World and States of a drawn case; `before` started elsewhere, and lies a little beside what it started from."""

    def made(drawn):
        kind, grid, dtype, seed, lead = drawn
        world = column_world(kind, grid)
        start, before, after, forcing = (
            weather(world, variables, seed + n, lead, dtype)
            for n, variables in enumerate((world.prognostic, world.prognostic, world.predicted, world.forcing))
        )
        return world, replace(before, origin=Origin(start, start, forcing)), after, forcing

    return made


def departure(got, wanted, scale):
    """The largest difference, as a share of `scale`."""
    return float(((got - wanted) / scale).abs().max())


@property_
@hypothesis.given(drawn=CASES)
def test_dry_air(case, drawn):
    world, before, after, forcing = case(drawn)
    budget = DryAir(world)
    forms = ["offset"] if world.vertical.kind == "pressure" else ["offset", "ratio"]
    for form in forms:
        for reference, state in (("start", before.start), ("before", before)):
            lawful = DryAirMass(world, form=form, reference=reference)(before, after, forcing)
            wanted = budget.mean(budget.content(state))
            assert departure(budget.mean(budget.content(lawful)), wanted, wanted) < ROUNDING[drawn[2]]


@property_
@hypothesis.given(drawn=CASES, layers=st.integers(1, 4))
def test_dry_air_by_humidity(case, drawn, layers):
    world, before, after, forcing = case(drawn)
    for columns in ("surface", "fixed") if world.vertical.kind == "pressure" else ("surface",):
        lawful = DryAirMass(world, form="humidity", layers=layers, columns=columns)(before, after, forcing)
        budget = DryAir(world, columns=columns)
        wanted = budget.mean(budget.content(before.start))
        assert departure(budget.mean(budget.content(lawful)), wanted, wanted) < ROUNDING[drawn[2]]
        held = 4 - layers
        assert torch.equal(lawful["specific_humidity"][..., :held, :, :], after["specific_humidity"][..., :held, :, :])


@property_
@hypothesis.given(drawn=CASES)
def test_moisture(case, drawn):
    world, before, after, forcing = case(drawn)
    budget = Water(world)
    for closing in ("precipitation", "evaporation", "advection_and_precipitation", "advection_and_evaporation"):
        lawful = MoistureBudget(world, closing=closing)(before, after, forcing)
        residual = budget.residual(before, lawful, forcing)
        scale = budget.content(after).mean()
        assert departure(budget.mean(residual), 0.0, scale) < ROUNDING[drawn[2]]
        if closing.startswith("advection"):
            advection = 21600.0 * lawful["tendency_of_total_water_path_due_to_advection"].double()
            assert departure(residual, advection, scale) < ROUNDING[drawn[2]]
            assert departure(budget.mean(advection), 0.0, scale) < ROUNDING[drawn[2]]


@property_
@hypothesis.given(drawn=CASES, definition=st.sampled_from(("enthalpy", "credit", "ace")))
def test_energy(case, drawn, definition):
    world, before, after, forcing = case(drawn)
    if definition == "ace" and world.vertical.kind == "pressure":
        return
    budget = Energy(world, energy=definition, unaccounted=1.0)
    for form in ("increment", "variance", *(("ratio",) if definition != "ace" else ())):
        law = TotalEnergy(world, form=form, energy=definition, unaccounted=1.0)
        residual = budget.mean(budget.residual(before, law(before, after, forcing), forcing))
        assert departure(residual, 0.0, budget.mean(budget.content(before))) < ROUNDING[drawn[2]]


@property_
@hypothesis.given(drawn=CASES)
def test_all_of_them_one_after_another(case, drawn):
    world, before, after, forcing = case(drawn)
    laws = [Positivity(world), DryAirMass(world), ZeroMeanMoistureAdvection(world)]
    laws += [MoistureBudget(world, closing="advection_and_precipitation"), TotalEnergy(world)]
    state = after
    for law in laws:
        state = law(before, state, forcing)
    air, water, energy = DryAir(world), Water(world), Energy(world)
    mass = air.mean(air.content(before.start))
    assert departure(air.mean(air.content(state)), mass, mass) < ROUNDING[drawn[2]]
    for budget in (water, energy):
        scale = budget.mean(budget.content(before))
        assert departure(budget.mean(budget.residual(before, state, forcing)), 0.0, scale) < ROUNDING[drawn[2]]
    assert state["specific_humidity"].min() >= 0


@property_
@hypothesis.given(drawn=CASES, form=st.sampled_from(("offset", "ratio")))
def test_global_means(case, drawn, form):
    world, before, after, forcing = case(drawn)
    names = ["skin_temperature", "temperature", "surface_pressure"]
    lawful = GlobalMean(world, variables=names, form=form)(before, after, forcing)
    area = torch.as_tensor(world.grid.weights / world.grid.weights.sum())
    for name in names:
        got, wanted = ((s[name].double() * area).sum((-2, -1)) for s in (lawful, before.start))
        assert departure(got, wanted, wanted) < ROUNDING[drawn[2]]


@property_
@hypothesis.given(drawn=CASES)
def test_integrals_by_conditioning(case, drawn):
    world, before, after, forcing = case(drawn)
    variance = torch.rand(after["temperature"].shape).to(drawn[2])
    spread = after.with_(u_component_of_wind=variance)
    area = torch.as_tensor(world.grid.weights / world.grid.weights.sum())
    for law in (
        ProbConserv(world, variables=["temperature"]),
        ProbConserv(world, variables=["temperature"], variance="u_component_of_wind"),
    ):
        lawful = law(before, spread, forcing)
        got, wanted = ((s["temperature"].double() * area).sum((-3, -2, -1)) for s in (lawful, before.start))
        assert departure(got, wanted, wanted) < ROUNDING[drawn[2]]
    moved = (lawful["temperature"] - after["temperature"]).double().abs()
    assert (moved[variance == 0] == 0).all()


@property_
@hypothesis.given(drawn=CASES)
def test_heights(case, drawn):
    world, before, after, forcing = case(drawn)
    lawful = Hydrostatic(world)(before, after, forcing)
    assert departure(Hydrostatics(world).imbalance(lawful), 0.0, 1e5) < ROUNDING[drawn[2]]
