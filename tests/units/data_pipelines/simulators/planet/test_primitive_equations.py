"""The planet's dynamics keep what the equations keep, and are right where the answer is known."""

import numpy as np
import pytest
import torch

from data_pipelines.reading.threads import one_thread
from data_pipelines.simulators.planet.climate import Switches
from data_pipelines.simulators.planet.geography import continents
from data_pipelines.simulators.planet.primitive_equations import PrimitiveEquations, SigmaLevels
from data_pipelines.simulators.planet.simulation import Simulation, dissipation
from data_pipelines.sources.planet import half_levels
from emulators.constants import EARTH_RADIUS, GAS_CONSTANT_DRY, GRAVITY, KAPPA, ROTATION_RATE
from emulators.grid import gaussian_grid
from emulators.physics.moisture import saturation_humidity

HALF = half_levels(5)


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def hill(grid, height=2000.0):
    """Surface geopotential of one broad mountain, (lat, lon)."""
    latitude, longitude = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)
    return GRAVITY * height * np.cos(latitude) ** 6 * (0.5 + 0.5 * np.cos(longitude - 1.0)) ** 3


def model(timestep=1800.0, half=HALF, **options):
    return PrimitiveEquations(gaussian_grid(16), 10, half, timestep, dtype=torch.float64, **options)


def places(equations):
    grid = equations.sphere.grid
    latitude = torch.from_numpy(np.deg2rad(grid.latitude))[None, :, None]
    longitude = torch.from_numpy(np.deg2rad(grid.longitude))[:, None, None]
    return latitude, longitude, torch.ones(*grid.shape[::-1], equations.size, dtype=torch.float64)


def weather(equations):
    """A lively state: jets, waves, uneven pressure."""
    latitude, longitude, one = places(equations)
    sigma = equations.constant(equations.levels.full)
    temperature = (300.0 - 50.0 * latitude.sin() ** 2) * sigma**0.19 + 3.0 * (3 * longitude).cos() * latitude.cos() ** 3
    u = 25.0 * latitude.cos() * (2 * latitude).sin() ** 2 * (1.2 - sigma) * one
    pressure = 1e5 + 800.0 * (2 * longitude).cos() * latitude.cos() ** 2 * one[..., :1]
    return equations.coefficients(u, 0.2 * u, temperature, pressure)


def moisture(equations):
    """Humidity of that state."""
    latitude, longitude, one = places(equations)
    sigma = equations.constant(equations.levels.full)
    return 0.012 * latitude.cos() ** 4 * sigma**3 * one * (1.0 + 0.3 * longitude.sin())


def water_mass(dynamics, fields):
    """Global mean of the water vapour in the column, kg m-2."""
    return float(dynamics.mean(fields.humidity * fields.surface_pressure) @ dynamics.layers) / GRAVITY


def test_air_at_rest_stays_at_rest():
    equations = model()
    _, _, one = places(equations)
    state = equations.coefficients(0 * one, 0 * one, 280.0 * one, 98000.0 * one[..., :1])
    for _ in range(10):
        state = equations.step(state)
    fields = equations.fields(state)
    assert fields.u.abs().max() < 1e-9
    assert fields.v.abs().max() < 1e-9
    torch.testing.assert_close(fields.temperature, 280.0 * one, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(fields.surface_pressure, 98000.0 * one[..., :1], rtol=1e-12, atol=0.0)


def test_air_at_rest_above_a_mountain_stays_at_rest():
    """Where ln ps = -Phi_s / (R T) the slopes of pressure and surface balance, but for what the truncation leaves."""
    grid = gaussian_grid(16)
    equations = model(surface_geopotential=hill(grid))
    equations.damping.fill_(1.0)
    equations.restored.zero_()
    _, _, one = places(equations)
    pressure = 1e5 * torch.exp(-equations.surface_geopotential[..., :1] / (GAS_CONSTANT_DRY * 280.0))
    state = equations.coefficients(0 * one, 0 * one, 280.0 * one, pressure)
    for _ in range(48):
        state = equations.step(state)
    fields = equations.fields(state)
    assert float(fields.u.abs().max()) < 0.05
    assert float((fields.surface_pressure - pressure).abs().max()) < 10.0
    assert float(pressure.min()) < 80000.0


def test_hyperdiffusion_leaves_a_lapse_rate_along_slopes_alone():
    equations = model(surface_geopotential=hill(gaussian_grid(16), 3000.0), diffusion_time=3600.0)
    _, _, one = places(equations)
    exponent = GAS_CONSTANT_DRY * 0.0065 / GRAVITY
    profile = equations.constant(0.5 * (HALF[1:] + HALF[:-1])) ** exponent
    sloping = 290.0 - 0.0065 / GRAVITY * equations.surface_geopotential * profile
    state = equations.coefficients(0 * one, 0 * one, sloping, 1e5 * one[..., :1])
    torch.testing.assert_close(equations.diffused(state), state, rtol=1e-12, atol=1e-12)
    assert float((state * equations.damping - state).abs().max()) > 1e-3


@pytest.mark.parametrize("options", [{}, {"surface_geopotential": hill(gaussian_grid(16))}], ids=["flat", "mountain"])
def test_dynamics_keep_dry_mass_exactly(options):
    equations = model(**options)
    state, humidity = weather(equations), moisture(equations)
    pressure = state[0, 0, equations.pressure].clone()
    for _ in range(48):
        state = equations.step(state, equations.fields(state, humidity))
    assert torch.equal(state[0, 0, equations.pressure], pressure)


@pytest.mark.parametrize("options", [{}, {"surface_geopotential": hill(gaussian_grid(16))}], ids=["flat", "mountain"])
def test_energy_drift_falls_with_the_timestep(options):
    """Differencing in space keeps energy up to truncation; what the timestep adds vanishes with it."""
    drifts = []
    for timestep in (1200.0, 300.0):
        equations = model(timestep, **options)
        equations.damping.fill_(1.0)
        equations.restored.zero_()
        state = weather(equations)
        tendency = equations.energy(equations.fields(equations.step(state))) - equations.energy(equations.fields(state))
        drifts.append(abs(tendency) / timestep)
    assert drifts[1] < 0.3 * drifts[0]
    assert drifts[1] < 0.5  # W m-2, of fluxes of hundreds


def test_dry_air_moves_as_moist_air_without_water_does():
    moist, dry = model(), model(virtual_temperature=False)
    state = rest = weather(moist)
    for _ in range(4):
        state, rest = moist.step(state, moist.fields(state, 0.0 * moisture(moist))), dry.step(rest)
    torch.testing.assert_close(rest, state, rtol=1e-11, atol=1e-18)


def test_moist_air_is_light_only_by_virtual_temperature():
    light, heavy = model(), model(virtual_temperature=False)
    state, humidity = weather(light), moisture(light)
    moist, plain = (equations.step(state, equations.fields(state, humidity)) for equations in (light, heavy))
    torch.testing.assert_close(plain, heavy.step(state), rtol=1e-12, atol=1e-18)
    assert float((moist - plain)[..., light.divergence].abs().max()) > 1e-8
    q = torch.tensor(0.01, dtype=torch.float64)
    virtual = light.virtual_temperature(torch.tensor(300.0, dtype=torch.float64), q)
    assert float(virtual) == pytest.approx(300.0 * (1.0 + (461.5 / 287.04 - 1.0) * 0.01))


@pytest.mark.parametrize(("implicit", "order"), [(True, 2), (False, 3)], ids=["waves implicit", "all explicit"])
def test_time_scheme_converges_at_its_order(implicit, order):
    """SIL3: second order with gravity waves implicit, third without (Whitaker & Kar 2013)."""
    ends = {}
    for steps in (16, 8, 4, 256):
        equations = model(4800.0 / steps)
        equations.damping.fill_(1.0)
        equations.restored.zero_()
        if not implicit:
            equations.linear.zero_()
            equations.inverse = [torch.eye(11, dtype=torch.float64).expand(11, 11, 11)] * 3
        state, humidity = weather(equations), moisture(equations)
        for _ in range(steps):
            state = equations.step(state, equations.fields(state, humidity))
        ends[steps] = equations.fields(state).u
    errors = [float((ends[steps] - ends[256]).square().mean().sqrt()) for steps in (4, 8, 16)]
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert rates[-1] == pytest.approx(order, abs=0.35)


def test_solid_body_rotation_in_balance_is_steady():
    """u = U cos(phi) with ln ps = -(U (U / 2 + a Omega) / (R T)) sin^2(phi) is an exact isothermal solution."""
    equations = model(timestep=1200.0)
    latitude, _, one = places(equations)
    speed, temperature = 20.0, 280.0
    exponent = speed * (0.5 * speed + EARTH_RADIUS * ROTATION_RATE) / (GAS_CONSTANT_DRY * temperature)
    pressure = 1e5 * torch.exp(-exponent * latitude.sin() ** 2) * one[..., :1]
    u = speed * latitude.cos() * one
    state = equations.coefficients(u, 0 * u, temperature * one, pressure)
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


@pytest.mark.parametrize("ocean", ["prescribed", "slab"])
def test_every_joule_and_kilogram_of_a_timestep_is_in_the_ledger(ocean):
    """In float64: dry mass stays to the bit, water and energy to the rounding of their sums."""
    grid = gaussian_grid(16)
    simulation = Simulation(
        grid, 10, HALF, 3600, np.datetime64("2001-02-01"), geography=continents(grid, 10),
        switches=Switches(ocean=ocean), dtype=torch.float64,
    )  # fmt: skip
    for _ in range(60):
        simulation.step()
    dynamics = simulation.dynamics
    pressure = simulation.coefficients[0, 0, dynamics.pressure].clone()
    water, energy = water_mass(dynamics, simulation.fields), float(simulation.energy)
    fluxes, fixer = zip(*(simulation.step() for _ in range(6)), strict=True)
    sums = {name: sum(float(dynamics.mean(getattr(f, name)[..., None])) for f in fluxes) for name in fluxes[0]._fields}
    assert torch.equal(simulation.coefficients[0, 0, dynamics.pressure], pressure)
    gained = water_mass(dynamics, simulation.fields) - water
    assert sums["precipitation"] > 0.2
    assert gained == pytest.approx(sums["evaporation"] - sums["precipitation"], abs=1e-12 * sums["precipitation"])
    after = float(dynamics.energy(dynamics.fields(simulation.coefficients)))
    assert after == pytest.approx(float(simulation.energy), rel=1e-13)
    sources = sums["sensible_heat"] + sums["net_radiation"] + sums["friction"]
    assert after - energy == pytest.approx(sources + 2.5e6 * sums["precipitation"], abs=1e-3)
    assert abs(sum(fixer)) / 21600.0 < 1.0


def test_air_is_nowhere_supersaturated_or_without_water():
    """In the stored state, on the grid, above mountains too."""
    grid = gaussian_grid(16)
    simulation = Simulation(grid, 10, HALF, 3600, np.datetime64("2001-07-01"), geography=continents(grid, 10))
    for _ in range(240):
        simulation.step()
        fields = simulation.fields
        saturation = saturation_humidity(fields.temperature, fields.surface_pressure * simulation.physics.sigma)
        relative = fields.humidity / saturation
        assert float(relative.max()) < 1.01
        assert float(fields.humidity.min()) > 0.0
    assert float((relative > 0.99).double().mean()) > 0.01  # it does rain


def test_kinetic_energy_lost_to_hyperdiffusion_is_heat_where_it_is_lost():
    grid = gaussian_grid(16)
    simulation = Simulation(
        grid, 10, HALF, 1800, np.datetime64("2001-02-01"), switches=Switches(moist=False), dtype=torch.float64
    )
    for _ in range(96):
        simulation.step()
    dynamics, slowing = simulation.dynamics, simulation.physics.slowing
    flown = dynamics.undamped_step(simulation.coefficients, simulation.fields)
    slow = dynamics.fields(dynamics.slowed(flown, slowing))
    damped = dynamics.fields(dynamics.diffused(dynamics.slowed(flown, slowing)))
    lost = dynamics.energy(slow) - dynamics.energy(damped._replace(temperature=slow.temperature))
    heat = dissipation(slow.u, slow.v, damped.u, damped.v)
    assert float(lost) > 100.0  # J m-2
    given = dynamics.mean(heat * damped.surface_pressure) @ dynamics.layers / GRAVITY
    assert float(given) == pytest.approx(float(lost), rel=1e-6)
    assert abs(float(simulation.step()[1])) < 0.2 * float(lost)


def test_without_the_fixer_energy_is_what_it_is():
    grid = gaussian_grid(16)
    simulation = Simulation(
        grid, 10, HALF, 3600, np.datetime64("2001-02-01"), switches=Switches(energy_fixer=False), dtype=torch.float64
    )
    assert simulation.step()[1] == 0.0
    assert simulation.energy == simulation.dynamics.energy(simulation.fields)


def test_snapshot_is_all_that_a_simulation_needs():
    grid = gaussian_grid(16)

    def one(seed):
        return Simulation(grid, 10, HALF, 3600, np.datetime64("2001-02-01"), seed, continents(grid, 10))

    first, second = one(0), one(1)
    first.step()
    second.restore(first.snapshot())
    for _ in range(3):
        first.step()
        second.step()
    assert second.time == first.time
    assert torch.equal(first.coefficients, second.coefficients)
    assert all(torch.equal(a, b) for a, b in zip(first.ground, second.ground, strict=True))
