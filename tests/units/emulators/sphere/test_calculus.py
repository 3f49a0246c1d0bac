"""Calculus on the sphere: closed forms, winds and back on every grid, vector harmonics, diffusion, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emulators.constants import EARTH_RADIUS, ROTATION_RATE
from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid, lobatto_grid
from emulators.sphere.calculus import SphericalCalculus
from emulators.sphere.spectra import power

GRIDS = {
    "gaussian": gaussian_grid(16),
    "gaussian_odd": gaussian_grid(9, 15),
    "gaussian_blocks": gaussian_grid(46),
    "lobatto": lobatto_grid(17),
    "equiangular": equiangular_grid(16),
    "equiangular_odd": equiangular_grid(15, 31),
    "equiangular_with_poles": equiangular_grid(17, poles=True),
    "equiangular_with_poles_odd": equiangular_grid(10, 19, poles=True),
}


@pytest.fixture(params=GRIDS.values(), ids=GRIDS.keys())
def anywhere(request) -> SphericalCalculus:
    """All degrees that each grid resolves, on a planet of radius 2 m."""
    return SphericalCalculus(request.param, dtype=torch.float64, radius=2.0)


def coefficients(calculus: SphericalCalculus, count: int, seed: int) -> torch.Tensor:
    """Random coefficients of real fields without mean, (2 * orders, degrees, count)."""
    rows, degrees = 2 * calculus.orders, calculus.degrees
    a = torch.randn(rows, degrees, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a *= (torch.arange(degrees) >= torch.arange(rows)[:, None] // 2)[..., None]
    a[1] = 0.0
    a[:, 0] = 0.0
    return a


def native(field: torch.Tensor) -> torch.Tensor:
    """(n, lat, lon) -> (lon, lat, n)"""
    return field.permute(2, 1, 0).contiguous()


def test_winds_give_back_vorticity_and_divergence_of_all_that_the_grid_resolves(anywhere):
    a, b = coefficients(anywhere, 3, 0), coefficients(anywhere, 3, 1)
    vorticity, divergence = anywhere.vorticity_divergence(*anywhere.winds(a, b))
    torch.testing.assert_close(vorticity, a, rtol=0, atol=1e-11)
    torch.testing.assert_close(divergence, b, rtol=0, atol=1e-11)


def test_vector_harmonics_come_back_and_are_orthonormal(anywhere):
    s, t = coefficients(anywhere, 1, 0), coefficients(anywhere, 1, 1)
    u, v = anywhere.vector_synthesis(s, t)
    for found, expected in zip(anywhere.vector_analysis(u, v), (s, t), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    if anywhere.grid.kind == "gaussian":
        weights = torch.from_numpy(anywhere.grid.weights.T)[..., None]
        energy = 4 * np.pi * (weights * (u * u + v * v)).mean()
        torch.testing.assert_close(energy, (power(s) + power(t)).sum())


def test_divergence_of_a_gradient_is_the_laplacian_and_its_curl_nothing(anywhere):
    a = coefficients(anywhere, 2, 0)
    vorticity, divergence = anywhere.vorticity_divergence(*anywhere.gradient(a))
    torch.testing.assert_close(divergence, a * anywhere.laplacian, rtol=0, atol=1e-9)
    assert vorticity.abs().max() < 1e-9
    torch.testing.assert_close(a * anywhere.laplacian * anywhere.inverse_laplacian, a)


def test_flow_over_a_pole_is_one_flow():
    grid = equiangular_grid(9, 16, poles=True)
    calculus = SphericalCalculus(grid, dtype=torch.float64)
    u, v = calculus.winds(coefficients(calculus, 1, 0), coefficients(calculus, 1, 1))
    east = torch.from_numpy(np.deg2rad(grid.longitude))
    for row, sign in ((0, 1.0), (-1, -1.0)):
        x = -u[:, row, 0] * east.sin() - sign * v[:, row, 0] * east.cos()
        y = u[:, row, 0] * east.cos() - sign * v[:, row, 0] * east.sin()
        for part in (x, y):
            torch.testing.assert_close(part, part[:1].expand(16), rtol=1e-9, atol=1e-7)


def test_rossby_haurwitz_wave_of_degree_5_turns_without_a_change_of_shape(calculus):
    """Haurwitz 1940: psi = sin(phi) cos(phi)^4 cos(4 lambda) is carried by its own flow and the rotation alone."""
    grid = calculus.grid
    phi, lam = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)
    psi = 1e7 * np.sin(phi) * np.cos(phi) ** 4 * np.cos(4 * lam)
    a = calculus.analysis(native(torch.from_numpy(psi)[None]))
    vorticity = a * calculus.laplacian
    torch.testing.assert_close(vorticity, a * (-30 / EARTH_RADIUS**2), rtol=1e-12, atol=1e-14)
    u, v = calculus.winds(vorticity, torch.zeros_like(a))
    absolute = calculus.synthesis(vorticity) + 2 * ROTATION_RATE * torch.from_numpy(np.sin(phi))
    _, tendency = calculus.vorticity_divergence(-u * absolute, -v * absolute)
    expected = -2 * ROTATION_RATE / EARTH_RADIUS**2 * calculus.times_im(a)  # beta v: it turns westward
    torch.testing.assert_close(tendency, expected, rtol=0, atol=1e-22)


@pytest.mark.parametrize("grid", [gaussian_grid(4), gaussian_grid(46), equiangular_grid(8)])
def test_float64_is_taken_by_float32_tables(grid):
    single, double = (SphericalCalculus(grid, dtype=dtype) for dtype in (torch.float32, torch.float64))
    a = coefficients(double, 2, 0)
    for found, expected in zip(
        (*single.winds(a, a), *single.gradient(a)), (*double.winds(a, a), *double.gradient(a)), strict=True
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("grid", [gaussian_grid(4), equiangular_grid(4, 9)], ids=["gaussian", "equiangular"])
def test_gradients_of_winds_and_curls(grid):
    calculus = SphericalCalculus(grid, dtype=torch.float64, radius=1.0)
    field = torch.randn(grid.shape[1], 4, 2, dtype=torch.float64, requires_grad=True)

    def there_and_back(f):
        u, v = calculus.winds(*calculus.vorticity_divergence(f, f.square()))
        return u * v

    assert torch.autograd.gradcheck(there_and_back, field)


def test_limited_areas_are_refused():
    with pytest.raises(ValueError, match="whole sphere"):
        SphericalCalculus(LatLonGrid(np.linspace(60, 30, 5), np.linspace(0, 40, 9)))


@pytest.fixture
def calculus() -> SphericalCalculus:
    return SphericalCalculus(gaussian_grid(16), degrees=11, dtype=torch.float64)


def test_gradient_of_a_harmonic(calculus):
    grid = calculus.grid
    phi, lam = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)
    field = torch.from_numpy(np.sin(phi) * np.cos(phi) * np.cos(lam))[None]
    east, north = calculus.gradient(calculus.analysis(native(field)))
    expected_east = torch.from_numpy(-np.sin(phi) * np.sin(lam) / EARTH_RADIUS)[None]
    expected_north = torch.from_numpy(np.cos(2 * phi) * np.cos(lam) / EARTH_RADIUS)[None]
    torch.testing.assert_close(east, native(expected_east), rtol=0, atol=1e-18)
    torch.testing.assert_close(north, native(expected_north), rtol=0, atol=1e-18)


def test_solid_body_rotation(calculus):
    phi = np.deg2rad(calculus.grid.latitude)[:, None] + np.zeros(calculus.grid.shape[1])
    u = native(torch.from_numpy(30.0 * np.cos(phi))[None])
    vorticity, divergence = calculus.vorticity_divergence(u, torch.zeros_like(u))
    expected = native(torch.from_numpy(2 * 30.0 / EARTH_RADIUS * np.sin(phi))[None])
    torch.testing.assert_close(calculus.synthesis(vorticity), expected, rtol=0, atol=1e-17)
    assert calculus.synthesis(divergence).abs().max() < 1e-17


def test_winds_round_trip(calculus):
    n = 2 * calculus.orders
    generator = torch.Generator().manual_seed(0)
    a, b = (calculus.analysis(torch.randn(32, 16, 3, generator=generator, dtype=torch.float64)) for _ in range(2))
    for coefficient in (a, b):
        coefficient[:, 0] = 0
    u, v = calculus.winds(a, b)
    vorticity, divergence = calculus.vorticity_divergence(u, v)
    assert vorticity.shape == (n, calculus.degrees, 3)
    torch.testing.assert_close(vorticity, a, rtol=0, atol=1e-12)
    torch.testing.assert_close(divergence, b, rtol=0, atol=1e-12)


def test_curl_of_a_gradient_vanishes_and_its_divergence_is_the_laplacian(calculus):
    field = torch.randn(32, 16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = calculus.analysis(field)
    vorticity, divergence = calculus.vorticity_divergence(*calculus.gradient(a))
    assert vorticity.abs().max() < 1e-24
    torch.testing.assert_close(divergence, a * calculus.laplacian, rtol=0, atol=1e-24)
