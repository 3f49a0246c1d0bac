"""Spherical harmonics of points on rings of latitude, each with its own number of equally spaced points.

    synthesis  f_kj = Re sum_m (2 - delta_m0) exp(i m lambda_kj) sum_l a_lm P_lm(mu_k)
    analysis   a_lm = sum_k A_k P_lm(mu_k) sum_j f_kj exp(-i m lambda_kj)
    iteration  a <- a + analysis(f - synthesis(a))

with the area A_k of a cell of ring k. Reduced Gaussian grids hold as many degrees as half their rows without iteration,
to 1e-7: their rows are those of a quadrature, and near the poles, where points are few, high orders vanish. The equal
areas of HEALPix are no quadrature; up to degree 2 n three iterations leave an error of less than 1e-3 (Gorski et al.
2005, doi 10.1086/427976).

A ring of n points is transformed by a fast Fourier transform; orders beyond n / 2 are folded onto those that look the
same there.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from emulators.grid import Grid, LatLonGrid
from emulators.sphere.legendre import legendre
from emulators.sphere.transform import SphericalHarmonics, Tables, phase

SAME = 1e-6  # degrees, within which points are on one ring, and equally spaced


class RingHarmonics(Tables):
    """Transform between fields (cell, n) and coefficients (2 * orders, degrees, n), as `SphericalHarmonics` lays them.

    degrees: default, the square root of half the number of cells, as many as half the rows of a reduced Gaussian grid
    or 2.4 n of HEALPix of n. iterations: of the analysis; default, 3 on HEALPix and none on a reduced Gaussian grid.
    Raises ValueError where points are not equally spaced on rings over the whole globe.
    """

    order: Tensor
    place: Tensor
    legendre: Tensor
    turn: Tensor
    area: Tensor

    def __init__(
        self,
        grid: Grid,
        degrees: int | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        iterations: int | None = None,
        condon_shortley: bool = False,
    ) -> None:
        super().__init__(dtype)
        order, sine, counts, start = rings(grid)
        whole = grid.kind == "reduced_gaussian"
        self.grid = grid
        self.iterations = (0 if whole else 3) if iterations is None else iterations
        self.degrees = (len(counts) // 2 if whole else int(np.sqrt(grid.size / 2))) if degrees is None else degrees
        self.orders = self.degrees
        if not 1 <= self.degrees <= len(counts) or self.iterations < 0:
            raise ValueError(
                f"{grid} has {len(counts)} rings; expected 1 to as many degrees and no negative iterations; got "
                f"{self.degrees} and {self.iterations}."
            )
        lengths = np.unique(counts)
        rows = [np.flatnonzero(counts == length) for length in lengths]  # rings of one length are transformed together
        first = np.concatenate([[0], np.cumsum(counts)])
        cells = [first[group][:, None] + np.arange(length) for group, length in zip(rows, lengths, strict=True)]
        taken, by_length = order[np.concatenate([part.reshape(-1) for part in cells])], np.concatenate(rows)
        self.groups = [(len(group), int(length)) for group, length in zip(rows, lengths, strict=True)]
        area = 4.0 * np.pi * grid.weights.reshape(-1)[order[first[:-1]]][by_length] / grid.weights.sum()
        mu, begin = tuple(sine[by_length].tolist()), tuple(start[by_length].tolist())
        shape = (self.orders, self.degrees, len(counts))
        self.share("legendre", shape, _functions, self.degrees, mu, condon_shortley)
        self.share("turn", (self.orders, len(counts), 2), _turn, self.orders, begin)
        self.share("area", (len(counts),), np.array, tuple(area.tolist()))
        for name, table in (("order", taken), ("place", np.argsort(taken))):
            self.share(name, table.shape, _integers, table.astype(np.int64).tobytes())
        for number, (_, length) in enumerate(self.groups):
            for part, name in enumerate(("fold", "mirror", "double")):
                self.share(f"{name}_{number}", (self.orders,), _folds, self.orders, length, part)

    def analysis(self, field: Tensor) -> Tensor:
        """Return the coefficients (2 * orders, degrees, n) of fields (cell, n)."""
        field = field.to(self.dtype)
        coefficients = self._analysis(field)
        for _ in range(self.iterations):
            coefficients = coefficients + self._analysis(field - self.synthesis(coefficients))
        return coefficients

    def _analysis(self, field: Tensor) -> Tensor:
        sorted_by_ring, waves, begin = field.index_select(0, self.order), [], 0
        for number, (rows, length) in enumerate(self.groups):
            ring_values = sorted_by_ring[begin : begin + rows * length].unflatten(0, (rows, length))
            begin += rows * length
            wave = torch.fft.rfft(ring_values, dim=1).index_select(1, self._table("fold", number))
            waves.append(torch.where(self._table("mirror", number)[:, None] > 0, wave.conj(), wave))
        turned = torch.cat(waves).transpose(0, 1) * torch.view_as_complex(self.turn).conj()[..., None]
        components = torch.view_as_real(turned * self.area[:, None]).flatten(2)
        sums = torch.bmm(self.legendre, components).unflatten(-1, (-1, 2))
        return sums.permute(0, 3, 1, 2).flatten(0, 1)

    def synthesis(self, coefficients: Tensor) -> Tensor:
        """Return the fields (cell, n) of coefficients (2 * orders, degrees, n)."""
        pairs = coefficients.to(self.dtype).unflatten(0, (self.orders, 2)).permute(0, 2, 3, 1)
        waves = torch.bmm(self.legendre.mT, pairs.flatten(2)).unflatten(-1, (-1, 2))
        turned = torch.view_as_complex(waves.contiguous()) * torch.view_as_complex(self.turn)[..., None]
        fields, begin = [], 0
        for number, (rows, length) in enumerate(self.groups):
            ring_waves = turned[:, begin : begin + rows] * (self._table("double", number) * length)[:, None, None]
            begin += rows
            ring_waves = torch.where(self._table("mirror", number)[:, None, None] > 0, ring_waves.conj(), ring_waves)
            spectrum = ring_waves.new_zeros(length // 2 + 1, rows, ring_waves.shape[-1])
            spectrum = spectrum.index_add(0, self._table("fold", number), ring_waves)
            fields.append(torch.fft.irfft(spectrum, n=length, dim=0).transpose(0, 1).flatten(0, 1))
        return torch.cat(fields).index_select(0, self.place)

    def _table(self, name: str, number: int) -> Tensor:
        return self.get_buffer(f"{name}_{number}")


def harmonics_of(grid: Grid, dtype: torch.dtype = torch.float32) -> SphericalHarmonics | RingHarmonics:
    """Return the transform of a global grid of rows and columns, or of rings; ValueError where there is none.

    The analysis of either takes fields with the grid's dimensions reversed, (lon, lat, n) or (cell, n).
    """
    return SphericalHarmonics(grid, dtype=dtype) if isinstance(grid, LatLonGrid) else RingHarmonics(grid, dtype=dtype)


def rings(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the cells from ring to ring, north to south and eastwards, and of each ring sine of latitude, number of
    cells and longitude of the first in radians. Raises ValueError where there are none."""
    latitude, longitude = grid.points
    longitude = np.mod(longitude, 360.0)
    longitude = np.where(longitude > 360.0 - SAME, longitude - 360.0, longitude)
    row = np.cumsum(np.append(0, np.abs(np.diff(np.sort(-latitude))) > SAME))
    number = np.empty(latitude.size, dtype=np.int64)
    number[np.argsort(-latitude, kind="stable")] = row
    order = np.lexsort((longitude, number))
    counts = np.bincount(number)
    first = np.concatenate([[0], np.cumsum(counts)])
    even = all(
        np.ptp(np.diff(np.append(longitude[order[a:b]], longitude[order[a]] + 360.0))) < SAME
        for a, b in pairwise(first)
    )
    if not grid.is_global or not even or counts.mean() < 2:
        raise ValueError(
            f"Spherical harmonics of points need rings of equally spaced ones over the globe; got {grid}. Regrid to a "
            "reduced Gaussian grid, such as O32, or to rows and columns."
        )
    return order, np.sin(np.deg2rad(latitude[order[first[:-1]]])), counts, np.deg2rad(longitude[order[first[:-1]]])


def _functions(degrees: int, sines: tuple[float, ...], condon_shortley: bool) -> np.ndarray:
    table = legendre(degrees, degrees, np.array(sines))
    return table * phase(0, degrees).reshape(-1, 1, 1) if condon_shortley else table


def _turn(orders: int, start: tuple[float, ...]) -> np.ndarray:
    """Return exp(i m lambda) of the first point of each ring, real and imaginary parts, (orders, ring, 2)."""
    angle = np.outer(np.arange(orders), np.array(start))
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _integers(table: bytes) -> np.ndarray:
    return np.frombuffer(table, dtype=np.int64).copy()


def _folds(orders: int, length: int, part: int) -> np.ndarray:
    """Return the wave of a ring that looks like each order, whether mirrored, or how often it counts in a real field.

    A wave and its conjugate are one where it is constant or alternates.
    """
    remainder = np.arange(orders) % length
    mirrored = remainder > length // 2
    unpaired = (remainder == 0) | (2 * remainder == length)
    doubled = np.where(unpaired & (np.arange(orders) > 0), 2.0, 1.0)
    return (np.where(mirrored, length - remainder, remainder), mirrored.astype(np.int64), doubled)[part]
