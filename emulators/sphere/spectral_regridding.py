"""Spectral regridding: evaluate the spherical harmonics of fields on one grid at the points of another.

    g(lambda', mu') = sum over l < degrees of a_lm Y_lm(lambda', mu'),   a = analysis of f

Exact for fields whose degrees both grids resolve; finer scales are cut off. Winds go through vorticity and divergence,
so that they are those of one flow at the poles too (Swarztrauber 1979, doi 10.1137/0716069).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emulators.grid import LatLonGrid
from emulators.sphere.calculus import SphericalCalculus
from emulators.sphere.transform import check_last, degrees_and_orders


class Regrid(nn.Module):
    """Regrid fields (..., lat, lon) from `source` to `target`.

    degrees: default, as many as both grids resolve. Raises ValueError if a grid does not cover the sphere or resolves
    fewer degrees, and for fields of another grid.
    """

    def __init__(
        self, source: LatLonGrid, target: LatLonGrid, degrees: int | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        resolved = [degrees_and_orders(grid, degrees) for grid in (source, target)]
        degrees, orders = (min(numbers) for numbers in zip(*resolved, strict=True))
        self.source, self.target = (SphericalCalculus(grid, degrees, orders, dtype) for grid in (source, target))

    def forward(self, field: Tensor) -> Tensor:
        """Regrid scalar fields: (..., lat, lon) -> (..., lat', lon')."""
        return _customary(self.target.synthesis(self.source.analysis(self._native(field))), field)

    def winds(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Regrid eastward and northward wind: (..., lat, lon) each -> (..., lat', lon') each."""
        if u.shape != v.shape:
            raise ValueError(f"Expected two components of one shape; got {tuple(u.shape)} and {tuple(v.shape)}.")
        vorticity, divergence = self.source.vorticity_divergence(self._native(u), self._native(v))
        east, north = self.target.winds(vorticity, divergence)
        return _customary(east, u), _customary(north, v)

    def _native(self, field: Tensor) -> Tensor:
        check_last("fields (..., lat, lon)", field, self.source.grid.shape)
        return field.reshape(-1, *field.shape[-2:]).permute(2, 1, 0)


def _customary(field: Tensor, like: Tensor) -> Tensor:
    return field.permute(2, 1, 0).reshape(*like.shape[:-2], field.shape[1], field.shape[0])
