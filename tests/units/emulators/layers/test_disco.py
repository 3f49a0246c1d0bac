"""Local convolutions against sums point by point and closed forms; bases, norms, shifts, gradients, interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid, lobatto_grid
from emulators.layers.disco import DiscoConvolution, Interpolation
from emulators.sphere.filter_bases import NORMS, FilterBasis, sparse_filter
from emulators.sphere.legendre import nodes
from emulators.sphere.transform import SphericalHarmonics

GRIDS = {
    "same": (gaussian_grid(9, 18), gaussian_grid(9, 18)),
    "coarser": (equiangular_grid(13, 24, poles=True), gaussian_grid(6, 12)),
    "coarser_odd": (equiangular_grid(12, 27), lobatto_grid(7, 9)),
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def key(grid: LatLonGrid) -> tuple[str, int, int]:
    return grid.kind, *grid.shape


def disk(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return np.sqrt(random.random(count)), 2.0 * np.pi * random.random(count)


@pytest.mark.parametrize(
    ("kind", "shape", "size"),
    [
        ("piecewise_linear", (3,), 2),
        ("piecewise_linear", (4,), 2),
        ("piecewise_linear", (5, 4), 9),
        ("piecewise_linear", (4, 3), 6),
        ("morlet", (3, 2), 6),
        ("morlet", (3,), 9),
        ("zernike", (4,), 10),
    ],
)
def test_number_of_functions(kind, shape, size):
    basis = FilterBasis(kind, shape)
    values, support = basis.values(*disk())
    assert basis.size == size
    assert values.shape == support.shape == (size, 400)
    assert not values[~support].any()


@pytest.mark.parametrize("shape", [(3,), (5,), (4,), (3, 4), (5, 3), (4, 3), (2, 5)])
def test_hats_add_up_to_one_within_the_last_ring(shape):
    r, phi = disk()
    values, _ = FilterBasis("piecewise_linear", shape).values(r, phi)
    inside = r <= 1.0 - 2.0 / (shape[0] + 1)
    if shape[0] % 2 == 0 and len(shape) == 1:
        inside &= r >= 1.0 / (shape[0] + 1)  # isotropic hats of an even number leave a dent at the centre
    np.testing.assert_allclose(values.sum(0)[inside], 1.0, atol=1e-12)
    assert (values.sum(0) <= 1.0 + 1e-12).all()


def test_morlet_waves_in_a_window():
    r, phi = disk()
    x, y, window = r * np.sin(phi), r * np.cos(phi), np.cos(np.pi * r / 2) ** 2
    values, _ = FilterBasis("morlet", (2, 4)).values(r, phi)
    along = [np.ones_like(x), np.sin(np.pi * x), np.cos(np.pi * x), np.sin(2 * np.pi * x)]
    expected = [window * a * b for b in (np.ones_like(y), np.sin(np.pi * y)) for a in along]
    np.testing.assert_allclose(values, expected, atol=1e-12)


def test_zernike_polynomials_are_orthogonal():
    radius, weights = np.polynomial.legendre.leggauss(12)
    r, phi = (a.ravel() for a in np.meshgrid((radius + 1) / 2, np.arange(16) * np.pi / 8, indexing="ij"))
    area = np.repeat(weights / 2, 16) * r * np.pi / 8
    values, _ = FilterBasis("zernike", (4,)).values(r, phi)
    product = (values * area) @ values.T
    n = np.repeat(np.arange(4), np.arange(1, 5))
    m = np.concatenate([np.arange(-k, k + 1, 2) for k in range(4)])
    np.testing.assert_allclose(product, np.diag(np.pi * (1 + (m == 0)) / (2 * n + 2)), atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("grids", GRIDS)
def test_convolution_is_the_sum_over_points(grids, norm):
    """Distances and directions by vectors here, and the sum by a table of all pairs of points."""
    source, goal = GRIDS[grids]
    basis, cutoff = FilterBasis("morlet", (2, 3), norm), 0.7
    layer = DiscoConvolution(2, 3, source, goal, basis, cutoff, bias=True).double()
    with torch.no_grad():
        layer.bias.normal_()
    table = dense(source, goal, basis, cutoff)
    x = noise(source.shape[1], source.shape[0], 2, 2)
    expected = torch.einsum("kpti,ibc,kco->ptbo", torch.from_numpy(table), x.flatten(0, 1), layer.weight) + layer.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)


def dense(source: LatLonGrid, goal: LatLonGrid, basis: FilterBasis, cutoff: float) -> np.ndarray:
    """Values between all points, (function, column, row, columns x rows of the source)."""
    ends = []
    for grid in (source, goal):
        mu = nodes(grid.kind, grid.shape[0])[0]
        longitude = 2.0 * np.pi * np.arange(grid.shape[1])[:, None] / grid.shape[1]
        radius = np.sqrt(1.0 - mu**2)
        up = np.broadcast_to(mu, (grid.shape[1], grid.shape[0]))
        ends.append(np.stack([np.cos(longitude) * radius, np.sin(longitude) * radius, up], -1).reshape(-1, 3))
    points, centres = ends
    mu, weights = nodes(source.kind, source.shape[0])
    area = np.tile(weights, source.shape[1]) / (2.0 * source.shape[1])
    angle = 2.0 * np.pi * np.arange(goal.shape[1]).repeat(goal.shape[0]) / goal.shape[1]
    east = np.stack([-np.sin(angle), np.cos(angle), 0 * angle], -1)
    south = np.cross(east, centres)
    reach = cutoff * 1.001
    r = np.arccos(np.clip(centres @ points.T, -1, 1)) / reach
    phi = np.mod(np.arctan2(east @ points.T, south @ points.T), 2 * np.pi)
    inside = r <= 1.0
    values = np.zeros((basis.size, *r.shape))
    values[:, inside] = basis.values(r[inside], phi[inside])[0]
    if basis.norm != "none":
        summed = (inside if basis.norm == "support" else np.abs(values)) * area
        sums = np.broadcast_to(summed.sum(-1), values.shape[:2])
        sums = sums.mean(1, keepdims=True) if basis.norm == "mean" else sums
        values = values * area / sums[..., None]
    return values.reshape(basis.size, goal.shape[1], goal.shape[0], -1)


def test_sparse_filter_holds_few_values():
    grid = gaussian_grid(32)
    entries = sparse_filter(FilterBasis("piecewise_linear", (3,)), key(grid), key(grid), 0.2)
    assert len(entries.value) < 0.05 * 2 * 32 * grid.shape[0] * grid.shape[1]
    assert (np.diff(entries.row_out) >= 0).all()


def test_constants_are_kept_by_hats_of_sum_one():
    grid = equiangular_grid(16)
    layer = DiscoConvolution(1, 1, grid, grid, FilterBasis("piecewise_linear", (1,), "individual"), 0.5).double()
    with torch.no_grad():
        layer.weight.fill_(3.0)
    ones = torch.ones(32, 16, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(layer(ones), 3.0 * ones, rtol=0, atol=1e-6)


def test_isotropic_filters_scale_spherical_harmonics():
    """Funk and Hecke: a convolution with a zonal filter multiplies all orders of a degree by one number."""
    grid = gaussian_grid(48)
    layer = DiscoConvolution(1, 1, grid, grid, FilterBasis("piecewise_linear", (3,), "mean"), 0.5).double()
    with torch.no_grad():
        layer.weight.fill_(1.0)
    harmonics = SphericalHarmonics(grid, 12, 12, torch.float64)
    coefficients = torch.zeros(24, 12, 4, dtype=torch.float64)
    for number, row in enumerate((0, 2, 5, 10)):
        coefficients[row, 6, number] = 1.0
    fields = harmonics.synthesis(coefficients).unsqueeze(3)
    area = torch.from_numpy(nodes("gaussian", 48)[1])[:, None, None] / 192.0
    filtered = layer(fields)
    factors = (filtered * fields * area).sum((0, 1, 3)) / (fields.square() * area).sum((0, 1, 3))
    assert factors.abs().min() > 1e-3
    torch.testing.assert_close(factors, factors[:1].expand(4), rtol=5e-3, atol=0)
    torch.testing.assert_close(filtered, factors[0] * fields, rtol=0, atol=1e-2 * float(factors[0].abs()))


def test_shifts_along_longitude_commute():
    source, goal = GRIDS["coarser"]
    layer = DiscoConvolution(2, 3, source, goal, FilterBasis("piecewise_linear", (3, 4)), 0.6).double()
    x = noise(source.shape[1], source.shape[0], 2, 2)
    torch.testing.assert_close(layer(x.roll(6, 0)), layer(x).roll(3, 0), rtol=0, atol=1e-12)


def test_gradients():
    source, goal = equiangular_grid(6, 8), gaussian_grid(3, 4)
    layer = DiscoConvolution(2, 2, source, goal, FilterBasis("zernike", (2,)), 0.9, bias=True).double()
    x = noise(8, 6, 1, 2).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
    weight = layer.weight.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: torch.func.functional_call(layer, {"weight": w}, x.detach()), (weight,))


def test_half_precision_around_it_changes_nothing():
    source, goal = GRIDS["same"]
    layer = DiscoConvolution(2, 3, source, goal, FilterBasis("morlet", (3,)), 0.6)
    x = noise(18, 9, 1, 2).float()
    with torch.autocast("cpu", torch.bfloat16):
        under = layer(x)
    torch.testing.assert_close(under, layer(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"basis": ("fourier", (3,))}, "Expected a basis of piecewise_linear, morlet, zernike"),
        ({"basis": ("morlet", (3,), "l2")}, "a norm of individual, mean, support, none"),
        ({"basis": ("morlet", (3, 0))}, "one or two positive numbers"),
        ({"basis": ("morlet", (3, 2, 1))}, "one or two positive numbers"),
        ({"goal": gaussian_grid(9, 12)}, "a multiple of the goal's"),
        ({"cutoff": 0.0}, "a filter of positive radius"),
        ({"source": LatLonGrid(np.linspace(70.0, 30.0, 9), np.linspace(-30.0, 30.0, 13))}, "limited_area"),
    ],
)
def test_refusals(change, message):
    options = {"source": gaussian_grid(9, 18), "goal": gaussian_grid(9, 18), "basis": ("morlet", (3,)), "cutoff": 0.5}
    options |= change
    with pytest.raises(ValueError, match=message):
        DiscoConvolution(2, 2, options["source"], options["goal"], FilterBasis(*options["basis"]), options["cutoff"])


@pytest.mark.parametrize("goal", [equiangular_grid(17, 32, poles=True), equiangular_grid(16, 32), gaussian_grid(8, 32)])
def test_interpolation_is_linear_between_points(goal):
    source = gaussian_grid(8, 16)
    inner, outer = (np.arccos(np.clip(nodes(g.kind, g.shape[0])[0], -1, 1)) for g in (source, goal))
    longitude = np.cos(np.arange(16) * np.pi / 8)
    field = 2.0 + inner + 0.3 * longitude[:, None]
    doubled = np.stack([longitude, 0.5 * (longitude + np.roll(longitude, -1))], 1).ravel()
    got = Interpolation(source, goal)(torch.from_numpy(field).float()[:, :, None, None])[:, :, 0, 0].numpy()
    within = (outer >= inner[0]) & (outer <= inner[-1])
    np.testing.assert_allclose(got[:, within], (2.0 + outer + 0.3 * doubled[:, None])[:, within], atol=1e-5)
    beyond = outer < inner[0]  # between the first row and its mean at the pole
    share = outer[beyond] / inner[0]
    expected = 2.0 + inner[0] + 0.3 * doubled[:, None] * share
    np.testing.assert_allclose(got[:, beyond], expected, atol=1e-5)
