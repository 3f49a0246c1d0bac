"""Standard cases of dynamical cores: the baroclinic wave, and the climate of dry air."""

import baroclinic_wave
import numpy as np
import pytest

from data_pipelines.reading.threads import one_thread
from data_pipelines.simulators.planet.climate import Climate, Switches
from data_pipelines.simulators.planet.primitive_equations import PrimitiveEquations
from data_pipelines.simulators.planet.simulation import Simulation
from data_pipelines.sources.planet import half_levels
from emulators.grid import gaussian_grid


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def balanced(rows, truncation, levels, minutes):
    grid = gaussian_grid(rows)
    ground = baroclinic_wave.surface_geopotential(grid)
    return PrimitiveEquations(grid, truncation, half_levels(levels), 60.0 * minutes, surface_geopotential=ground)


def later(equations, state, days):
    for _ in range(round(86400.0 * days / equations.timestep)):
        state = equations.step(state)
    return equations.fields(state)


def test_balanced_jet_is_steady():
    """Jablonowski & Williamson 2006: zonal wind keeps within 0.6 m/s of 35, pressure within 0.3 hPa of uniform."""
    equations = balanced(32, 21, 8, 60)
    state = baroclinic_wave.state(equations, push=0.0)
    start, end = equations.fields(state), later(equations, state, 2)
    assert 30.0 < float(start.u.max()) < 36.0
    assert float((end.u - start.u).abs().max()) < 0.6
    assert float((end.surface_pressure - 1e5).abs().max()) < 30.0
    assert float((end.u - end.u.mean(dim=0)).abs().max()) < 0.01


@pytest.mark.slow
def test_baroclinic_wave_deepens():
    """At T21 the low of day 9 is shallower than that of 945 hPa which T42 with 18 levels makes."""
    equations = balanced(32, 21, 8, 60)
    fields = later(equations, baroclinic_wave.state(equations), 9)
    assert 960.0 < float(fields.surface_pressure.min()) / 100.0 < 980.0
    low = np.unravel_index(int(fields.surface_pressure[..., 0].argmin()), (64, 32))
    assert 40.0 < equations.sphere.grid.latitude[low[1]] < 70.0
    south = equations.sphere.grid.latitude < -20.0
    assert float((fields.surface_pressure[:, south] - 1e5).abs().max()) < 500.0


@pytest.mark.slow
def test_dry_air_has_held_and_suarezs_jets():
    """After 120 days from rest and noise: one westerly jet a hemisphere near 30 m/s, easterlies in the tropics."""
    grid = gaussian_grid(32)
    climate = Climate(warmest_equilibrium=315.0, equilibrium_contrast=60.0)
    switches = Switches(moist=False, season=False, diurnal=False)
    start = np.datetime64("2001-01-01")
    simulation = Simulation(grid, 21, half_levels(8), 5400, start, climate=climate, switches=switches)
    wind, eddies, flux, count = 0.0, 0.0, 0.0, 0
    for day, sample in enumerate(simulation.samples(220, 16)):
        if day < 120:
            continue
        u, v, t = (sample[name] for name in ("u_component_of_wind", "v_component_of_wind", "temperature"))
        du, dv, dt = (field - field.mean(axis=-1, keepdims=True) for field in (u, v, t))
        wind, eddies = wind + u.mean(axis=-1), eddies + 0.5 * (du**2 + dv**2).mean(axis=-1)
        flux, count = flux + (dv * dt).mean(axis=-1), count + 1
    wind, eddies, flux = wind / count, eddies / count, flux / count
    for half in (grid.latitude > 0.0, grid.latitude < 0.0):
        jet = wind[:, half]
        latitude = abs(grid.latitude[half][np.unravel_index(jet.argmax(), jet.shape)[1]])
        assert 23.0 < jet.max() < 38.0
        assert 30.0 < latitude < 52.0
    assert wind[-1, np.abs(grid.latitude) < 15.0].mean() < -1.0
    assert 150.0 < eddies.max() < 450.0
    assert 10.0 < np.abs(flux).max() < 26.0
