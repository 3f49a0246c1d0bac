"""Harmonics of points on rings: against rows and columns, exactness, iterations, order of cells, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emulators.grid import LatLonGrid, PointGrid, gaussian_grid
from emulators.grids.catalogue import named_grid
from emulators.sphere.spectra import RingHarmonics, harmonics_of, power
from emulators.sphere.transform import SphericalHarmonics


def coefficients(transform, columns: int = 2) -> torch.Tensor:
    """Random ones, zero where there are none."""
    some = torch.randn(
        2 * transform.orders,
        transform.degrees,
        columns,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(0),
    )
    l, m = torch.arange(transform.degrees)[None, :, None], torch.arange(2 * transform.orders)[:, None, None] // 2
    some = some * (l >= m)
    some[1] = 0.0
    return some


def error(grid, degrees=None, iterations=None) -> float:
    """Largest error of a round trip from coefficients."""
    transform = RingHarmonics(grid, degrees, torch.float64, iterations=iterations)
    given = coefficients(transform)
    return float((transform.analysis(transform.synthesis(given)) - given).abs().max())


def test_rows_and_columns_as_rings():
    grid = gaussian_grid(12)
    latitude, longitude = grid.points
    cells = PointGrid(latitude, longitude, grid.weights.reshape(-1), "", "")
    whole, rings = (
        SphericalHarmonics(grid, 8, dtype=torch.float64),
        RingHarmonics(cells, 8, torch.float64, iterations=0),
    )
    given = coefficients(whole)
    field = whole.synthesis(given)  # (lon, lat, n)
    flat = field.transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(rings.synthesis(given), flat, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rings.analysis(flat), given, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["O8", "O24", "N32"])
def test_reduced_gaussian_grids_hold_half_as_many_degrees_as_rows(name):
    assert error(named_grid(name)) < 1e-7


def test_iterations_on_healpix():
    errors = [error(named_grid("healpix:8"), 16, n) for n in (0, 1, 3)]
    assert errors[1] < 0.3 * errors[0] < 0.3
    assert errors[2] < 0.3 * errors[1]
    assert errors[2] < 1e-3


def test_the_order_of_cells_does_not_matter():
    ring, nested = (RingHarmonics(named_grid(name), 8) for name in ("healpix:4", "healpix:4:nested"))
    given = coefficients(ring).float()
    fields = [transform.synthesis(given) for transform in (ring, nested)]
    assert not torch.allclose(*fields)
    torch.testing.assert_close(nested.analysis(fields[1]), ring.analysis(fields[0]), rtol=1e-4, atol=1e-5)


def test_parseval_and_gradients():
    transform = RingHarmonics(named_grid("O8"), dtype=torch.float64)
    given = coefficients(transform)
    field = transform.synthesis(given).requires_grad_()
    area = torch.as_tensor(transform.grid.weights)[:, None]
    mean = (area * field**2).sum(0) / area.sum()
    torch.testing.assert_close(power(transform.analysis(field)).sum(0) / (4 * torch.pi), mean, rtol=1e-7, atol=0.0)
    (slope,) = torch.autograd.grad(power(transform.analysis(field)).sum() / (4 * torch.pi), field)
    torch.testing.assert_close(slope, (2 * area * field / area.sum()).detach(), rtol=1e-6, atol=1e-9)


def test_which_grids_have_harmonics():
    assert isinstance(harmonics_of(gaussian_grid(4)), SphericalHarmonics)
    assert isinstance(harmonics_of(named_grid("O4")), RingHarmonics)
    for name in ("cubed_sphere:4", "icosahedral:1"):
        with pytest.raises(ValueError, match="rings of equally spaced"):
            harmonics_of(named_grid(name))
    with pytest.raises(ValueError, match="16 rings"):
        RingHarmonics(named_grid("O8"), 17)
    with pytest.raises(ValueError, match="whole sphere"):
        harmonics_of(LatLonGrid(np.array([60.0, 50.0, 40.0]), np.array([0.0, 10.0])))
