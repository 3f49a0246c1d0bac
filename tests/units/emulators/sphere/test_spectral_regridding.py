"""Spectral regridding: band-limited fields and winds between every pair of grids, there and back."""

import itertools

import pytest
import torch

from emulators.grid import equiangular_grid, gaussian_grid, lobatto_grid
from emulators.sphere.calculus import Regrid, SphericalCalculus

GRIDS = [gaussian_grid(12), lobatto_grid(14), equiangular_grid(13, 25), equiangular_grid(16, poles=True)]
PAIRS = list(itertools.permutations(GRIDS, 2))


def coefficients(seed: int) -> torch.Tensor:
    """Random coefficients of two fields without mean, of 10 degrees and orders, (20, 10, 2)."""
    a = torch.randn(20, 10, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a *= (torch.arange(10) >= torch.arange(20)[:, None] // 2)[..., None]
    a[1] = 0.0
    a[:, 0] = 0.0
    return a


def customary(field: torch.Tensor) -> torch.Tensor:
    """(lon, lat, n) -> (n, 1, lat, lon)"""
    return field.permute(2, 1, 0).unsqueeze(1)


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=lambda grid: repr(grid))
def test_fields_and_winds_of_few_degrees_arrive_exactly(source, target):
    here, there = (SphericalCalculus(grid, 10, dtype=torch.float64) for grid in (source, target))
    regrid = Regrid(source, target, 10, torch.float64)
    a, b = coefficients(0), coefficients(1)
    found = regrid(customary(here.synthesis(a)))
    torch.testing.assert_close(found, customary(there.synthesis(a)), rtol=0, atol=1e-11)
    winds = regrid.winds(*map(customary, here.winds(a, b)))
    for part, expected in zip(winds, there.winds(a, b), strict=True):
        torch.testing.assert_close(part, customary(expected), rtol=1e-11, atol=1e-5)


def test_what_the_coarser_grid_cannot_hold_is_cut_off():
    fine, coarse = gaussian_grid(16), gaussian_grid(8)
    regrid, back = Regrid(fine, coarse, dtype=torch.float64), Regrid(coarse, fine, dtype=torch.float64)
    assert regrid.source.degrees == regrid.target.degrees == 8
    field = torch.randn(3, 16, 32, dtype=torch.float64)
    once = back(regrid(field))
    torch.testing.assert_close(back(regrid(once)), once, rtol=0, atol=1e-12)
    assert (once - field).abs().max() > 0.1


def test_other_fields_and_degrees_are_refused():
    source, target = gaussian_grid(12), gaussian_grid(20)
    with pytest.raises(ValueError, match="12 x 24 at the end; got shape"):
        Regrid(source, target)(torch.zeros(20, 40))
    with pytest.raises(ValueError, match="components of one shape"):
        Regrid(source, target).winds(torch.zeros(3, 12, 24), torch.zeros(12, 24))
    for degrees in (0, 13):
        with pytest.raises(ValueError, match="resolves 12 degrees"):
            Regrid(source, target, degrees)
