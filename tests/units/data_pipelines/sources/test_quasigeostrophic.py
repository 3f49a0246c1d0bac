"""Quasi-geostrophic weather: inversion, waves in closed form, what the advection keeps, and the climate."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from data_pipelines.sources.quasigeostrophic import (
    DEFORMATION_RADII,
    STRETCHING,
    Forcing,
    QuasiGeostrophicEquations,
    equilibrium_streamfunction,
    mountains,
)
from emulators.constants import EARTH_RADIUS, GRAVITY, ROTATION_RATE
from emulators.grid import gaussian_grid

HOUR, DAY = 3600.0, 86400.0
FREE = Forcing(relaxation_days=math.inf, friction_days=math.inf, diffusion_days=math.inf)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def _model(truncation=10, step=HOUR, forcing=None, rows=None):
    rows = rows or -(-(3 * truncation + 1) // 2)
    return QuasiGeostrophicEquations(gaussian_grid(rows + rows % 2), truncation, step, forcing)


def _weather(model, members=1, speed=30.0, seed=0):
    """A random state with winds of some 30 m/s, mostly in large scales."""
    calm = torch.zeros(2 * model.sphere.orders, model.sphere.degrees, 3, members, dtype=torch.float64)
    return model.disturbed(calm, speed, torch.Generator().manual_seed(seed))


def test_vorticity_is_the_laplacian_and_what_stretches_the_columns():
    model = _model()
    psi = model.streamfunction(_weather(model, members=2))
    first, second = (1.0 / radius**2 for radius in DEFORMATION_RADII)
    bent = model.sphere.laplacian[..., None] * psi
    expected = torch.stack(
        [
            bent[:, :, 0] - first * (psi[:, :, 0] - psi[:, :, 1]),
            bent[:, :, 1] + first * (psi[:, :, 0] - psi[:, :, 1]) - second * (psi[:, :, 1] - psi[:, :, 2]),
            bent[:, :, 2] + second * (psi[:, :, 1] - psi[:, :, 2]),
        ],
        dim=2,
    )
    torch.testing.assert_close(model.vorticity(psi), expected, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_rossby_waves_travel_at_the_speed_of_the_closed_form(mode):
    """sigma = -2 Omega m / (l (l + 1) + mu a^2), mu the eigenvalue of the vertical mode (0: Haurwitz 1940)."""
    degree, order, hours = 5, 3, 48
    eigenvalues, modes = np.linalg.eigh(-STRETCHING)
    model = _model()
    psi = torch.zeros(2 * model.sphere.orders, model.sphere.degrees, 3, 1, dtype=torch.float64)
    psi[2 * order, degree] = 1e5 * torch.from_numpy(modes[:, [mode]])
    state = model.vorticity(psi)
    for _ in range(hours):
        state = model.step(state)
    speed = -2.0 * ROTATION_RATE / (degree * (degree + 1) + eigenvalues[mode] * EARTH_RADIUS**2)
    turned = 1e5 * torch.from_numpy(modes[:, mode]) * np.exp(-1j * order * speed * hours * HOUR)
    after = model.streamfunction(state)[2 * order : 2 * order + 2, degree, :, 0]
    torch.testing.assert_close(after[0], turned.real, rtol=1e-5, atol=1.0)
    torch.testing.assert_close(after[1], turned.imag, rtol=1e-5, atol=1.0)


def test_tendency_is_that_of_the_equations_written_on_the_grid():
    """Jacobian from gradients, friction and relaxation term by term, on a finer grid."""
    forcing = Forcing()
    model = _model(10, forcing=forcing, rows=40)
    sphere, state = model.sphere, _weather(model)
    psi = model.streamfunction(state)
    ours = model.tendency(state)
    total = state + model.background
    psi_x, psi_y = sphere.gradient(psi.flatten(2))
    q_x, q_y = sphere.gradient(total.flatten(2))
    heights = torch.from_numpy(mountains(model.grid, forcing.mountains).T.copy())
    rate = (1.0 + 0.5 * (1.0 - torch.exp(-heights / 1000.0)))[..., None] / (forcing.friction_days * DAY)
    slope_x, slope_y = sphere.gradient(sphere.analysis(rate))
    vorticity = sphere.synthesis(sphere.laplacian * psi[:, :, 2])
    grid = -(psi_x * q_y - psi_y * q_x)
    grid[..., 2:] -= rate * vorticity + slope_x * psi_x[..., 2:] + slope_y * psi_y[..., 2:]
    goal = torch.from_numpy(equilibrium_streamfunction(model.grid, forcing).T.copy())
    apart = psi[..., 0] - sphere.analysis(goal)
    upper, lower = apart[..., 0] - apart[..., 1], apart[..., 1] - apart[..., 2]
    first, second = (1.0 / (radius**2 * forcing.relaxation_days * DAY) for radius in DEFORMATION_RADII)
    relaxation = torch.stack([-first * upper, first * upper - second * lower, second * lower], dim=-1)
    expected = sphere.analysis(grid) - relaxation
    scale = float(expected.abs().max())
    # friction's gradient is cut off at T10 here, and complete there
    torch.testing.assert_close(ours[..., :2, 0] / scale, expected[..., :2] / scale, rtol=0.0, atol=1e-11)
    torch.testing.assert_close(ours[..., 2, 0] / scale, expected[..., 2] / scale, rtol=0.0, atol=2e-3)


def test_equilibrium_is_what_relaxation_leaves_alone():
    forcing = replace(FREE, relaxation_days=1.0)
    model = _model(forcing=forcing)
    state = model.equilibrium(2)
    u, _ = model.winds(model.streamfunction(state))
    profile = u.mean(0)[..., 0]
    north = torch.from_numpy(model.grid.latitude.copy()) > 0.0
    assert 30.0 < float(profile[north, 0].max()) < 60.0
    assert float(profile[~north, 0].max()) < 0.75 * float(profile[north, 0].max())
    assert float(profile[:, 2].abs().max()) < 1e-6
    advected = _model(forcing=FREE).tendency(state)
    torch.testing.assert_close(model.tendency(state), advected, rtol=0.0, atol=1e-9 * float(advected.abs().max()))


@pytest.mark.parametrize("forcing", [None, FREE], ids=["flat", "mountains"])
def test_advection_keeps_energy_and_potential_enstrophy(forcing):
    model = _model(15, 0.5 * HOUR, forcing)
    start = state = _weather(model, members=2)
    for _ in range(48):
        state = model.step(state)
    assert float((state - start).abs().max()) > 0.3 * float(start.abs().max())
    torch.testing.assert_close(model.energy(state), model.energy(start), rtol=1e-7, atol=0.0)
    torch.testing.assert_close(model.enstrophy(state), model.enstrophy(start), rtol=1e-7, atol=0.0)
    assert float(state[:, 0].abs().max()) < 1e-18  # no net vorticity


def test_energy_and_enstrophy_are_those_of_the_fields():
    model = _model(forcing=FREE)
    state = _weather(model)
    psi, weights = model.streamfunction(state), torch.from_numpy(model.grid.weights.T.copy())[..., None, None]
    u, v = model.winds(psi)
    field, q = model.field(psi), model.field(state + model.background)
    first, second = (1.0 / radius**2 for radius in DEFORMATION_RADII)
    potential = first * (field[:, :, 0] - field[:, :, 1]) ** 2 + second * (field[:, :, 1] - field[:, :, 2]) ** 2
    density = 0.5 * ((u * u + v * v).sum(2) + potential)
    torch.testing.assert_close(model.energy(state), (density * weights[:, :, 0]).mean((0, 1)), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(model.enstrophy(state), (0.5 * q * q * weights).mean((0, 1)), rtol=1e-12, atol=0.0)


def test_diffusion_takes_two_days_at_the_smallest_scale():
    model = _model(step=0.5 * DAY, forcing=replace(FREE, diffusion_days=2.0, mountains=0.0))
    psi = torch.zeros(2 * model.sphere.orders, model.sphere.degrees, 3, 1, dtype=torch.float64)
    psi[0, -1], psi[0, 5] = 1.0, 1.0  # zonal: no advection
    before = model.vorticity(psi)
    after = before
    for _ in range(4):
        after = model.step(after)
    share = (after / before)[0, :, 0, 0]
    assert float(share[-1]) == pytest.approx(math.exp(-1.0), rel=1e-9)
    assert float(share[5]) == pytest.approx(math.exp(-((30.0 / 110.0) ** 4)), rel=1e-9)


def test_geopotential_is_in_linear_balance_with_solid_rotation():
    model, speed = _model(), 20.0
    latitude = torch.from_numpy(np.deg2rad(model.grid.latitude))
    field = (-EARTH_RADIUS * speed * torch.sin(latitude)).expand(model.grid.shape[1], -1)[..., None]
    psi = model.sphere.analysis(field.contiguous())[:, :, None].expand(-1, -1, 3, 1).contiguous()
    expected = ROTATION_RATE * EARTH_RADIUS * speed * (torch.cos(latitude) ** 2 - 2.0 / 3.0)
    found = model.geopotential(psi)[0, :, 1, 0] - GRAVITY * 5574.0
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-6)


def test_time_step_is_of_fourth_order():
    start = _weather(_model(forcing=Forcing()))
    ends = []
    for steps in (4, 8, 16, 128):
        model, state = _model(step=12.0 * HOUR / steps, forcing=Forcing()), start
        for _ in range(steps):
            state = model.step(state)
        ends.append(state)
    errors = [float((end - ends[-1]).abs().max()) for end in ends[:-1]]
    assert min(math.log2(a / b) for a, b in pairwise(errors)) > 3.6


def test_noise_has_the_wind_asked_for_and_differs_between_members():
    model = _model()
    state = _weather(model, members=2, speed=3.0)
    u, v = model.winds(model.streamfunction(state))
    weights = torch.from_numpy(model.grid.weights.T.copy())[..., None, None]
    speed = float(((u * u + v * v) * weights).mean().sqrt())
    assert speed == pytest.approx(3.0, rel=1e-6)
    assert float((state[..., 0] - state[..., 1]).abs().max()) > 0.1 * float(state.abs().max())


@pytest.mark.slow
def test_climate_is_that_of_winter_storms():
    """Jets, storm tracks east of the continents, a falling spectrum; errors double in 2 to 5 days (Vannitsem & Nicolis
    1997, doi 10.1175/1520-0469(1997)054<0347:LVAEGP>2.0.CO;2: a leading exponent of 0.23 a day)."""
    model = _model(21, 2.0 * HOUR, Forcing())
    state = model.disturbed(model.equilibrium(3), 1.0, torch.Generator().manual_seed(0))
    for _ in range(60 * 12):
        state = model.step(state)
    winds, power = [], []
    for _ in range(60):
        for _ in range(12):
            state = model.step(state)
        psi = model.streamfunction(state)
        winds.append(torch.stack(model.winds(psi)))
        waves = psi[2:].square().sum(0)  # without the zonal mean, most of which is in the largest scales
        power.append((waves * -model.sphere.laplacian[0, :, :, None]).mean(-1))
    winds, power = torch.stack(winds), torch.stack(power).mean(0)
    latitude = model.grid.latitude
    jet = winds[:, 0].mean((0, 1, 4))[:, 0].numpy()
    north, south = np.where(latitude > 15.0, jet, 0.0), np.where(latitude < -15.0, jet, 0.0)
    assert 25.0 < north.max() < 50.0
    assert 30.0 < latitude[north.argmax()] < 55.0
    assert 15.0 < south.max() < north.max()
    assert abs(winds[:, 0].mean((0, 1, 4))[:, 2]).max() < 16.0  # at 800 hPa
    eddies = winds - winds.mean(0)
    kinetic = 0.5 * eddies.square().sum(1).mean((0, 1, 4))[:, 0].numpy()
    assert 120.0 < kinetic[latitude > 15.0].max() < 450.0
    assert kinetic[np.abs(latitude) < 10.0].max() < 0.6 * kinetic.max()
    track = eddies[:, 1].square().mean((0, 4))[:, :, 1]
    along = track[:, (latitude > 35.0) & (latitude < 60.0)].mean(1)
    assert float(along.max()) > 1.1 * float(along.min())  # the storms have a place
    assert int(power[:, 0].argmax()) in (5, 6, 7, 8, 9)
    assert (power[9:, 0].diff() < 0.0).all()
    twin = model.disturbed(state, 1e-4, torch.Generator().manual_seed(1))
    sizes = []
    for _ in range(25):
        for _ in range(12):
            state, twin = model.step(state), model.step(twin)
        sizes.append(float(model.energy(twin - state).mean().sqrt()))
    growth = math.log(sizes[-1] / sizes[9]) / 15.0
    assert 2.0 < math.log(2.0) / growth < 5.0
