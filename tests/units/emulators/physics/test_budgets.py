"""Budgets against closed forms: columns of every coordinate, energy in three definitions, what is made of nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.constants import GRAVITY
from emulators.constraints.dry_air_mass import DryAirMass
from emulators.constraints.total_energy import TotalEnergy
from emulators.physics.budgets import CONSTANTS, DryAir, Energy, Water
from emulators.physics.columns import Columns, dither, dry_air, round_keeping_mean
from emulators.physics.hydrostatics import Hydrostatics
from emulators.state import Origin
from emulators.variables import Variable, VariableSet
from emulators.verification.budget_ledger import Ledger
from emulators.world import World


def uniform(world, weather, **fields):
    """A State of the predicted variables in which the named ones are the same everywhere (by level, where listed)."""
    state = weather(world, world.predicted, 0, lead=())
    changed = {
        name: torch.as_tensor(value, dtype=torch.float64).reshape(-1, 1, 1).expand_as(state[name])
        if state[name].ndim == 3
        else torch.full_like(state[name], value)
        for name, value in fields.items()
    }
    return state.with_(**changed)


@pytest.mark.parametrize("kind", ["sigma", "hybrid", "pressure"])
def test_columns_weigh_what_stands_on_the_ground(column_world, weather, kind):
    world = column_world(kind)
    columns = Columns(world, world.prognostic.variable("temperature").levels)
    state = weather(world, world.predicted, 3)
    pressure = state["surface_pressure"] * torch.linspace(0.6, 1.05, 16, dtype=torch.float64)  # mountains
    state = state.with_(surface_pressure=pressure)
    thickness = columns.thickness(state)
    torch.testing.assert_close(thickness.sum(-3), pressure)
    assert (thickness >= 0).all()
    if kind == "pressure":
        below = pressure < 92_500.0  # halfway between 850 and 1000 hPa
        assert (thickness[:, -1][below] == 0).all()
        assert (thickness[:, -1][~below] > 0).all()
    share = 1.0 - state["specific_humidity"]
    dry = (share * thickness).sum(-3)
    torch.testing.assert_close(columns.surface_pressure(dry, share), pressure)


def test_levels_in_any_order(column_world, weather):
    world = column_world("pressure")
    state = weather(world, world.predicted, 3)
    order = [2, 0, 3, 1]
    shuffled = tuple(world.prognostic.variable("temperature").levels[n] for n in order)
    up, mixed = Columns(world, (200.0, 500.0, 850.0, 1000.0)), Columns(world, shuffled)
    thickness = up.thickness(state)
    torch.testing.assert_close(mixed.thickness(state), thickness[:, order])
    share = 1.0 - state["specific_humidity"]
    dry = (share * thickness).sum(-3)
    torch.testing.assert_close(mixed.surface_pressure(dry, share[:, order]), state["surface_pressure"])


def test_fixed_columns_are_the_trapezoidal_rule(column_world, weather):
    world = column_world("pressure")
    columns = Columns(world, (200.0, 500.0, 850.0, 1000.0), convention="fixed")
    state = weather(world, world.predicted, 3)
    field = state["temperature"]
    trapezoid = np.trapezoid(field.numpy(), np.array([2e4, 5e4, 8.5e4, 1e5]), axis=-3) / GRAVITY
    np.testing.assert_allclose(columns.sum(field, columns.thickness(state)), trapezoid, rtol=1e-14)


def test_what_has_no_columns_is_refused(column_world):
    world = column_world("hybrid")
    with pytest.raises(ValueError, match="every layer"):
        Columns(world, (1.0, 2.0))
    with pytest.raises(ValueError, match="columns=surface"):
        Columns(world, (1.0, 2.0, 3.0, 4.0), convention="fixed")
    with pytest.raises(ValueError, match="'surface' or are 'fixed'"):
        Columns(world, (1.0, 2.0, 3.0, 4.0), convention="floating")
    bare = replace(world, prognostic=world.prognostic.select(["temperature", "specific_humidity"]))
    with pytest.raises(ValueError, match=r"surface_pressure \(ACE: PRESsfc; CREDIT: SP\)"):
        DryAir(bare)
    with pytest.raises(ValueError, match="limited_area"):
        DryAir(column_world(grid="limited_area"))
    with pytest.raises(ValueError, match=r"geopotential_at_surface \(ACE: HGTsfc.*topography=false"):
        Energy(replace(world, static=VariableSet(), static_fields=None))


def test_a_resting_isothermal_dry_column(column_world, weather):
    """cp T dp / g + Phi_s dp / g."""
    world = column_world()
    still = {"u_component_of_wind": 0.0, "v_component_of_wind": 0.0, "specific_humidity": 0.0}
    state = uniform(world, weather, temperature=280.0, surface_pressure=1e5, **still)
    ground = torch.as_tensor(world.static_fields[1], dtype=torch.float64)
    for definition in ("enthalpy", "credit"):
        heat = CONSTANTS[definition].heat_capacity_dry * 280.0
        found = Energy(world, energy=definition).content(state)
        torch.testing.assert_close(found, (heat + ground) * 1e5 / GRAVITY)


def test_moisture_and_wind_hold_energy(column_world, weather):
    world = column_world()
    state = uniform(world, weather, temperature=280.0, surface_pressure=1e5, specific_humidity=0.01,
                    u_component_of_wind=3.0, v_component_of_wind=4.0)  # fmt: skip
    found = Energy(world, energy="credit", topography=False).content(state)
    per_mass = (0.99 * 1004.64 + 0.01 * 1810.0) * 280.0 + 2.501e6 * 0.01 + 12.5
    torch.testing.assert_close(found, torch.full_like(found, per_mass * 1e5 / GRAVITY))


def test_enthalpy_stands_for_height_too(column_world, weather):
    """sum (cv T + g z) dp = sum (cp T + Phi_s) dp of an isothermal atmosphere, the more so the thinner its layers."""
    half = np.concatenate([[0.0], np.geomspace(1e-5, 1.0, 4000)])
    levels = tuple(float(n) for n in range(1, 4001))
    world = column_world()
    profiles = VariableSet(tuple(replace(v, levels=levels) if v.levels else v for v in world.prognostic))
    world = replace(
        world, prognostic=profiles, vertical=replace(world.vertical, a=(0.0,) * 4001, b=tuple(half)), scales={}
    )
    fields = {"temperature": 260.0, "specific_humidity": 0.0, "u_component_of_wind": 0.0, "v_component_of_wind": 0.0}
    zero = torch.zeros(world.predicted.size, 8, 16, dtype=torch.float64)
    zero[world.predicted.slice("surface_pressure")] = 1e5
    zero[world.predicted.slice("temperature")] = fields["temperature"]
    state = replace(
        weather(column_world(), column_world().predicted, 0, lead=()), values=zero, variables=world.predicted
    )
    ace = Energy(world, energy="ace")
    by_height = ace.content(state)
    known = CONSTANTS["ace"]
    ground = torch.as_tensor(world.static_fields[1], dtype=torch.float64)
    by_enthalpy = (known.heat_capacity_dry * 260.0 + ground) * 1e5 / GRAVITY
    torch.testing.assert_close(by_height, by_enthalpy, rtol=2e-5, atol=0.0)
    assert ace.sensitivity(state).item() == pytest.approx(known.heat_capacity_dry * 1e5 / GRAVITY, rel=2e-5)


@pytest.mark.parametrize("definition", ["enthalpy", "credit", "ace"])
def test_sensitivity_is_the_slope_of_energy(column_world, weather, definition):
    world = column_world("hybrid")
    budget, state = Energy(world, energy=definition), weather(world, world.predicted, 5)
    warmer = state.with_(temperature=state["temperature"] + 2.0)
    gained = budget.mean(budget.content(warmer) - budget.content(state))
    torch.testing.assert_close(gained, 2.0 * budget.sensitivity(state))
    torch.testing.assert_close(budget.total(state), budget.mean(budget.content(state)))


@pytest.mark.parametrize("definition", ["enthalpy", "credit", "ace"])
def test_water_that_evaporates_brings_the_latent_heat_that_vapour_holds(column_world, weather, definition):
    world = column_world("hybrid")
    budget, state = Energy(world, energy=definition, heat=["evaporation_6hr"]), weather(world, world.predicted, 5)
    evaporated = Water(world).evaporated(state, state)
    torch.testing.assert_close(budget.gain(state, state), CONSTANTS[definition].latent_heat * evaporated)


def test_energy_rests_on_snow_where_it_counts(column_world):
    world = column_world("hybrid")
    snow = Variable("snowfall", "m", (), "down", "sum 6h")
    wet = replace(world, diagnostic=world.diagnostic + VariableSet((snow,)))
    assert "snowfall" in Energy(wet, energy="ace").uses
    assert "snowfall" not in Energy(wet).uses


def test_condensates_are_water(column_world, weather):
    world = column_world()
    cloud = Variable("specific_cloud_ice_water_content", "kg kg-1", world.prognostic.variable("temperature").levels)
    wet = replace(world, prognostic=world.prognostic + VariableSet((cloud,)), scales={})
    plain = weather(world, world.predicted, 1)
    values = torch.cat([plain.values[:, :23], torch.full((2, 4, 8, 16), 1e-3).double(), plain.values[:, 23:]], dim=1)
    state = replace(plain, values=values, variables=wet.predicted)
    more = Water(wet).content(state) - Water(world).content(plain)
    torch.testing.assert_close(more, 1e-3 * plain["surface_pressure"] / GRAVITY)
    torch.testing.assert_close(DryAir(wet).content(state) + Water(wet).content(state),
                               plain["surface_pressure"] / GRAVITY)  # fmt: skip


def test_surface_pressure_may_be_the_weight_of_dry_air_alone(column_world, weather):
    moist = column_world()
    world = replace(moist, vertical=replace(moist.vertical, dry=True))
    before, after, forcing = (
        weather(world, v, n) for n, v in enumerate((world.prognostic, world.predicted, world.forcing))
    )
    torch.testing.assert_close(DryAir(world).content(after), after["surface_pressure"].double() / GRAVITY)
    torch.testing.assert_close(dry_air(after["specific_humidity"], after["surface_pressure"], world.vertical),
                               after["surface_pressure"].double() / GRAVITY)  # fmt: skip
    for form in ("offset", "ratio"):
        kept = DryAirMass(world, form=form)(before, after, forcing)["surface_pressure"]
        mean = DryAir(world).mean
        torch.testing.assert_close(mean(kept), mean(before["surface_pressure"]), rtol=1e-12, atol=0.0)
    assert Ledger(world, leads=1).names[0] == "dry_air_drift"
    assert World.from_plain(world.plain()).vertical.dry
    with pytest.raises(ValueError, match="form=offset"):
        DryAirMass(world, form="humidity")


def test_what_is_made_of_nothing(column_world, weather):
    world = column_world()
    before, after, forcing = (
        weather(world, v, n) for n, v in enumerate((world.prognostic, world.predicted, world.forcing))
    )
    for budget in (DryAir(world), Water(world), Energy(world)):
        step = replace(after, origin=Origin(before, before, forcing))
        imbalance, turnover = budget.imbalance_and_turnover(step, after)
        torch.testing.assert_close(imbalance, budget.mean(budget.residual(before, after, forcing)))
        assert (turnover > 0).all()
        from_the_truth, _ = budget.imbalance_and_turnover(after, after)
        assert (from_the_truth == 0).all()


def test_rounding_takes_nothing_from_the_mean():
    generator = torch.Generator().manual_seed(0)
    exact = 96_000.0 + 2e3 * torch.randn(3, 64, 128, generator=generator, dtype=torch.float64)
    weights = torch.rand(64, 128, generator=generator, dtype=torch.float64)
    once = round_keeping_mean(exact, torch.float32, weights, dither((64, 128)))

    def lost(single):
        return (weights * (single.double() - exact)).sum((-2, -1)).abs() / weights.sum()

    assert (lost(once) < 2e-5).all()
    assert lost(once).mean() < 0.5 * lost(exact.float()).mean()
    assert torch.equal(round_keeping_mean(once.double(), torch.float32, weights, dither((64, 128))), once)
    assert torch.equal(round_keeping_mean(exact, torch.float64, weights, dither((64, 128))), exact)


@pytest.mark.parametrize("shift", [1e-3, 2e-3, 3.8e-3, -2.5e-3])
def test_a_shift_smaller_than_a_float_is_not_lost(shift):
    """All numbers lie equally far from a float: rounded to the nearest, all would forget the shift, or double it."""
    noise = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    floats = (96_000.0 + 2e3 * noise).double()
    weights = torch.ones(64, 128, dtype=torch.float64)
    exact = floats + shift  # neighbouring floats are 0.0078 apart
    nearest = (exact.float().double() - exact).mean().abs()
    kept = (round_keeping_mean(exact, torch.float32, weights, dither((64, 128))).double() - exact).mean().abs()
    assert nearest > 9e-4
    assert kept < 1e-5


def test_heights_of_an_isothermal_atmosphere(column_world, weather):
    """R T ln(p / p') between pressure levels; Simmons & Burridge on layers, with ln 2 at the top."""
    calm = {"temperature": 250.0, "specific_humidity": 0.0, "surface_pressure": 1e5}
    world = column_world("pressure")
    found = Hydrostatics(world).geopotential(uniform(world, weather, **calm))[:, 0, 0]
    expected = [287.04 * 250.0 * math.log(1000.0 / p) for p in (200.0, 500.0, 850.0, 1000.0)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    world = column_world("sigma")
    found = Hydrostatics(world, topography=False).geopotential(uniform(world, weather, **calm))[:, 0, 0]
    layer = 287.04 * 250.0 * math.log(1.0 / 0.2)
    assert found[0].item() == pytest.approx(layer + 287.04 * 250.0 * math.log(2.0))
    alpha = 1.0 - 0.8 / 0.2 * math.log(1.0 / 0.8)
    assert found[-1].item() == pytest.approx(alpha * 287.04 * 250.0)
    raised = Hydrostatics(world).geopotential(uniform(world, weather, **calm))
    torch.testing.assert_close(raised[2] - found[2], torch.as_tensor(world.static_fields[1]).double())


def test_heights_need_their_variables(column_world):
    world = column_world()
    with pytest.raises(ValueError, match="needs geopotential"):
        Hydrostatics(replace(world, prognostic=world.prognostic.select(["temperature", "surface_pressure"])))


def test_tables_of_rounding_made_in_a_forecast_serve_a_training(column_world, weather):
    world = column_world()
    law = TotalEnergy(world)
    before, after = (weather(world, world.predicted, seed, dtype=torch.float32) for seed in (0, 1))
    forcing = weather(world, world.forcing, 2, dtype=torch.float32)
    with torch.inference_mode():
        forecast = law(before, after, forcing).values
    values = after.values.clone().requires_grad_()
    trained = law(before, replace(after, values=values), forcing).values
    trained.sum().backward()
    assert torch.equal(trained.detach(), forecast)
    assert values.grad.isfinite().all()
