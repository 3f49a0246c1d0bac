"""Borders, norms and the convolution by degree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid
from emulators.layers.convolution import Convolution, Edges
from emulators.layers.field_norms import field_norm
from emulators.layers.spectral_layers import DegreeConvolution
from emulators.sphere.legendre import legendre
from emulators.sphere.transform import SphericalHarmonics

AREA = LatLonGrid(np.linspace(60.0, 30.0, 5), np.linspace(0.0, 40.0, 6))


@pytest.mark.parametrize(
    "grid", [gaussian_grid(6, 8), equiangular_grid(6, 8), equiangular_grid(7, 8, poles=True)], ids=str
)
def test_crossing_the_pole_goes_on_along_the_great_circle(grid):
    """A smooth function on the sphere, padded, is the function at the points beyond the pole."""
    phi, lam = np.deg2rad(grid.latitude), np.deg2rad(grid.longitude)
    step = np.deg2rad(grid.longitude[1])
    beyond = 2
    first = int(grid.kind == "equiangular_with_poles")
    north = np.pi - phi[first : first + beyond][::-1]
    south = -np.pi - phi[len(phi) - first - beyond : len(phi) - first][::-1]
    wide_phi = np.concatenate([north, phi, south])[:, None]
    wide_lam = np.concatenate([lam[:1] - step, lam, lam[-1:] + step])

    def function(p, l):
        return np.cos(p) * np.cos(l - 0.4) + 0.3 * np.sin(p)

    x = torch.from_numpy(function(phi[:, None], lam))[None, None]
    padded = Edges(grid).pad(x, beyond, beyond, 1, 1)
    np.testing.assert_allclose(padded[0, 0].numpy(), function(wide_phi, wide_lam), atol=1e-12)


@pytest.mark.parametrize("kind", ["replicate", "zeros"])
def test_the_rim_of_an_area(kind):
    x = torch.arange(30.0).view(1, 1, 5, 6)
    padded = Edges(AREA, kind).pad(x, 2, 1, 1, 2)
    assert padded.shape == (1, 1, 8, 9)
    torch.testing.assert_close(padded[..., 2:7, 1:7], x)
    assert padded[0, 0, 0, 0] == (x[0, 0, 0, 0] if kind == "replicate" else 0)
    assert padded[0, 0, -1, -1] == (x[0, 0, -1, -1] if kind == "replicate" else 0)
    assert padded[0, 0, 3, -1] == (x[0, 0, 1, -1] if kind == "replicate" else 0)


def test_borders_may_go_more_than_once_around():
    """What lies a whole turn further is the same again, through the poles as along a circle of latitude."""
    for grid in (gaussian_grid(3, 4), equiangular_grid(4, 4, poles=True)):
        rows, columns = grid.shape
        turn = 2 * rows - (2 if Edges(grid).pole_rows else 0)
        x = torch.arange(float(rows * columns)).reshape(1, 1, rows, columns)
        padded = Edges(grid).pad(x, turn, turn, columns + 1, 2 * columns)
        inner = padded[..., columns + 1 : 2 * columns + 1]
        assert torch.equal(inner[..., turn : turn + rows, :], x)
        assert torch.equal(inner[..., :rows, :], x)
        assert torch.equal(inner[..., -rows:, :], x)
        assert torch.equal(padded[..., :-columns], padded[..., columns:])


def test_longitudes_close_whatever_lies_beyond_the_poles():
    x = torch.randn(1, 2, 6, 8)
    for kind in ("cross", "replicate", "zeros"):
        padded = Edges(gaussian_grid(6, 8), kind).pad(x, 0, 0, 1, 2)
        assert torch.equal(padded[..., 0], x[..., -1])
        assert torch.equal(padded[..., -2:], x[..., :2])


def test_edges_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="edges=replicate"):
        Edges(AREA, "cross")
    with pytest.raises(ValueError, match="even number of longitudes"):
        Edges(gaussian_grid(6, 9), "cross")
    with pytest.raises(ValueError, match="cross, credit, replicate, reflect, zeros"):
        Edges(AREA, "mirror")
    with pytest.raises(ValueError, match="odd kernel"):
        Convolution(1, 1, 2, Edges(AREA))


@pytest.mark.parametrize("kind", ["instance", "instance_area", "layer", "none"])
def test_norms(kind):
    grid = gaussian_grid(8)
    x = 3.0 + 2.0 * torch.randn(16, 8, 2, 5, generator=torch.Generator().manual_seed(0))
    y = field_norm(kind, 5, grid)(x)
    assert y.shape == x.shape
    area = torch.from_numpy(grid.weights.T / grid.weights.size).float()[:, :, None, None]
    if kind == "instance":
        expected = (x - x.mean((0, 1))) / x.std((0, 1), unbiased=False)
    elif kind == "instance_area":
        mean = (x * area).sum((0, 1))
        expected = (x - mean) / ((x - mean).square() * area).sum((0, 1)).sqrt()
    elif kind == "layer":
        expected = (x - x.mean(-1, keepdim=True)) / x.std(-1, unbiased=False, keepdim=True)
    else:
        expected = x
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_means_over_area_are_taken_in_single_precision():
    grid = gaussian_grid(32)
    x = 3.0 + 0.1 * torch.randn(64, 32, 2, 5, generator=torch.Generator().manual_seed(0))
    half, norm = x.bfloat16(), field_norm("instance_area", 5, grid)
    torch.testing.assert_close(norm(half).float(), norm(half.float()), rtol=1e-2, atol=1e-2)


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="instance_area"):
        field_norm("batch", 5, gaussian_grid(8))


def test_convolution_by_degree_is_the_complex_product():
    torch.manual_seed(0)
    degrees, orders, batch, channels = 5, 4, 2, 3
    layer = DegreeConvolution(degrees, channels).double()
    x = torch.randn(2 * orders, degrees, batch, channels, dtype=torch.float64)
    a = torch.complex(x[0::2], x[1::2]) * torch.tril(torch.ones(degrees, orders)).T[:, :, None, None]
    rows = torch.stack([a.real, a.imag], dim=1).flatten(0, 1)
    b = torch.einsum("mlbi,lio->mlbo", a, torch.complex(*layer.weight.unbind(2)))
    torch.testing.assert_close(layer(rows), torch.stack([b.real, b.imag], dim=1).flatten(0, 1), rtol=0, atol=1e-12)


def test_gradients_of_the_convolution_by_degree():
    torch.manual_seed(0)
    for orders in (2, 9):
        layer = DegreeConvolution(9, 2).double()
        x = torch.randn(2 * orders, 9, 1, 2, dtype=torch.float64)
        exists = torch.tril(torch.ones(9, orders)).T.repeat_interleave(2, 0)[:, :, None, None]

        def product(x, weight, layer=layer, exists=exists):
            return exists * torch.func.functional_call(layer, {"weight": weight}, (x * exists,))

        weight = layer.weight.detach().requires_grad_()
        assert torch.autograd.gradcheck(product, (x.requires_grad_(), weight))


def test_convolution_by_real_weights_commutes_with_any_rotation():
    """Rotate, then convolve = convolve, then rotate: a rotation about a tilted axis, evaluated harmonic by harmonic."""
    torch.manual_seed(0)
    grid, degrees = gaussian_grid(12), 7
    sht = SphericalHarmonics(grid, degrees, dtype=torch.float64)
    layer = DegreeConvolution(degrees, 2).double()
    with torch.no_grad():
        layer.weight[:, :, 1] = 0
    axis = np.array([1.0, 2.0, 0.5]) / np.linalg.norm([1.0, 2.0, 0.5])
    cross = np.cross(np.eye(3), axis)
    rotation = np.cos(1.1) * np.eye(3) + np.sin(1.1) * cross + (1 - np.cos(1.1)) * np.outer(axis, axis)
    phi, lam = np.deg2rad(grid.latitude)[None, :], np.deg2rad(grid.longitude)[:, None]
    points = np.stack(np.broadcast_arrays(np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)), -1)
    x, y, z = np.moveaxis(points @ rotation, -1, 0)
    table = legendre(degrees, degrees, z.ravel())
    waves = np.exp(1j * np.arange(degrees)[:, None] * np.arctan2(y, x).ravel())
    harmonics = torch.from_numpy(table * waves[:, None])

    def rotated(rows):
        a = torch.complex(rows[0::2], rows[1::2])
        twice = torch.tensor([1.0] + [2.0] * (degrees - 1), dtype=torch.float64)
        field = torch.einsum("m,mlp,mln->pn", twice.to(a.dtype), harmonics, a.flatten(2)).real
        return sht.analysis(field.reshape(*points.shape[:2], -1)).unflatten(-1, rows.shape[2:])

    rows = sht.analysis(torch.randn(24, 12, 6, dtype=torch.float64)).unflatten(-1, (3, 2))
    torch.testing.assert_close(rotated(layer(rows)), layer(rotated(rows)), rtol=0, atol=1e-12)
