"""Shallow water: the standard cases, what the equations keep, and the order of the time scheme."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from data_pipelines.sources.shallow_water import CASES, VARIED, ShallowWaterEquations
from emulators.constants import EARTH_RADIUS, GRAVITY, ROTATION_RATE
from emulators.grid import gaussian_grid

DAY = 86400.0
PUBLISHED = np.zeros(VARIED)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def _case(name, truncation, minutes, *, deeper=0.0, damping_hours=None, varied=PUBLISHED):
    rows = -(-(3 * truncation + 1) // 2)
    begin = CASES[name](gaussian_grid(rows + rows % 2), varied)
    model = ShallowWaterEquations(
        gaussian_grid(rows + rows % 2), truncation, 60.0 * minutes, bottom=begin.bottom, damping_hours=damping_hours
    )
    return model, model.coefficients(begin.u[None], begin.v[None], begin.depth[None] + deeper)


def _run(model, state, days, minutes):
    for _ in range(round(days * 1440 / minutes)):
        state = model.step(state)
    return state


def _drift(quantity, start, end):
    return float((quantity(end) / quantity(start) - 1.0).abs().max())


def _phase(state, order):
    """Longitude of the wave of this order and one degree more in the vorticity, radians (modulo its length)."""
    real, imaginary = state[2 * order : 2 * order + 2, order + 1, 0, 0].tolist()
    return -math.atan2(imaginary, real) / order


def test_solid_rotation_is_steady_to_rounding():
    """Williamson case 2, five days."""
    model, start = _case("rotation", 21, 30)
    begin, end = model.fields(start), model.fields(_run(model, start, 5, 30))
    assert float((end.u - begin.u).abs().max()) < 2e-12 * float(begin.u.abs().max())
    assert float(end.v.abs().max()) < 2e-12 * float(begin.u.abs().max())
    assert float((end.depth - begin.depth).abs().max()) < 2e-12 * float(begin.depth.max())


def test_solid_rotation_is_williamsons():
    begin = CASES["rotation"](gaussian_grid(32), PUBLISHED)
    assert begin.u.max() == pytest.approx(38.6, abs=0.2)
    assert GRAVITY * begin.depth.max() == pytest.approx(2.94e4, rel=2e-3)
    speed, mu = 2.0 * np.pi * EARTH_RADIUS / (12.0 * DAY), np.sin(np.deg2rad(gaussian_grid(32).latitude))
    falls = (EARTH_RADIUS * ROTATION_RATE * speed + speed**2 / 2.0) * mu**2
    np.testing.assert_allclose(GRAVITY * begin.depth[:, 0], 2.94e4 - falls, rtol=1e-12)


@pytest.mark.parametrize(
    ("deeper", "minutes", "lag"), [(792_000.0, 3, 0.0009), (72_000.0, 10, 0.0084), (0.0, 20, 0.058)]
)
def test_rossby_haurwitz_wave_travels_at_haurwitzs_speed_in_deep_water(deeper, minutes, lag):
    """The deeper the water, the less the flow diverges; in 8 km, which is case 6, the wave lags behind."""
    due = (28 * 7.848e-6 - 2.0 * ROTATION_RATE) / 30  # Haurwitz 1940, order 4, without divergence
    assert math.degrees(due) * DAY == pytest.approx(12.19, abs=0.01)
    model, start = _case("haurwitz", 15, minutes, deeper=deeper)
    turned = _phase(_run(model, start, 1.5, minutes), 4) - _phase(start, 4)
    assert 1.0 - turned % (math.pi / 2.0) / (1.5 * DAY) / due == pytest.approx(lag, rel=0.1)


def test_rossby_haurwitz_wave_begins_as_published():
    """The depth of case 6 is such that no divergence grows at first."""
    model, start = _case("haurwitz", 42, 15)
    begin = model.fields(start)
    assert float(begin.depth[:, 0].max()) == pytest.approx(8_000.0, abs=30.0)
    assert float(begin.u.max()) == pytest.approx(99.0, abs=1.5)
    change = model.tendency(start)
    assert float(change[:, :, 1].abs().max()) < 1e-8 * float(change[:, :, 0].abs().max())


@pytest.mark.slow
def test_rossby_haurwitz_wave_keeps_its_shape_for_days():
    """Case 6, T42, five days: still a wave of order 4 and nothing else to rounding, the same amplitude, on its way."""
    model, start = _case("haurwitz", 42, 15)
    end = _run(model, start, 5, 15)
    orders = end[:, :, 2, 0].view(43, 2, 43).square().sum((1, 2))
    others = orders[torch.arange(43) % 4 != 0].sum()
    assert float(others / orders[4]) < 1e-16
    before, after = (model.fields(state).depth for state in (start, end))
    for extreme in (torch.amin, torch.amax):
        assert float(extreme(after)) == pytest.approx(float(extreme(before)), rel=0.03)
    turned = (_phase(end, 4) - _phase(start, 4)) % (math.pi / 2.0)
    assert 10.9 < math.degrees(turned) / 5.0 < 11.8  # degrees a day
    assert _drift(model.mass, start, end) < 1e-15
    assert _drift(model.energy, start, end) < 1e-7
    assert _drift(model.potential_enstrophy, start, end) < 5e-6


def test_jet_is_galewskys():
    grid = gaussian_grid(128)
    begin = CASES["jet"](grid, PUBLISHED)
    assert begin.u.max() == pytest.approx(80.0, abs=0.6)  # between two rows
    assert grid.latitude[begin.u[:, 0].argmax()] == pytest.approx(45.0, abs=0.8)
    outside = (grid.latitude < np.rad2deg(np.pi / 7.0)) | (grid.latitude > 90.0 - np.rad2deg(np.pi / 7.0))
    assert not begin.u[outside].any()
    assert (begin.depth * grid.weights).mean() == pytest.approx(10_000.0, abs=3.0)
    latitude = np.deg2rad(grid.latitude)
    u, opposite = begin.u[:, 128], begin.depth[:, 128]  # opposite the bump
    force = u * (2.0 * ROTATION_RATE * np.sin(latitude) + u * np.tan(latitude) / EARTH_RADIUS)
    slope = GRAVITY * np.gradient(opposite, latitude) / EARTH_RADIUS
    np.testing.assert_allclose(slope, -force, atol=0.02 * np.abs(force).max())


@pytest.mark.slow
def test_jet_without_a_bump_is_balanced():
    """Galewsky et al. 2004: steady for days unless disturbed; here half a day at T63, truncation error apart."""
    model, start = _case("jet", 63, 10, varied=PUBLISHED)
    mean = start.clone()
    mean[2:] = 0.0  # the zonal mean alone
    later = _run(model, mean, 0.5, 10)
    before, after = model.fields(mean).u, model.fields(later).u
    assert float((after - before).abs().max()) < 0.6


@pytest.mark.slow
def test_jet_rolls_up_by_day_six():
    """Galewsky et al. 2004, figure 4: vortices of 1.2e-4 to 1.6e-4 s-1 around the hemisphere; here T63 with damping."""
    model, start = _case("jet", 63, 10, damping_hours=12.0)
    day4 = _run(model, start, 4, 10)
    day6 = _run(model, day4, 2, 10)
    first, middle, last = (model.fields(state) for state in (start, day4, day6))
    assert float(first.v.abs().max()) < 1.0
    assert float(middle.v.abs().max()) < 35.0
    assert 40.0 < float(last.v.abs().max()) < 70.0
    assert 1.2e-4 < float(last.vorticity.max()) < 1.7e-4
    assert -1.5e-4 < float(last.vorticity.min()) < -1.0e-4
    row = int(np.abs(model.grid.latitude - 45.0).argmin())
    waves = torch.fft.rfft(last.v[:, row, 0]).abs()
    assert int(waves.argmax()) in (4, 5, 6, 7)
    assert float(last.vorticity[:, model.grid.latitude < 0.0].abs().max()) < 1.5e-5  # the other hemisphere is quiet
    assert _drift(model.mass, start, day6) < 1e-15
    assert _drift(model.energy, start, day6) < 2e-5
    assert _drift(model.potential_enstrophy, start, day6) < 1e-2  # what the damping takes from the filaments


def test_mass_is_exact_and_energy_and_enstrophy_hardly_drift():
    model, start = _case("mountain", 21, 20)
    end = _run(model, start, 2, 20)
    assert float((end - start)[:, :, 0].abs().max()) > 0.1 * float(start[:, :, 0].abs().max())
    assert _drift(model.mass, start, end) < 1e-15
    assert _drift(model.energy, start, end) < 1e-6
    assert _drift(model.potential_enstrophy, start, end) < 1e-4


def test_flow_over_the_mountain_begins_as_published():
    begin = CASES["mountain"](gaussian_grid(64), PUBLISHED)
    assert 1900.0 < begin.bottom.max() <= 2000.0
    row, column = np.unravel_index(begin.bottom.argmax(), begin.bottom.shape)
    grid = gaussian_grid(64)
    assert grid.latitude[row] == pytest.approx(30.0, abs=3.0)
    assert grid.longitude[column] == pytest.approx(270.0, abs=3.0)
    assert (begin.depth + begin.bottom).max() == pytest.approx(5_960.0, abs=3.0)


def test_tendency_is_that_of_the_momentum_equations_on_the_grid():
    """du/dt, dv/dt and dh/dt from gradients, term by term, for any flow."""
    model, start = _case("mountain", 10, 30)
    state = model.disturbed(start, 10.0, torch.Generator().manual_seed(0))
    sphere, layer = model.sphere, model.fields(state)
    bernoulli = 0.5 * (layer.u**2 + layer.v**2) + GRAVITY * sphere.synthesis(state[:, :, 2] + model._bottom)
    slope_x, slope_y = sphere.gradient(sphere.analysis(bernoulli))
    absolute = layer.vorticity + 2.0 * ROTATION_RATE * torch.from_numpy(
        np.sin(np.deg2rad(model.grid.latitude))[None, :, None]
    )
    du, dv = absolute * layer.v - slope_x, -absolute * layer.u - slope_y
    vorticity, divergence = sphere.vorticity_divergence(du, dv)
    _, flow = sphere.vorticity_divergence(layer.depth * layer.u, layer.depth * layer.v)
    ours = model.tendency(state)
    for number, expected in enumerate((vorticity, divergence, -flow)):
        scale = float(expected.abs().max())
        torch.testing.assert_close(ours[:, :, number] / scale, expected / scale, rtol=0.0, atol=1e-10)


def test_time_step_is_of_fourth_order():
    start = _case("haurwitz", 15, 30)[1]
    ends = []
    for minutes in (30, 15, 7.5, 1.5):
        model, _ = _case("haurwitz", 15, minutes)
        ends.append(_run(model, start, 0.25, minutes)[:, :, 0])
    errors = [float((end - ends[-1]).abs().max()) for end in ends[:-1]]
    assert min(math.log2(a / b) for a, b in pairwise(errors)) > 3.6


def test_damping_takes_its_time_and_leaves_the_depth_alone():
    model, start = _case("rotation", 12, 60, damping_hours=6.0)
    state = torch.zeros_like(start)
    state[0, 0, 2] = start[0, 0, 2]
    state[0, 12, 0] = 1e-12
    end = _run(model, state, 0.25, 60)
    assert float(end[0, 12, 0]) == pytest.approx(1e-12 * math.exp(-1.0), rel=1e-3)
    assert float(end[0, 0, 2]) == float(state[0, 0, 2])


@pytest.mark.parametrize("name", CASES)
def test_varied_cases_differ_and_stay_near(name):
    grid = gaussian_grid(32)
    published = CASES[name](grid, PUBLISHED)
    for number in (-1.0, 1.0):
        other = CASES[name](grid, np.full(VARIED, number))
        assert 0.5 < np.abs(other.u - published.u).max() < 90.0
        assert np.abs(other.depth - published.depth).max() < 0.3 * published.depth.max()
        assert other.depth.min() > 500.0
        np.testing.assert_array_equal(other.bottom, published.bottom)


def test_integrals_are_those_of_the_fields():
    model, state = _case("mountain", 21, 20)
    layer, weights = model.fields(state), model.grid.weights.T[..., None]
    ground = model.static()["geopotential_at_surface"].T[..., None] / GRAVITY
    u, v, depth, vorticity = (field.numpy() for field in (layer.u, layer.v, layer.depth, layer.vorticity))
    energy = depth * (u**2 + v**2) / 2 + GRAVITY * depth * (depth / 2 + ground)
    coriolis = 2.0 * ROTATION_RATE * np.sin(np.deg2rad(model.grid.latitude))[None, :, None]
    enstrophy = (vorticity + coriolis) ** 2 / (2 * depth)
    assert float(model.mass(state)) == pytest.approx((depth * weights).mean(), rel=1e-12)
    assert float(model.energy(state)) == pytest.approx((energy * weights).mean(), rel=1e-12)
    assert float(model.potential_enstrophy(state)) == pytest.approx((enstrophy * weights).mean(), rel=1e-12)
