"""Spherical harmonics: closed forms, exact round trips, Parseval, derivatives, winds, gradients."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import pytest
import torch

from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid, lobatto_grid
from emulators.sphere import matrix_products, transform
from emulators.sphere.legendre import MOST_DEGREES, legendre, legendre_derivative, legendre_over_cosine, nodes
from emulators.sphere.transform import SphericalHarmonics

GRIDS = {
    "gaussian": gaussian_grid(16),
    "gaussian_odd": gaussian_grid(9, 15),
    "gaussian_wide": gaussian_grid(9, 30),
    "gaussian_shifted": LatLonGrid(gaussian_grid(12).latitude, 7.5 + 15.0 * np.arange(24)),
    "gaussian_blocks": gaussian_grid(46),
    "lobatto": lobatto_grid(17),
    "equiangular": equiangular_grid(16),
    "equiangular_prime": equiangular_grid(12, 23),
    "equiangular_with_poles": equiangular_grid(17, poles=True),
    "equiangular_with_poles_odd": equiangular_grid(10, 19, poles=True),
}
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())


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


def test_legendre_functions_hold_at_the_highest_degrees():
    """Addition theorem: the squares of a degree's functions, of both signs of order, add up to (2 l + 1) / (4 pi)."""
    mu, degrees = np.array([0.3, 0.8, 0.97, 0.999]), MOST_DEGREES
    total = 0.0
    for first in range(0, degrees, 400):
        rows = legendre(degrees, min(first + 400, degrees), mu, first)[:, [1949, 2099, -1]]
        total += 2 * (rows**2).sum(axis=0) - (rows[0] ** 2 if first == 0 else 0.0)
    expected = (2 * np.array([1949, 2099, degrees - 1])[:, None] + 1) / (4 * np.pi)
    np.testing.assert_allclose(total / expected, 1.0, atol=1e-10)
    with pytest.raises(ValueError, match=f"up to {degrees} degrees; got {degrees + 1}"):
        legendre(degrees + 1, 1, mu)


def test_slopes_of_legendre_functions_by_finite_differences():
    mu = np.linspace(-0.8, 0.8, 5)
    step = 1e-6
    difference = (legendre(8, 6, mu + step) - legendre(8, 6, mu - step)) / (2 * step)
    np.testing.assert_allclose(legendre_derivative(8, 6, mu), np.sqrt(1 - mu**2) * difference, atol=1e-8)


def test_functions_of_vector_harmonics_hold_at_the_poles_and_by_parts():
    mu = np.array([1.0, 0.6, -0.2, -1.0])
    over_cosine, derivative = legendre_over_cosine(8, 6, mu), legendre_derivative(8, 6, mu)
    cosine = np.sqrt(1 - mu[1:3] ** 2)
    np.testing.assert_allclose(over_cosine[1:, :, 1:3], legendre(8, 6, mu)[1:, :, 1:3] / cosine, atol=1e-13)
    near = np.sin(np.deg2rad([90.0 - 1e-5]))
    np.testing.assert_allclose(over_cosine[:, :, :1], legendre_over_cosine(8, 6, near), atol=1e-5)
    np.testing.assert_array_equal(legendre_over_cosine(8, 6, mu, 2), over_cosine[2:])
    np.testing.assert_array_equal(legendre_derivative(8, 6, mu, 2), derivative[2:])


@every_grid
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_round_trip_is_exact_for_all_that_the_grid_resolves(grid, dtype, tolerance):
    sht = SphericalHarmonics(grid, dtype=dtype)
    a = coefficients(sht).to(torch.complex128 if dtype == torch.float64 else torch.complex64)
    torch.testing.assert_close(sht.coefficients(sht.field(a)), a, rtol=0, atol=tolerance)


@every_grid
def test_analysis_of_a_sampled_harmonic_is_one_coefficient(grid):
    sht = SphericalHarmonics(grid, dtype=torch.float64)
    l, m = sht.degrees - 1, min(3, sht.orders - 1)
    row = legendre(sht.degrees, sht.orders, nodes(grid.kind, grid.shape[0])[0])[m, l]
    field = 2 * row[:, None] * np.cos(m * np.deg2rad(grid.longitude) - 0.3)
    a = sht.coefficients(torch.from_numpy(field))
    expected = torch.zeros_like(a)
    expected[l, m] = np.exp(-0.3j)
    torch.testing.assert_close(a, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("nlon", "orders"), [(8, 4), (12, 5), (15, 8), (23, 12), (30, 3), (96, 48), (4, 1), (3, 2)])
@pytest.mark.parametrize("start", [0.0, 0.7])
@pytest.mark.parametrize("direct", [True, False])
def test_sums_over_longitude_are_fourier_sums_and_their_transpose(nlon, orders, start, direct, monkeypatch):
    monkeypatch.setattr(matrix_products, "DIRECT_UP_TO", 10_000 if direct else 0)
    matrix_products.wave_tables.cache_clear()
    tables = tuple(map(torch.from_numpy, matrix_products.wave_tables(nlon, orders, start)))
    angle = np.outer(np.arange(orders), start + 2 * np.pi * np.arange(nlon) / nlon)
    matrix = torch.from_numpy(np.stack([np.cos(angle), -np.sin(angle)], axis=1).reshape(2 * orders, nlon))
    field = torch.randn(nlon, 2, 3, dtype=torch.float64)
    rows = matrix_products.waves(field, tables)
    torch.testing.assert_close(rows, torch.tensordot(matrix, field, 1), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        matrix_products.columns(rows, tables), torch.tensordot(matrix.T, rows, 1), rtol=0, atol=1e-11
    )
    matrix_products.wave_tables.cache_clear()


@pytest.mark.parametrize(("kind", "exact"), [("gaussian", 17), ("lobatto", 15), ("equiangular", 8)])
def test_quadrature_is_exact_to_its_degree(kind, exact):
    mu, weights = nodes(kind, 9)
    assert weights.sum() == pytest.approx(2.0, abs=1e-14)
    assert weights @ np.cos(np.arccos(mu)) == pytest.approx(0.0, abs=1e-15)
    for degree in range(2, exact + 1, 2):
        assert weights @ mu**degree == pytest.approx(2.0 / (degree + 1), abs=1e-14)
    assert abs(weights @ mu ** (exact + 1 + exact % 2) - 2.0 / (exact + 2 + exact % 2)) > 1e-6


def test_cosine_of_colatitude_integrates_to_zero_and_a_constant_to_its_value():
    for grid in GRIDS.values():
        sht = SphericalHarmonics(grid, dtype=torch.float64)
        field = np.sin(np.deg2rad(grid.latitude))[:, None] + np.zeros(grid.shape)
        means = sht.coefficients(torch.from_numpy(np.stack([field, np.full(grid.shape, 3.0)])))[:, 0, 0]
        expected = torch.tensor([0.0, 3.0 * np.sqrt(4 * np.pi)], dtype=torch.complex128)
        torch.testing.assert_close(means, expected, rtol=0, atol=1e-12)


def test_quadrature_alone_is_exact_to_half_the_degrees_of_equal_rows():
    grid = equiangular_grid(17, poles=True)
    noise = torch.randn(grid.shape, dtype=torch.float64)
    for degrees, equal in ((9, True), (16, False)):
        plain, exact = (SphericalHarmonics(grid, degrees, quadrature=q, dtype=torch.float64) for q in (True, False))
        error = (plain.coefficients(noise) - exact.coefficients(noise)).abs().max()
        assert error < 1e-12 if equal else error > 1e-3
    assert SphericalHarmonics(grid, 17, 16, quadrature=True).degrees == 17


def test_rotation_about_the_axis_turns_the_phase():
    sht = SphericalHarmonics(gaussian_grid(12), dtype=torch.float64)
    a = coefficients(sht)
    turned = sht.coefficients(sht.field(a).roll(5, dims=-1))
    phase = torch.from_numpy(np.exp(-1j * np.arange(12) * (2 * np.pi * 5 / 24)))
    torch.testing.assert_close(turned, a * phase, rtol=0, atol=1e-12)


def test_condon_shortley_phase_changes_odd_orders():
    grid = gaussian_grid(8)
    plain, phased = (SphericalHarmonics(grid, dtype=torch.float64, condon_shortley=c) for c in (False, True))
    field = torch.randn(grid.shape, dtype=torch.float64)
    sign = 1.0 - 2.0 * (torch.arange(8) % 2)
    torch.testing.assert_close(phased.coefficients(field), plain.coefficients(field) * sign)
    torch.testing.assert_close(phased.field(phased.coefficients(field)), plain.field(plain.coefficients(field)))


def test_tables_are_shared_and_keep_their_precision():
    grid = gaussian_grid(8)
    one, two = SphericalHarmonics(grid), SphericalHarmonics(gaussian_grid(8))
    assert one.synthesis_0 is two.synthesis_0
    assert copy.deepcopy(one).synthesis_0 is one.synthesis_0
    one.bfloat16()
    assert one.synthesis_0.dtype == torch.float32
    one.double()
    assert one.synthesis_0 is SphericalHarmonics(grid, dtype=torch.float64).synthesis_0
    assert two.synthesis_0.dtype == torch.float32
    assert not one.state_dict()
    with torch.device("meta"):
        large = SphericalHarmonics(equiangular_grid(721, 1440, poles=True))
    assert large.synthesis_0.is_meta


def test_tables_outlast_their_modules_up_to_a_limit(monkeypatch):
    grid, other = gaussian_grid(6, 17), gaussian_grid(6, 19)
    table = weakref.ref(SphericalHarmonics(grid)._shared["synthesis_0"])
    assert SphericalHarmonics(grid)._shared["synthesis_0"] is table()
    monkeypatch.setattr(transform, "CACHED_BYTES", 0)
    used = SphericalHarmonics(other)
    gc.collect()
    assert table() is None
    assert SphericalHarmonics(other).synthesis_0 is used.synthesis_0


def test_tables_made_in_a_forecast_serve_a_training():
    grid = gaussian_grid(7, 15)
    with torch.inference_mode():
        made = SphericalHarmonics(grid)
    assert not made.synthesis_0.is_inference()
    field = torch.randn(15, 7, 2, requires_grad=True)
    SphericalHarmonics(grid).analysis(field).square().sum().backward()
    assert field.grad.isfinite().all()


def test_transforms_run_in_float32_under_autocast():
    sht = SphericalHarmonics(gaussian_grid(8))
    field = torch.randn(16, 8, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = sht.synthesis(sht.analysis(field.bfloat16()))
        found.sum().backward()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, sht.synthesis(sht.analysis(field.bfloat16().float())))


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


@pytest.mark.parametrize("grid", [gaussian_grid(4), equiangular_grid(4, 9)], ids=["gaussian", "equiangular"])
def test_gradients_of_the_transform(grid):
    sht = SphericalHarmonics(grid, dtype=torch.float64)
    field = torch.randn(grid.shape[1], 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: sht.synthesis(sht.analysis(f).square()), field)
    assert torch.autograd.gradgradcheck(lambda f: sht.synthesis(sht.analysis(f).square()), field)


@pytest.mark.slow
@pytest.mark.parametrize("grid", [gaussian_grid(8), gaussian_grid(46)], ids=["one_block", "blocks"])
def test_transforms_compile_in_one_graph(grid):
    sht = SphericalHarmonics(grid)

    def loss(field):
        return sht.synthesis(sht.analysis(field).square()).square().sum()

    field = torch.randn(*grid.shape[::-1], 2, requires_grad=True)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(field), field), torch.autograd.grad(loss(field), field))


def test_other_shapes_are_refused():
    sht = SphericalHarmonics(gaussian_grid(8), 6, 4)
    with pytest.raises(ValueError, match=r"\(..., degrees, orders\) with 6 x 4 at the end; got shape \(3, 4, 6\)"):
        sht.field(torch.zeros(3, 4, 6, dtype=torch.complex64))
    for shape in ((16, 8), (8, 15), (16,)):
        with pytest.raises(ValueError, match=r"\(..., lat, lon\) with 8 x 16 at the end; got"):
            sht.coefficients(torch.zeros(shape))


def test_unsuitable_grids_are_refused():
    with pytest.raises(ValueError, match="whole sphere"):
        SphericalHarmonics(LatLonGrid(np.linspace(60, 30, 5), np.linspace(0, 40, 9)))
    with pytest.raises(ValueError, match="resolves 8 degrees"):
        SphericalHarmonics(gaussian_grid(8), degrees=9)
    with pytest.raises(ValueError, match="no more orders than degrees"):
        SphericalHarmonics(gaussian_grid(8), degrees=4, orders=5)
    with pytest.raises(ValueError, match="at least 2 rows; got 1"):
        lobatto_grid(1, 8)
    for degrees, orders in ((0, None), (-1, None), (4, 0)):
        with pytest.raises(ValueError, match="at least 1 of each"):
            SphericalHarmonics(gaussian_grid(8), degrees, orders)
    with pytest.raises(ValueError, match="equal steps"):
        SphericalHarmonics(LatLonGrid(gaussian_grid(8).latitude, np.delete(np.arange(0, 360, 0.5), 7)))
