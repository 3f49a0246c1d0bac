"""Every order of constraints that is not refused keeps every listed law at once, on random states of any kind."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import torch

from emulators.constraints.bounds import Bounds
from emulators.constraints.dry_air_mass import DryAirMass
from emulators.constraints.global_mean import GlobalMean
from emulators.constraints.hydrostatic import Hydrostatic
from emulators.constraints.moisture_budget import LARGEST, MoistureBudget
from emulators.constraints.positivity import Positivity
from emulators.constraints.total_energy import TotalEnergy
from emulators.constraints.zero_mean_moisture_advection import ZeroMeanMoistureAdvection
from emulators.state import Origin
from emulators.steps.step import refuse_disorder

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

RAIN, EVAPORATION = "total_precipitation_6hr", "evaporation_6hr"
PARTS = {
    "positivity": Positivity,
    "positivity_of_both": lambda world: Positivity(world, variables=[RAIN, EVAPORATION, "specific_humidity"]),
    "bounds": Bounds,
    "dry_air_mass": DryAirMass,
    "dry_air_by_humidity": lambda world: DryAirMass(world, form="humidity"),
    "moisture_budget": MoistureBudget,
    "by_evaporation": lambda world: MoistureBudget(world, closing="evaporation"),
    "by_advection": lambda world: MoistureBudget(world, closing="advection_and_precipitation"),
    "total_energy": TotalEnergy,
    "zero_mean": ZeroMeanMoistureAdvection,
    "hydrostatic": Hydrostatic,
    "mean_of_depth": lambda world: GlobalMean(world, variables=["depth"]),
}
ORDERS = [order for count in (2, 3, 4) for order in permutations(PARTS, count)]
property_ = hypothesis.settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.filter_too_much],  # most orders are refused
)


@pytest.fixture(scope="module")
def world(column_world):
    return column_world()


@pytest.fixture(scope="module")
def parts(world):
    return {name: part(world) for name, part in PARTS.items()}


def allowed(laws) -> bool:
    try:
        refuse_disorder(laws)
    except ValueError:
        return False
    return True


def transition(world, weather, seed, wetter, rain):
    """States of a step whose air takes up or loses water, and whose rain is what it is, or next to nothing."""
    before, after, forcing = (
        weather(world, variables, seed + n)
        for n, variables in enumerate((world.prognostic, world.predicted, world.forcing))
    )
    changed = {"specific_humidity": after["specific_humidity"] * wetter, RAIN: after[RAIN] * rain}
    return replace(before, origin=Origin(before, before, forcing)), after.with_(**changed), forcing


@property_
@hypothesis.given(
    seed=st.integers(0, 2**20),
    wetter=st.sampled_from((0.7, 0.99, 1.0, 1.05, 1.5)),
    rain=st.sampled_from((0.0, 1e-9, 1.0, 50.0)),
    order=st.sampled_from(ORDERS),
)
def test_all_listed_laws_hold_at_once(world, weather, parts, seed, wetter, rain, order):
    laws = {name: parts[name] for name in order}
    hypothesis.assume(allowed(laws))
    before, after, forcing = transition(world, weather, seed, wetter, rain)
    for law in laws.values():
        after = law(before, after, forcing)
    for name, law in laws.items():
        again = law(before, after, forcing)
        for variable in law.changes or ():
            scale = after[variable].abs().amax() + float(world.scale(world.predicted.select([variable]), "std").min())
            assert float(((again[variable] - after[variable]) / scale).abs().max()) < 1e-9, f"{name} in {order}"


def test_the_usual_orders_are_among_those_allowed(parts):
    usual = ["positivity", "dry_air_mass", "moisture_budget", "total_energy"]
    assert allowed({name: parts[name] for name in usual})
    assert allowed({name: parts[name] for name in ["positivity", "bounds", "dry_air_mass", "by_advection"]})
    assert not allowed({name: parts[name] for name in ["moisture_budget", "positivity"]})
    count = sum(allowed({name: parts[name] for name in order}) for order in ORDERS)
    assert 0 < count < len(ORDERS)


@pytest.mark.parametrize("closing", ["precipitation", "evaporation"])
def test_air_that_is_too_moist_or_almost_without_rain_makes_no_floods(world, weather, closing):
    """Rain is never negative, and no cell takes more than ten times its own and the mean that is missing."""
    law = MoistureBudget(world, closing=closing)
    budget = law.budget
    for wetter, rain in ((1.05, 1.0), (0.95, 1e-5), (0.95, 1.0), (1.5, 0.0)):
        before, after, forcing = transition(world, weather, 3, wetter, rain)
        positive = Positivity(world, variables=[RAIN, EVAPORATION, "specific_humidity"])(before, after, forcing)
        rests = {n: positive[n] * (positive[n] > positive[n].median()) for n in (RAIN, EVAPORATION)}
        positive = positive.with_(**rests)  # nothing falls or rises over half of the globe
        made = law(before, positive, forcing)
        assert float(made[RAIN].min()) >= 0.0
        assert float(made[EVAPORATION].min()) >= 0.0
        turnover = float(budget.mean(budget.turnover(made, forcing)).max())
        residual = budget.mean(budget.residual(before, made, forcing))
        assert float(residual.abs().max()) < 1e-10 * turnover
        fluxes = (budget.precipitated, budget.evaporated)
        old, new = (torch.stack([flux(state, forcing) for flux in fluxes]) for state in (positive, made))
        assert float((new - LARGEST * old).max()) <= turnover


def test_prescribed_evaporation_cannot_take_water_that_rain_lacks(world, weather, column_world):
    """Then rain may be negative, and an order after positivity is refused."""
    fixed = world.diagnostic.select([EVAPORATION])
    others = world.diagnostic.select([name for name in world.diagnostic.names if name != EVAPORATION])
    prescribed = column_world(diagnostic=others, forcing=world.forcing + fixed)
    law = MoistureBudget(prescribed)
    assert law.changes == (RAIN,)
    assert not allowed({"positivity": Positivity(prescribed), "moisture_budget": law})
    assert allowed({"positivity": Positivity(prescribed, variables=["specific_humidity"]), "moisture_budget": law})
