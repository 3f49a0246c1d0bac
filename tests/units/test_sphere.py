"""Spherical harmonics: closed forms, exact round trips, Parseval, derivatives, winds, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emulators.constants import EARTH_RADIUS
from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid
from emulators.sphere.calculus import SphericalCalculus
from emulators.sphere.legendre import legendre, legendre_slope
from emulators.sphere.transform import SphericalHarmonics

GRIDS = {
    "gaussian": gaussian_grid(16),
    "gaussian_odd": gaussian_grid(9, 20),
    "equiangular": equiangular_grid(16),
    "equiangular_with_poles": equiangular_grid(17, poles=True),
}


def coefficients(sht: SphericalHarmonics, seed: int = 0) -> torch.Tensor:
    """Random coefficients of two real fields, (2, degrees, orders)."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(2, sht.degrees, sht.orders, generator=generator, dtype=torch.complex128)
    a[..., 0] = a[..., 0].real.to(a.dtype)
    return a * torch.tril(torch.ones(sht.degrees, sht.orders))


def native(field: torch.Tensor) -> torch.Tensor:
    """(n, lat, lon) -> (lon, lat, n)"""
    return field.permute(2, 1, 0).contiguous()


def test_legendre_functions_up_to_degree_3():
    mu = np.linspace(-0.9, 0.9, 7)
    c = np.sqrt(1 - mu**2)
    pi = np.pi
    expected = {
        (0, 0): np.sqrt(1 / (4 * pi)) + 0 * mu,
        (1, 0): np.sqrt(3 / (4 * pi)) * mu,
        (1, 1): np.sqrt(3 / (8 * pi)) * c,
        (2, 0): np.sqrt(5 / (16 * pi)) * (3 * mu**2 - 1),
        (2, 1): np.sqrt(15 / (8 * pi)) * mu * c,
        (2, 2): np.sqrt(15 / (32 * pi)) * c**2,
        (3, 0): np.sqrt(7 / (16 * pi)) * (5 * mu**3 - 3 * mu),
        (3, 1): np.sqrt(21 / (64 * pi)) * (5 * mu**2 - 1) * c,
        (3, 2): np.sqrt(105 / (32 * pi)) * mu * c**2,
        (3, 3): np.sqrt(35 / (64 * pi)) * c**3,
    }
    table = legendre(4, 4, mu)
    for (l, m), values in expected.items():
        np.testing.assert_allclose(table[m, l], values, atol=1e-14)
    assert (table[1, 0] == 0).all()


def test_legendre_functions_are_orthonormal_at_high_degree():
    mu, weights = np.polynomial.legendre.leggauss(130)
    table = legendre(130, 130, mu)
    for m in (0, 1, 57, 128):
        gram = 2 * np.pi * (table[m, m:] * weights) @ table[m, m:].T
        np.testing.assert_allclose(gram, np.eye(130 - m), atol=1e-12)


def test_legendre_slope_is_the_derivative():
    mu = np.linspace(-0.8, 0.8, 5)
    step = 1e-6
    difference = (legendre(8, 6, mu + step) - legendre(8, 6, mu - step)) / (2 * step)
    np.testing.assert_allclose(legendre_slope(8, 6, mu), (1 - mu**2) * difference, atol=1e-8)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_round_trip_is_exact_for_all_that_the_grid_resolves(grid, dtype, tolerance):
    sht = SphericalHarmonics(grid, dtype=dtype)
    a = coefficients(sht).to(torch.complex128 if dtype == torch.float64 else torch.complex64)
    torch.testing.assert_close(sht.coefficients(sht.field(a)), a, rtol=0, atol=tolerance)


def test_a_harmonic_has_one_coefficient():
    grid = gaussian_grid(8)
    sht = SphericalHarmonics(grid, dtype=torch.float64)
    mu, longitude = np.sin(np.deg2rad(grid.latitude))[:, None], np.deg2rad(grid.longitude)
    field = np.sqrt(15 / (8 * np.pi)) * mu * np.sqrt(1 - mu**2) * 2 * np.cos(longitude - 0.3)
    a = sht.coefficients(torch.from_numpy(field))
    expected = torch.zeros_like(a)
    expected[2, 1] = np.exp(-0.3j)
    torch.testing.assert_close(a, expected, rtol=0, atol=1e-14)


def test_parseval():
    grid = gaussian_grid(16)
    sht = SphericalHarmonics(grid, degrees=12, dtype=torch.float64)
    a = coefficients(sht)
    mean_square = (sht.field(a).square() * torch.from_numpy(grid.weights)).mean((-2, -1))
    power = a[..., 0].abs().square().sum(-1) + 2 * a[..., 1:].abs().square().sum((-2, -1))
    torch.testing.assert_close(4 * np.pi * mean_square, power)


def test_native_layout_agrees_with_the_customary_one():
    sht = SphericalHarmonics(gaussian_grid(8), degrees=6, orders=5, dtype=torch.float64)
    a = coefficients(sht)
    field = sht.field(a)
    rows = sht.analysis(native(field))
    torch.testing.assert_close(torch.complex(rows[0::2], rows[1::2]).permute(2, 1, 0), a, rtol=0, atol=1e-12)
    torch.testing.assert_close(sht.synthesis(rows), native(field))


def test_gradients_of_the_transform():
    sht = SphericalHarmonics(gaussian_grid(4), dtype=torch.float64)
    field = torch.randn(8, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: sht.synthesis(sht.analysis(f).square()), field)


def test_unsuitable_grids_are_refused():
    with pytest.raises(ValueError, match="whole sphere"):
        SphericalHarmonics(LatLonGrid(np.linspace(60, 30, 5), np.linspace(0, 40, 9)))
    with pytest.raises(ValueError, match="resolves 8 degrees"):
        SphericalHarmonics(gaussian_grid(8), degrees=9)


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
