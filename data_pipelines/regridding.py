"""From one grid over the whole sphere to another: first-order conservative, or by spherical harmonics.

    conservative   F_I = sum_i (area of cell i within cell I) / (area of cell I) f_i

keeps area means to rounding and makes no new extremes (Jones 1999,
doi 10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2). Cells are those whose areas are the weights of the grids: on a
Gaussian grid their edges lie where the sums of the Gauss-Legendre weights put them. Spectral synthesis is exact for
fields whose degrees the source grid resolves; winds go through vorticity and divergence, so that they are those of one
flow at the poles too (Swarztrauber 1979, doi 10.1137/0716069).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from emulators.grid import LatLonGrid
from emulators.sphere.calculus import SphericalCalculus


class Regridding:
    """From `source` to `target`, in float64. degrees: of the spectral synthesis.

    Fields are (..., lat, lon). Where both grids are the same, fields pass as they are.
    """

    def __init__(self, source: LatLonGrid, target: LatLonGrid, degrees: int) -> None:
        self.source, self.target, self.degrees = source, target, degrees
        self.same = source.same_as(target)
        rows, columns = target.shape
        limit = min(rows - (target.kind == "equiangular_with_poles"), columns // 2)
        if limit < degrees:
            raise ValueError(
                f"{target!r} resolves {limit} degrees, the data {degrees}; choose a grid of at least {degrees} rows."
            )

    @cached_property
    def overlaps(self) -> tuple[Tensor, Tensor]:
        """Shares of the source's rows in the target's, (lat, lat'), and of its columns, (lon', lon)."""
        rows = _row_overlap(_sine_edges(self.target), _sine_edges(self.source))
        columns = _column_overlap(self.target.longitude, self.source.longitude)
        return torch.from_numpy(rows), torch.from_numpy(columns.T.copy())

    def conservative(self, field: Tensor) -> Tensor:
        """Cell means of `field`, which is constant within each of its cells."""
        if self.same:
            return field
        rows, columns = self.overlaps
        return rows @ (field.double() @ columns)

    @cached_property
    def _calculi(self) -> tuple[SphericalCalculus, SphericalCalculus]:
        source, target = (
            SphericalCalculus(grid, self.degrees, self.degrees, torch.float64) for grid in (self.source, self.target)
        )
        return source, target

    def spectral(self, field: Tensor) -> Tensor:
        """`field` as its spherical harmonics have it on the target."""
        if self.same:
            return field
        source, target = self._calculi
        return _customary(target.synthesis(source.analysis(_sphere_layout(field))), field.shape[:-2])

    def winds(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Eastward and northward wind on the target; at a pole, along the meridian of each column."""
        if self.same:
            return u, v
        source, target = self._calculi
        east, north = target.winds(*source.vorticity_divergence(_sphere_layout(u), _sphere_layout(v)))
        return _customary(east, u.shape[:-2]), _customary(north, u.shape[:-2])


def _sphere_layout(field: Tensor) -> Tensor:
    """(..., lat, lon) -> float64 (lon, lat, n)."""
    return field.double().reshape(-1, *field.shape[-2:]).permute(2, 1, 0).contiguous()


def _customary(field: Tensor, lead: torch.Size) -> Tensor:
    """(lon, lat, n) -> (*lead, lat, lon)."""
    return field.permute(2, 1, 0).reshape(*lead, field.shape[1], field.shape[0]).contiguous()


def _sine_edges(grid: LatLonGrid) -> np.ndarray:
    """Sines of the edges of the rows from 1 to -1, as the weights have them, shape (lat + 1,)."""
    shares = grid.weights.sum(axis=1) / grid.weights.sum()
    edges = 1.0 - 2.0 * np.concatenate([[0.0], np.cumsum(shares)])
    edges[-1] = -1.0
    return edges


def _row_overlap(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Share of each target row (edges falling) that lies within each source row, (target, source)."""
    top = np.minimum(target[:-1, None], source[None, :-1])
    bottom = np.maximum(target[1:, None], source[None, 1:])
    return np.clip(top - bottom, 0.0, None) / (target[:-1] - target[1:])[:, None]


def _column_overlap(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Share of each target column, on a circle of cells with equal steps, within each source column."""
    wide, narrow = (360.0 / len(values) for values in (target, source))
    apart = (target[:, None] - source[None] + 180.0) % 360.0 - 180.0
    shares = np.zeros_like(apart)
    for turn in (-360.0, 0.0, 360.0):  # wide cells may meet on both sides
        shift = apart + turn
        right = np.minimum(shift + 0.5 * wide, 0.5 * narrow)
        left = np.maximum(shift - 0.5 * wide, -0.5 * narrow)
        shares += np.clip(right - left, 0.0, None)
    return shares / wide
