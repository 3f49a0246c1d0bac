"""Constraints one by one: anchors, options, what they refuse; and their order, and the start of a rollout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.constants import GRAVITY, HEAT_CAPACITY_DRY
from emulators.constraints.bounds import Bounds
from emulators.constraints.dry_air_mass import DryAirMass
from emulators.constraints.global_mean import GlobalMean
from emulators.constraints.hydrostatic import Hydrostatic
from emulators.constraints.moisture_budget import MoistureBudget
from emulators.constraints.positivity import Positivity
from emulators.constraints.prescribed import Prescribed
from emulators.constraints.probconserv import ProbConserv, conditioned
from emulators.constraints.total_energy import TotalEnergy
from emulators.constraints.zero_mean_moisture_advection import ZeroMeanMoistureAdvection
from emulators.physics.budgets import DryAir, Water
from emulators.rollout import rollout
from emulators.state import State
from emulators.steps.step import Step, refuse_disorder
from emulators.variables import Variable, VariableSet


@pytest.fixture(scope="module")
def world(column_world):
    return column_world()


@pytest.fixture(scope="module")
def states(world, weather):
    sets = world.prognostic, world.predicted, world.forcing
    return tuple(weather(world, variables, seed) for seed, variables in enumerate(sets))


class Drifting(torch.nn.Module):
    """A network that gains mass and heat at every step."""

    def __init__(self, world):
        super().__init__()
        self.size = world.output_channels

    def forward(self, fields, time):
        noise = torch.randn(len(fields), self.size, *fields.shape[2:], generator=torch.Generator().manual_seed(1))
        return 0.1 + 0.05 * noise


# --- the start of a rollout ----------------------------------------------------------------------------------------


def test_a_state_knows_where_it_comes_from(world, weather):
    step = Step(world, Drifting(world))
    first = weather(world, world.prognostic, 0, dtype=torch.float32)
    forcings = [weather(world, world.forcing, n, dtype=torch.float32) for n in range(3)]
    made = list(rollout(step, (first,), forcings))
    assert first.start is first
    for before, state, forcing in zip([first, *made], made, forcings, strict=False):
        assert state.start is first
        assert state.origin.forcing is forcing
        assert torch.equal(state.origin.before.values, before.select(world.prognostic.names).values)
        assert state.origin.before.origin is None, "nothing piles up along a rollout"
    moved = made[-1].to(torch.float64)
    assert moved.start.values.dtype == moved.origin.before.values.dtype == torch.float64


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_dry_air_keeps_the_weight_of_the_start(world, weather, lead):
    """In single precision, within 5e-9 and without trend for 300 steps, on 128 points."""
    first = weather(world, world.prognostic, 0, lead, torch.float32)
    forcing = weather(world, world.forcing, 1, lead, torch.float32)
    budget = DryAir(world)
    wanted = budget.mean(budget.content(first))
    step = Step(world, Drifting(world), {"positivity": Positivity(world), "dry_air_mass": DryAirMass(world)})
    with torch.inference_mode():
        errors = [(budget.mean(budget.content(s)) / wanted - 1) for s in rollout(step, (first,), [forcing] * 300)]
    errors = torch.stack(errors).flatten(1)
    assert errors.abs().max() < 5e-9
    assert (errors[150:].mean(0) - errors[:150].mean(0)).abs().max() < 2e-9


def test_two_rollouts_share_nothing(world, weather):
    step = Step(world, Drifting(world), {"dry_air_mass": DryAirMass(world)})
    forcing = weather(world, world.forcing, 1)
    budget = DryAir(world)
    for seed in (3, 4):
        first = weather(world, world.prognostic, seed)
        last = list(rollout(step, (first,), [forcing] * 3))[-1]
        torch.testing.assert_close(
            budget.mean(budget.content(last)), budget.mean(budget.content(first)), rtol=1e-9, atol=0
        )


# --- anchors -------------------------------------------------------------------------------------------------------


def test_one_watt_for_six_hours_warms_a_dry_column(world, states):
    """An imbalance of 1 W m-2 over 6 h and 1e5 Pa: 21600 g / (cp 1e5) = 2.11e-3 K; none where the budget is closed."""
    before, after, forcing = states
    dry = {"specific_humidity": torch.zeros_like(after["specific_humidity"])}
    level = {"surface_pressure": torch.full_like(after["surface_pressure"], 1e5)}
    still = {name: 0.0 * after[name] for name in world.diagnostic.names}
    before = before.with_(**dry, **level)
    same = after.with_(**{name: before[name] for name in world.prognostic.names}, **still)
    assert torch.equal(TotalEnergy(world)(before, same, forcing).values, same.values)
    warmed = TotalEnergy(world, unaccounted=1.0)(before, same, forcing)["temperature"] - same["temperature"]
    expected = 21600.0 / (HEAT_CAPACITY_DRY * 1e5 / GRAVITY)
    torch.testing.assert_close(warmed, torch.full_like(warmed, expected), rtol=1e-6, atol=0)
    assert expected == pytest.approx(2.11e-3, rel=1e-3)
    law = TotalEnergy(world, form="variance", unaccounted=1.0)
    layered = law(before, same, forcing)["temperature"].double() - same["temperature"].double()
    std = world.scale(world.prognostic, "tendency_std")[world.prognostic.slice("temperature")].astype(np.float64)
    thickness = law.budget.columns.thickness(same)[..., 0, 0].flatten(0, -2)[0].numpy()
    shares = std**2 / (std**2 @ thickness / thickness.sum())
    np.testing.assert_allclose(layered.flatten(0, -4)[0, :, 0, 0], expected * shares, rtol=1e-5)


def test_conditioning_on_a_sum():
    """mu = 1, 2, 3 on a sum of 3: identity, unequal variances, a noisy sum."""
    mean, row, value = (torch.tensor(x, dtype=torch.float64) for x in ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [3.0]))
    spread = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    cases = [(None, 0.0, [0.0, 1.0, 2.0]), (spread, 0.0, [0.25, 0.5, 2.25]), (spread, 1.0, [0.4, 0.8, 2.4])]
    for variance, noise, expected in cases:
        found = conditioned(mean, row, value, variance=variance, noise=noise)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_dry_air_of_a_uniform_atmosphere(world, states):
    """A water-free column of 1e5 Pa that became 1.01e5 Pa is given 1e5 Pa back, by every form."""
    before, after, forcing = states
    dry = {"specific_humidity": torch.zeros_like(after["specific_humidity"])}
    full = torch.ones_like(after["surface_pressure"])
    before, heavy = before.with_(**dry, surface_pressure=1e5 * full), after.with_(**dry, surface_pressure=1.01e5 * full)
    for form in ("offset", "ratio"):
        torch.testing.assert_close(DryAirMass(world, form=form)(before, heavy, forcing)["surface_pressure"], 1e5 * full)
    humid = DryAirMass(world, form="humidity", layers=4)(before, heavy, forcing)["specific_humidity"]
    torch.testing.assert_close(humid, torch.full_like(humid, 1 - 1 / 1.01))


def test_rain_follows_from_evaporation_and_the_air(world, states):
    """P* = P (E - dW) / P, and where nothing falls anywhere the same amount falls everywhere."""
    before, after, forcing = states
    budget = Water(world)
    due = budget.mean(budget.evaporated(after, forcing) - budget.content(after) + budget.content(before)) / 1000.0
    area = torch.as_tensor(world.grid.weights / world.grid.weights.sum())
    fallen = (after["total_precipitation_6hr"] * area).sum((-2, -1), keepdim=True)
    found = MoistureBudget(world)(before, after, forcing)["total_precipitation_6hr"]
    torch.testing.assert_close(found, after["total_precipitation_6hr"] * due / fallen)
    parched = after.with_(total_precipitation_6hr=torch.zeros_like(found))
    found = MoistureBudget(world)(before, parched, forcing)["total_precipitation_6hr"]
    torch.testing.assert_close(found, due.expand_as(found))


def test_evaporation_as_latent_heat(world, weather):
    latent = Variable("surface_latent_heat_flux", "J m-2", (), "down", "sum 6h")
    names = [n for n in world.diagnostic.names if n != "evaporation_6hr"]
    other = replace(world, diagnostic=world.diagnostic.select(names) + VariableSet((latent,)),
                    scales={**world.scales, latent.name: world.scales["net_radiation_6hr"]})  # fmt: skip
    before, after, forcing = (
        weather(other, v, n) for n, v in enumerate((other.prognostic, other.predicted, other.forcing))
    )
    lawful = MoistureBudget(other, closing="evaporation")(before, after, forcing)
    budget = Water(other)
    assert budget.evaporation.name == latent.name
    assert (budget.mean(budget.residual(before, lawful, forcing)).abs() < 1e-10).all()


def test_a_mean_that_follows_a_budget(world, states):
    before, after, forcing = states
    rate = Variable("warming", "K s-1")
    made = replace(world, diagnostic=world.diagnostic + VariableSet((rate,)))
    values = torch.cat([after.values, torch.full_like(after.values[:, :1], 1e-4)], dim=1)
    after = replace(after, values=values, variables=made.predicted)
    law = GlobalMean(made, variables=["skin_temperature"], budget={"skin_temperature": "warming"})
    area = torch.as_tensor(world.grid.weights / world.grid.weights.sum())
    got, was = ((s["skin_temperature"] * area).sum((-2, -1)) for s in (law(before, after, forcing), before))
    torch.testing.assert_close(got, was + 2.16)
    with pytest.raises(ValueError, match="in K or K s-1; surface_pressure is in Pa"):
        GlobalMean(world, variables=["skin_temperature"], budget={"skin_temperature": "surface_pressure"})
    with pytest.raises(ValueError, match="not among its variables"):
        GlobalMean(made, budget={"skin_temperature": "warming"})


def test_what_is_prescribed(world, states):
    before, after, forcing = states
    pair = {"skin_temperature": "sea_surface_temperature"}
    land = torch.as_tensor(world.static_fields[0]).double().expand(2, -1, -1)
    known, own = forcing["sea_surface_temperature"], after["skin_temperature"]
    found = Prescribed(world, variables=pair, mask="land_sea_mask", invert=True)(before, after, forcing)
    torch.testing.assert_close(found["skin_temperature"], torch.where(land == 0, known, own))
    assert torch.equal(Prescribed(world, variables=pair)(before, after, forcing)["skin_temperature"], known)
    half = np.full_like(world.static_fields, 0.25)
    blended = Prescribed(replace(world, static_fields=half), variables=pair, mask="land_sea_mask", blend="blend")
    torch.testing.assert_close(blended(before, after, forcing)["skin_temperature"], 0.75 * own + 0.25 * known)
    with pytest.raises(ValueError, match="got temperature: toa"):
        Prescribed(world, variables={"temperature": "toa"})
    with pytest.raises(ValueError, match="levels differ"):
        Prescribed(world, variables={"temperature": "sea_surface_temperature"})
    with pytest.raises(ValueError, match="mask 'ice'"):
        Prescribed(world, variables=pair, mask="ice")
    with pytest.raises(ValueError, match="expected variables, or forcings named x_at_boundary"):
        Prescribed(world)


def test_what_is_prescribed_at_a_boundary(world, states):
    """Without names: every x of which x_at_boundary is known, in the zone at the boundary."""
    forcing_set = VariableSet((Variable("skin_temperature_at_boundary", "K"), Variable("boundary_zone")))
    zone = (torch.arange(world.grid.shape[1]) < 3).double().expand(2, *world.grid.shape)
    known = torch.full_like(zone, 300.0)
    forcing = State(torch.stack([known, zone], dim=1), forcing_set, states[2].time)
    before, after, _ = states
    found = Prescribed(replace(world, forcing=forcing_set))(before, after, forcing)
    assert torch.equal(found["skin_temperature"], torch.where(zone == 1, known, after["skin_temperature"]))
    assert torch.equal(found["temperature"], after["temperature"])


def test_bounds(world, states):
    before, after, forcing = states
    lawful = Bounds(world, limits={"skin_temperature": [280.0, 290.0], "surface_pressure": [None, 9.6e4]})(*states)
    torch.testing.assert_close(lawful["skin_temperature"], after["skin_temperature"].clamp(280.0, 290.0))
    assert lawful["surface_pressure"].max() == 9.6e4
    values = after.values.clone().requires_grad_()
    through = Bounds(world, limits={"skin_temperature": [280.0, 290.0]}, straight_through=True)
    through(before, replace(after, values=values), forcing)["skin_temperature"].sum().backward()
    assert (values.grad[:, world.predicted.slice("skin_temperature")] == 1).all()
    for pair in ([1.0, 0.0], [None, None], [1.0]):
        with pytest.raises(ValueError, match=r"are \[low, high\]"):
            Bounds(world, limits={"skin_temperature": pair})
    with pytest.raises(ValueError, match="not predicted"):
        Bounds(world, limits={"snow_depth": [0.0, None]})
    assert Bounds(world).changes == ("specific_humidity",)


def test_heights_follow_temperature_on_pressure_levels_and_keep_their_mean(column_world, weather):
    world = column_world("pressure")
    before, after, forcing = (
        weather(world, v, n) for n, v in enumerate((world.prognostic, world.predicted, world.forcing))
    )
    lawful = Hydrostatic(world)(before, after, forcing)
    torch.testing.assert_close(lawful["geopotential"].mean(-3), after["geopotential"].mean(-3))
    assert Hydrostatic(world).rests_on == ("temperature", "specific_humidity", "geopotential")


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "options", "kind", "says"),
    [
        (DryAirMass, {"form": "sideways"}, "sigma", "form offset, ratio or humidity"),
        (DryAirMass, {"form": "humidity", "layers": 5}, "sigma", "1 to 4 of the layers"),
        (DryAirMass, {"columns": "fixed"}, "pressure", "say form=humidity"),
        (DryAirMass, {"form": "ratio"}, "pressure", "sigma or hybrid"),
        (MoistureBudget, {"closing": "advection"}, "sigma", "got 'advection'"),
        (MoistureBudget, {"evaporation": "dew"}, "sigma", "No flux 'dew'"),
        (TotalEnergy, {"form": "quotient"}, "sigma", "increment, variance or ratio"),
        (TotalEnergy, {"form": "ratio", "energy": "ace"}, "sigma", "no local form"),
        (TotalEnergy, {"energy": "ace"}, "pressure", "take energy=enthalpy"),
        (TotalEnergy, {"energy": "free"}, "sigma", "enthalpy, credit, ace"),
        (GlobalMean, {"variables": ["evaporation_6hr"]}, "sigma", "not prognostic"),
        (GlobalMean, {"form": "power"}, "sigma", "offset or ratio"),
        (ProbConserv, {"noise": -1.0}, "sigma", "noise from 0"),
        (ProbConserv, {"variance": "spread"}, "sigma", "needs its variance"),
        (ZeroMeanMoistureAdvection, {"advection": "wind"}, "sigma", "zero_mean_moisture_advection needs"),
    ],
)
def test_refusals(column_world, part, options, kind, says):
    with pytest.raises(ValueError, match=says):
        part(column_world(kind), **options)


def test_what_the_data_lack_is_named(world):
    without = [n for n in world.diagnostic.names if "radiation" not in n and "tendency" not in n]
    poor = replace(world, diagnostic=world.diagnostic.select(without))
    with pytest.raises(ValueError, match=r"solar radiation at the top \(top_net_solar_radiation or .* or DSWRFtoa"):
        TotalEnergy(poor)
    with pytest.raises(ValueError, match=r"in their place radiation \(net_radiation_6hr\) would do"):
        TotalEnergy(poor)
    with pytest.raises(ValueError, match="tendency_of_total_water_path_due_to_advection"):
        MoistureBudget(poor, closing="advection_and_precipitation")
    only = TotalEnergy(poor, heat=["sensible_heat_flux_6hr"])
    assert [flux.name for flux in only.budget.heat] == ["sensible_heat_flux_6hr"]


# --- order ---------------------------------------------------------------------------------------------------------


def test_order(world):
    clean, air, water = Positivity(world), DryAirMass(world), MoistureBudget(world)
    wind, heat = ZeroMeanMoistureAdvection(world), TotalEnergy(world)
    refuse_disorder({"a": clean, "b": air, "c": wind, "d": water, "e": heat})
    refuse_disorder({"c": wind, "d": MoistureBudget(world, closing="advection_and_precipitation")})
    with pytest.raises(
        ValueError, match=r"constraint.clean changes specific_humidity, on which .* constraint.air rests"
    ):
        refuse_disorder({"air": air, "clean": clean})
    with pytest.raises(ValueError, match="list air before heat"):
        Step(world, Drifting(world), {"heat": heat, "air": air})
    with pytest.raises(ValueError, match="list warm before tall"):
        refuse_disorder({"tall": Hydrostatic(world), "warm": heat})


def test_constraints_of_others_need_say_nothing(world, states):
    def warmer(before: State, after: State, forcing: State) -> State:
        return after.with_(skin_temperature=after["skin_temperature"] + 1.0)

    step = Step(world, Drifting(world), {"air": DryAirMass(world), "warmer": warmer})
    before, _, forcing = (state.to(torch.float32) for state in states)
    with_, without = (s((before,), forcing)["skin_temperature"] for s in (step, Step(world, Drifting(world))))
    torch.testing.assert_close(with_, without + 1.0)
