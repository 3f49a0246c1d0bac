"""The planet's dynamics keep what the equations keep, and are right where the answer is known."""

import numpy as np
import pytest
import torch

from data_pipelines.primitive_equations import PrimitiveEquations, SigmaLevels
from data_pipelines.simulation import Simulation, one_thread
from data_pipelines.sources.planet import half_levels
from emulators.constants import (
    EARTH_RADIUS,
    GAS_CONSTANT_DRY,
    KAPPA,
    ROTATION_RATE,
    WATER_DENSITY,
)
from emulators.grid import gaussian_grid

HALF = half_levels(5)


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def model(timestep=1800.0, half=HALF, **options):
    return PrimitiveEquations(gaussian_grid(16), 10, half, timestep, dtype=torch.float64, **options)


def places(equations):
    grid = equations.sphere.grid
    latitude = torch.from_numpy(np.deg2rad(grid.latitude))[None, :, None]
    longitude = torch.from_numpy(np.deg2rad(grid.longitude))[:, None, None]
    return latitude, longitude, torch.ones(*grid.shape[::-1], equations.size, dtype=torch.float64)


def weather(equations):
    """A lively state: jets, waves, moisture, uneven pressure."""
    latitude, longitude, one = places(equations)
    sigma = equations.constant(equations.levels.full)
    temperature = (300.0 - 50.0 * latitude.sin() ** 2) * sigma**0.19 + 3.0 * (3 * longitude).cos() * latitude.cos() ** 3
    u = 25.0 * latitude.cos() * (2 * latitude).sin() ** 2 * (1.2 - sigma) * one
    humidity = 0.012 * latitude.cos() ** 4 * sigma**3 * one * (1.0 + 0.3 * longitude.sin())
    pressure = 1e5 + 800.0 * (2 * longitude).cos() * latitude.cos() ** 2 * one[..., :1]
    return equations.coefficients(u, 0.2 * u, temperature, humidity, pressure)


def test_air_at_rest_stays_at_rest():
    equations = model()
    _, _, one = places(equations)
    state = equations.coefficients(0 * one, 0 * one, 280.0 * one, 0 * one, 98000.0 * one[..., :1])
    for _ in range(10):
        state = equations.step(state)
    fields = equations.fields(state)
    assert fields.u.abs().max() < 1e-9
    assert fields.v.abs().max() < 1e-9
    torch.testing.assert_close(fields.temperature, 280.0 * one, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(fields.surface_pressure, 98000.0 * one[..., :1], rtol=1e-12, atol=0.0)


def test_dynamics_keep_dry_mass_exactly_and_water_to_roundoff():
    equations = model()
    state = weather(equations)
    pressure, water = state[0, 0, equations.pressure].clone(), equations.water_mass(state)
    for _ in range(48):
        state = equations.step(state)
    assert torch.equal(state[0, 0, equations.pressure], pressure)
    assert equations.water_mass(state) == pytest.approx(water, rel=1e-14)


def test_energy_drift_falls_with_the_timestep():
    """Differencing in space keeps energy up to truncation; what the timestep adds vanishes with it."""
    drifts = []
    for timestep in (2400.0, 600.0):
        equations = model(timestep)
        equations.damping.fill_(1.0)
        state = weather(equations)
        tendency = equations.energy(equations.fields(equations.step(state))) - equations.energy(equations.fields(state))
        drifts.append(abs(tendency) / timestep)
    assert drifts[1] < 0.3 * drifts[0]
    assert drifts[1] < 0.5  # W m-2, of fluxes of hundreds


def test_solid_body_rotation_in_balance_is_steady():
    """u = U cos(phi) with ln ps = -(U (U / 2 + a Omega) / (R T)) sin^2(phi) is an exact isothermal solution."""
    equations = model(timestep=1200.0)
    latitude, _, one = places(equations)
    speed, temperature = 20.0, 280.0
    exponent = speed * (0.5 * speed + EARTH_RADIUS * ROTATION_RATE) / (GAS_CONSTANT_DRY * temperature)
    pressure = 1e5 * torch.exp(-exponent * latitude.sin() ** 2) * one[..., :1]
    u = speed * latitude.cos() * one
    state = equations.coefficients(u, 0 * u, temperature * one, 0 * one, pressure)
    start = equations.fields(state)
    for _ in range(72):
        state = equations.step(state)
    fields = equations.fields(state)
    assert (fields.u - start.u).abs().max() < 0.02
    assert fields.v.abs().max() < 0.02
    assert (fields.surface_pressure - start.surface_pressure).abs().max() < 2.0


def test_external_gravity_wave_has_its_theoretical_frequency():
    """Without rotation a small wave of one column eigenmode oscillates with the frequency c sqrt(l (l + 1)) / a."""
    equations = model(timestep=600.0)
    equations.coriolis.zero_()
    levels, degree = equations.levels, 3
    height = GAS_CONSTANT_DRY * 300.0
    matrix = levels.geopotential @ (KAPPA * 300.0 * levels.omega) + height * np.outer(np.ones(5), levels.thickness)
    speeds, modes = np.linalg.eig(matrix)
    fastest = speeds.real.argmax()
    frequency = np.sqrt(degree * (degree + 1) * speeds.real[fastest]) / EARTH_RADIUS
    state = torch.zeros_like(weather(equations))
    mode = modes[:, fastest].real / modes[-1, fastest].real
    state[4, degree, equations.divergence] = 1e-9 * torch.from_numpy(mode)
    steps = 60
    amplitude = []
    for _ in range(steps):
        state = equations.step(state)
        amplitude.append(float(state[4, degree, equations.divergence][-1]))
    phase = np.cos(frequency * 600.0 * np.arange(1, steps + 1))
    assert np.corrcoef(amplitude, phase)[0, 1] > 0.99


def test_hydrostatic_balance_of_an_isothermal_column():
    levels = SigmaLevels(np.linspace(0.0, 1.0, 41))
    height = levels.geopotential @ np.full(40, 300.0)
    np.testing.assert_allclose(height[5:], -GAS_CONSTANT_DRY * 300.0 * np.log(levels.full[5:]), rtol=2e-2)


def test_sigma_must_rise_from_the_top_to_the_ground():
    with pytest.raises(ValueError, match="rise from 0 to 1"):
        SigmaLevels(np.array([0.0, 0.6, 0.5, 1.0]))
    with pytest.raises(ValueError, match="needs 32 Gaussian rows"):
        PrimitiveEquations(gaussian_grid(16), 21, HALF, 1800.0)


def test_every_joule_and_kilogram_of_a_timestep_is_in_the_ledger():
    """Physics included: water changes by evaporation - precipitation, energy by the fluxes and the fixer."""
    grid = gaussian_grid(16)
    simulation = Simulation(grid, 10, HALF, 3600, np.datetime64("2001-02-01"), dtype=torch.float64)
    for _ in range(6):
        simulation.step()
    dynamics, weights = simulation.dynamics, grid.weights / grid.weights.size
    water, energy = dynamics.water_mass(simulation.coefficients), simulation.energy
    sample = next(simulation.samples(1, 6))
    mean = {
        name: float((field.astype(np.float64) * weights).sum()) for name, field in sample.items() if field.ndim == 2
    }
    gained = WATER_DENSITY * (mean["evaporation_6hr"] - mean["total_precipitation_6hr"])
    assert dynamics.water_mass(simulation.coefficients) - water == pytest.approx(gained, abs=1e-6)
    after = dynamics.energy(dynamics.fields(simulation.coefficients))
    assert after == pytest.approx(simulation.energy, rel=1e-13)
    sources = mean["sensible_heat_flux_6hr"] + mean["net_radiation_6hr"] + mean["friction_6hr"]
    assert after - energy == pytest.approx(sources + 2.5e9 * mean["total_precipitation_6hr"], abs=30.0)
    assert abs(mean["energy_fixer_6hr"]) / 21600.0 < 30.0
