"""Shallow water keeps mass, energy and potential enstrophy of the start, and is left alone where it does already."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from emulators.constraints.shallow_water import ShallowWater
from emulators.grid import gaussian_grid
from emulators.sphere.calculus import SphericalCalculus
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import World

GRID = gaussian_grid(16, 32)
NAMES = ("geopotential", "u_component_of_wind", "v_component_of_wind")
SWITCHES = list(product((False, True), (False, True)))


def water(seed: int, dtype=torch.float64, lead=(2,), levels=()) -> State:
    """Depth of 8 km and winds of 10 m/s, both smooth; seeds differ by a tenth of what is not their common flow."""
    if seed > 0:
        common, own = water(0, lead=lead, levels=levels), water(-seed, lead=lead, levels=levels)
        mixed = 0.9 * common.values + 0.1 * own.values
        return replace(common, values=mixed.to(dtype))
    calculus = SphericalCalculus(GRID, 10, 10, torch.float64)
    generator = torch.Generator().manual_seed(100 - seed)
    count = int(np.prod(lead))
    mask = (torch.arange(10) >= torch.arange(20)[:, None] // 2)[..., None]  # triangular
    noise = [torch.randn(20, 10, count, generator=generator, dtype=torch.float64) * mask for _ in range(3)]
    for field in noise:
        field[1] = 0.0
        field[:, 0] = 0.0
    u, v = calculus.winds(1.2e-5 * noise[0], 2e-6 * noise[1])
    depth = 9.8 * (8000.0 - 20.0 * seed + 30.0 * calculus.synthesis(noise[2]))
    values = torch.stack([f.permute(2, 1, 0) for f in (depth, u, v)], dim=1).reshape(*lead, 3, *GRID.shape)
    variables = VariableSet(tuple(Variable(n, "m2 s-2" if n == NAMES[0] else "m s-1", levels) for n in NAMES))
    return State(values.to(dtype), variables, np.datetime64("2000-01-01", "s"))


def invariants(state: State) -> torch.Tensor:
    """Mass, energy and potential enstrophy, float64 (3, *lead)."""
    calculus, area = SphericalCalculus(GRID, dtype=torch.float64), torch.as_tensor(GRID.weights / GRID.weights.size)
    phi, u, v = (state[name].double().reshape(*state.lead, *GRID.shape) for name in NAMES)
    columns = [w.reshape(-1, *GRID.shape).permute(2, 1, 0).contiguous() for w in (u, v)]
    zeta = calculus.synthesis(calculus.vorticity_divergence(*columns)[0]).permute(2, 1, 0).reshape(u.shape)
    f = 2 * 7.292e-5 * torch.as_tensor(np.sin(np.deg2rad(GRID.latitude)))[:, None]
    h = phi / 9.80665
    densities = h, 0.5 * h * (u * u + v * v) + 0.5 * 9.80665 * h * h, 0.5 * (zeta + f) ** 2 / h
    return torch.stack([(density * area).sum((-2, -1)) for density in densities])


def world(levels=()) -> World:
    return World(GRID, water(0, levels=levels).variables, np.timedelta64(6, "h"))


@pytest.mark.parametrize(("energy", "enstrophy"), SWITCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_invariants(energy, enstrophy, dtype):
    law = ShallowWater(world(), energy=energy, enstrophy=enstrophy)
    before, after = water(1, dtype), water(2, dtype)
    lawful = law(before, after, before)
    wanted, found, raw = (invariants(s) for s in (before, lawful, after))
    error = ((found - wanted) / wanted).abs().amax(-1)
    kept = torch.tensor([True, energy, enstrophy])
    assert (error[kept] < (1e-7 if dtype == torch.float32 else 1e-12)).all(), error
    assert (((raw - wanted) / wanted).abs().amax(-1)[kept] > 1e-6).all(), "there was something to do"
    assert lawful.values.dtype == dtype
    twice = law(before, lawful, before)
    torch.testing.assert_close(twice.values, lawful.values, rtol=3e-7 if dtype == torch.float32 else 1e-10, atol=1e-6)


@pytest.mark.parametrize(("energy", "enstrophy"), SWITCHES)
def test_gradients(energy, enstrophy):
    law = ShallowWater(world(), energy=energy, enstrophy=enstrophy)
    before, after = water(1, lead=(1,)), water(2, lead=(1,))
    spread = after.values.std((0, 2, 3), keepdim=True)

    def value(values):
        return (law(before, replace(after, values=values), before).values / spread).sin().sum()

    values = after.values.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(values), values)
    for seed in range(3):
        noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        direction = spread * noise
        difference = (value(values + 1e-6 * direction) - value(values - 1e-6 * direction)) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), difference.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_any_lead_and_one_level(lead):
    law = ShallowWater(world((500.0,)), energy=True, enstrophy=True)
    before, after = water(1, lead=lead, levels=(500.0,)), water(2, lead=lead, levels=(500.0,))
    lawful = law(before, after, before)
    torch.testing.assert_close(invariants(lawful), invariants(before), rtol=1e-12, atol=0.0)


def test_winds_that_cannot_hold_the_energy_stay_finite():
    law, before, after = ShallowWater(world(), energy=True), water(1, lead=(1,)), water(2, lead=(1,))
    still = before.with_(u_component_of_wind=0 * before["u_component_of_wind"],
                         v_component_of_wind=0 * before["v_component_of_wind"])  # fmt: skip
    torch.testing.assert_close(law(still, still, still).values, still.values)
    depth = before["geopotential"].mean((-2, -1), keepdim=True)
    rough = after.with_(geopotential=depth + 30.0 * (after["geopotential"] - depth))
    values = rough.values.clone().requires_grad_()
    lawful = law(before, replace(rough, values=values), before)
    assert lawful["u_component_of_wind"].abs().max() < 1e-9
    lawful.values.square().sum().backward()
    assert values.grad.isfinite().all()


def test_refusals():
    with pytest.raises(ValueError, match="with one level"):
        ShallowWater(world(), depth="height")
    metres = replace(world(), prognostic=VariableSet((Variable("geopotential", "km"),)))
    with pytest.raises(ValueError, match="in m or m2 s-2"):
        ShallowWater(metres)
