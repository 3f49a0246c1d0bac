"""Sigma levels seen as pressure levels: hydrostatic laws, the extrapolation below the ground, fields near it."""

import math

import numpy as np
import pytest
import torch

from data_pipelines.simulators.planet.pressure_levels import (
    bracket,
    columns_on_pressure_levels,
    geopotential,
    geopotential_below_ground,
    ground_temperature,
    half_level_geopotential,
    log_sigma,
    mean_sea_level_pressure,
    near_ground,
    roughness_length,
    temperature_below_ground,
    virtual_temperature,
)
from data_pipelines.simulators.planet.primitive_equations import SigmaLevels
from data_pipelines.sources.planet import half_levels
from emulators.constants import GAS_CONSTANT_DRY, GRAVITY, KAPPA

HALF = half_levels(8)
FULL = 0.5 * (HALF[1:] + HALF[:-1])
PRESSURES = 100.0 * torch.tensor([50, 100, 250, 500, 700, 850, 925, 1000], dtype=torch.float64)
SHAPE = (3, 4, 5)  # time, lat, lon


def uniform(low: float, high: float, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def columns_of(profile: torch.Tensor) -> torch.Tensor:
    """(level,) -> (time, level, lat, lon)."""
    return profile.view(-1, 1, 1).expand(3, -1, 4, 5).clone()


def test_isothermal_atmosphere_is_exact_above_the_ground() -> None:
    ps, ground, warmth = uniform(9.3e4, 10.4e4), uniform(-200.0, 9000.0, seed=1), 251.0
    columns = {"temperature": torch.full((3, 8, 4, 5), warmth, dtype=torch.float64)}
    found = columns_on_pressure_levels(PRESSURES, columns, ps, ground, HALF)
    p = PRESSURES.view(-1, 1, 1)
    exact = ground.unsqueeze(-3) + GAS_CONSTANT_DRY * warmth * torch.log(ps.unsqueeze(-3) / p)
    air = p <= ps.unsqueeze(-3)
    torch.testing.assert_close(found["geopotential"][air], exact[air], rtol=0.0, atol=1e-8)
    free = p <= FULL[-1] * ps.unsqueeze(-3)
    torch.testing.assert_close(found["temperature"][free], torch.full_like(exact, warmth)[free], rtol=1e-14, atol=0.0)


def test_virtual_temperature_linear_in_log_pressure_gives_exact_heights() -> None:
    """Phi = Phi_s - R integral Tv dlnp in closed form; the layers hold means, the uppermost has no mean."""
    ps, ground = uniform(9.5e4, 10.3e4), uniform(0.0, 3000.0, seed=1)
    lower = np.log(HALF[1:])
    middle = np.append(lower[0] - math.log(2.0), 0.5 * (lower[1:] + lower[:-1]))
    virtual = columns_of(288.0 + 45.0 * torch.from_numpy(middle))
    log = log_sigma(ps, PRESSURES).clamp(max=0.0)
    found = geopotential(log, virtual, ground, HALF)
    exact = ground.unsqueeze(-3) - GAS_CONSTANT_DRY * (288.0 * log + 22.5 * log**2)
    below_top = log >= lower[0]
    assert below_top.any()
    torch.testing.assert_close(found[below_top], exact[below_top], rtol=0.0, atol=1e-8)


def test_half_levels_are_those_of_the_model() -> None:
    virtual = uniform(200.0, 300.0, (3, 8, 4, 5))
    at_half = half_level_geopotential(virtual, torch.zeros(SHAPE, dtype=torch.float64), HALF)
    levels = SigmaLevels(HALF)
    at_full = torch.einsum("kl,tlyx->tkyx", torch.from_numpy(levels.geopotential), virtual)
    alpha = torch.from_numpy(np.diag(levels.geopotential).copy()).view(-1, 1, 1)
    torch.testing.assert_close(at_half + alpha * virtual, at_full, rtol=1e-14, atol=1e-8)


def test_heights_fall_with_pressure_and_meet_the_ground() -> None:
    ps, ground = uniform(8.5e4, 10.4e4), uniform(0.0, 2.0e4, seed=1)
    temperature = uniform(-4.0, 4.0, (3, 8, 4, 5), seed=2) + columns_of(torch.linspace(205.0, 290.0, 8).double())
    columns = {"temperature": temperature, "specific_humidity": uniform(0.0, 0.015, (3, 8, 4, 5), seed=3)}
    many = torch.linspace(2.0e3, 1.1e5, 300, dtype=torch.float64)
    found = columns_on_pressure_levels(many, columns, ps, ground, HALF)
    assert (found["geopotential"].diff(dim=-3) < 0.0).all()
    star = ground_temperature(temperature[:, -1], FULL[-1])
    for where in (-1e-9, 1e-9):
        at = columns_on_pressure_levels(ps[0, 0, :1] * (1.0 + where), columns, ps, ground, HALF)
        assert float(at["geopotential"][0, 0, 0, 0]) == pytest.approx(float(ground[0, 0, 0]), abs=1e-3)
        assert float(at["temperature"][0, 0, 0, 0]) == pytest.approx(float(star[0, 0, 0]), abs=1e-3)


def test_fields_linear_in_log_pressure_are_exact_and_constant_beyond_the_levels() -> None:
    ps = uniform(9.5e4, 10.3e4)
    field = columns_of(torch.from_numpy(3.0 + 7.0 * np.log(FULL)))
    log = log_sigma(ps, PRESSURES)
    found = bracket(log, FULL)(field)
    expected = 3.0 + 7.0 * log.clamp(math.log(FULL[0]), math.log(FULL[-1]))
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-12)


def test_sea_level_pressure_of_a_flat_planet_is_the_surface_pressure() -> None:
    ps = uniform(9.3e4, 10.4e4)
    assert torch.equal(mean_sea_level_pressure(ps, uniform(230.0, 310.0, seed=1), torch.zeros_like(ps)), ps)


def test_sea_level_pressure_of_the_standard_lapse_rate() -> None:
    """p_msl = ps (1 + 0.0065 z / T*)^(g / (R 0.0065)), of which the formula is the series."""
    ps, height = torch.tensor([9.5e4], dtype=torch.float64), 500.0
    star = torch.tensor([275.0], dtype=torch.float64)
    found = mean_sea_level_pressure(ps, star, torch.full_like(ps, GRAVITY * height))
    exact = ps * (1.0 + 0.0065 * height / star) ** (GRAVITY / (GAS_CONSTANT_DRY * 0.0065))
    torch.testing.assert_close(found, exact, rtol=2e-7, atol=0.0)


def tempered(star: float, phis: float) -> tuple[float, float]:
    """Trenberth, Berry & Buja 1993, as a chain of cases."""
    alpha, level = 0.0065 * GAS_CONSTANT_DRY / GRAVITY, star + 0.0065 * phis / GRAVITY
    if star <= 290.5 < level:
        alpha = GAS_CONSTANT_DRY / phis * (290.5 - star)
    elif star > 290.5 and level > 290.5:
        alpha, star = 0.0, 0.5 * (290.5 + star)
    if star < 255.0:
        star = 0.5 * (255.0 + star)
    return star, alpha


def buried(star: float, phis: float, ratio: float) -> tuple[float, float, float]:
    """(temperature, geopotential, p_msl / ps) at ln(p / ps) = ratio."""
    alpha, height = 0.0065 * GAS_CONSTANT_DRY / GRAVITY, phis / GRAVITY
    if height >= 2000.0:
        level = star + 0.0065 * height
        plateau = min(level, 298.0)
        target = plateau if height > 2500.0 else 0.002 * ((2500.0 - height) * level + (height - 2000.0) * plateau)
        alpha = 0.0 if target < star else GAS_CONSTANT_DRY * (target - star) / phis
    y = alpha * ratio
    warmth = star * (1.0 + y + y**2 / 2.0 + y**3 / 6.0)
    star, alpha = tempered(star, phis)
    y = alpha * ratio
    beta = phis / (GAS_CONSTANT_DRY * star)
    pressure = math.exp(beta * (1.0 - alpha * beta / 2.0 + (alpha * beta) ** 2 / 3.0))
    return warmth, phis - GAS_CONSTANT_DRY * star * ratio * (1.0 + y / 2.0 + y * y / 6.0), pressure


def test_below_the_ground_every_case_of_the_formulas() -> None:
    stars, heights = np.meshgrid(
        [230.0, 260.0, 285.0, 290.0, 295.0, 315.0], [-50.0, 0.0, 400.0, 1999.0, 2200.0, 4000.0]
    )
    star, ground = torch.from_numpy(stars), torch.from_numpy(heights * GRAVITY)
    log = torch.tensor([0.02, 0.3], dtype=torch.float64).view(-1, 1, 1).expand(2, *stars.shape)
    warmth, height = temperature_below_ground(log, star, ground), geopotential_below_ground(log, star, ground)
    pressure = mean_sea_level_pressure(torch.ones_like(star), star, ground)
    for index in np.ndindex(stars.shape):
        for row, ratio in enumerate((0.02, 0.3)):
            expected = buried(stars[index], heights[index] * GRAVITY, ratio)
            found = (warmth[(row, *index)], height[(row, *index)], pressure[index])
            np.testing.assert_allclose([float(value) for value in found], expected, rtol=1e-12)


def test_near_the_ground() -> None:
    """Between the surface and the lowest level; as the surface where the air is neutral; slower over land."""
    lowest = uniform(270.0, 290.0)
    columns = {
        "temperature": torch.stack([lowest - 10.0, lowest], dim=1),
        "u_component_of_wind": uniform(-20.0, 20.0, (3, 2, 4, 5), seed=1),
        "v_component_of_wind": uniform(-20.0, 20.0, (3, 2, 4, 5), seed=2),
    }
    half = np.array([0.0, 0.9, 1.0])
    sea, land = torch.zeros(4, 5, dtype=torch.float64), torch.ones(4, 5, dtype=torch.float64)
    potential = lowest * 0.95**-KAPPA
    calm = near_ground(columns, potential, sea, half)
    torch.testing.assert_close(calm["2m_temperature"], potential)
    warm = near_ground(columns, potential + 5.0, sea, half)["2m_temperature"]
    assert ((warm > potential) & (warm < potential + 5.0)).all()
    rough = near_ground(columns, potential, land, half)
    for name in ("u", "v"):
        aloft = columns[f"{name}_component_of_wind"][:, -1]
        shares = [near[f"10m_{name}_component_of_wind"] / aloft for near in (calm, rough)]
        assert ((shares[0] > 0.6) & (shares[0] < 0.8)).all()
        assert ((shares[1] > 0.4) & (shares[1] < shares[0])).all()
    unknown = near_ground(columns, None, sea, half)["2m_temperature"]
    torch.testing.assert_close(unknown, ground_temperature(lowest, 0.95))
    torch.testing.assert_close(roughness_length(torch.tensor([0.0, 1.0])), torch.tensor([2e-4, 0.1]))


def test_moist_air_is_lighter() -> None:
    assert float(virtual_temperature(torch.tensor(300.0), torch.tensor(0.01))) == pytest.approx(301.823, abs=1e-3)
