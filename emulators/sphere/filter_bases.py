"""Local filters on the sphere as sums of basis functions on a disk, and their values between two grids.

A filter is moved along meridians and parallels; r is the distance from its centre over the cutoff radius, phi the
direction, 0 towards the south and pi / 2 towards the east, x = r sin(phi), y = r cos(phi). The bases:

    piecewise_linear   hat functions on rings and sectors; shape: collocation points across the disk, and sectors
    morlet             cos^2(pi r / 2) f_n(x) f_m(y),   f = 1, sin(pi x), cos(pi x), sin(2 pi x), ...; shape: m, n
    zernike            R_n^|m|(r) cos(m phi), m >= 0, or sin(m phi), m < 0;   n < shape, m = -n, -n + 2, ..., n

With the area q of a point over that of the sphere, values psi of basis function k around row t are divided by

    individual         sum |psi_kt| q, of each function at each row
    mean               the mean over rows of that sum
    support            sum q over the points of its support

and multiplied by q, so that a convolution is a sum over points; with `none` they are neither. Discrete-continuous
convolutions: Ocampo, Price & McEwen 2022, arXiv 2209.13603; bases and norms as in torch-harmonics 0.8 (Liu-Schiaffini
et al. 2024, arXiv 2402.16845).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from emulators.sphere.legendre import nodes

NORMS = ("individual", "mean", "support", "none")
LEAST_SUM = 1e-9  # added to what is divided by
RIM = 1.0 + 1e-9  # points at the rim of a hat, where it is zero, belong to its support
MARGIN = 1e-3  # by which the cutoff grows, so that points at it do not come and go with rounding


@dataclass(frozen=True)
class FilterBasis:
    """Hold the basis functions of a filter and the norm of their values.

    kind: `piecewise_linear`, `morlet` or `zernike`. shape: one or two numbers of functions. norm: `individual`, `mean`,
    `support` or `none`. Raises ValueError for others.
    """

    kind: str
    shape: tuple[int, ...]
    norm: str = "mean"

    def __post_init__(self) -> None:
        if self.kind not in BASES or self.norm not in NORMS:
            raise ValueError(
                f"Expected a basis of {', '.join(BASES)} and a norm of {', '.join(NORMS)}; got '{self.kind}' and "
                f"'{self.norm}'."
            )
        if not 1 <= len(self.shape) <= 2 or min(self.shape) < 1:
            raise ValueError(f"Expected one or two positive numbers as shape of a filter; got {self.shape}.")

    @property
    def pair(self) -> tuple[int, int]:
        """Both numbers of the shape; one alone counts rings of hats, and both axes of the other bases."""
        alone = 1 if self.kind == "piecewise_linear" else self.shape[0]
        return self.shape[0], self.shape[1] if len(self.shape) == 2 else alone

    @property
    def size(self) -> int:
        """The number of basis functions."""
        first, second = self.pair
        if self.kind == "piecewise_linear":
            return first // 2 * second + first % 2
        return first * second if self.kind == "morlet" else first * (first + 1) // 2

    def values(self, r: np.ndarray, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the functions at points (n,) with r <= 1 and whether each is in their support, both (size, n)."""
        return BASES[self.kind](r, phi, *self.pair)


def _piecewise_linear(r: np.ndarray, phi: np.ndarray, rings: int, sectors: int) -> tuple[np.ndarray, np.ndarray]:
    """Return hats; of an even number of rings the inmost reach over the centre to the other side."""
    step, width, odd = 2.0 / (rings + 1), 2.0 * np.pi / sectors, rings % 2
    centres: list[tuple[float, float | None]] = [(0.0, None)] if odd else []
    sector_angles = [2.0 * np.pi * s / sectors - np.pi if sectors > 1 else None for s in range(sectors)]
    centres += [((ring + (1.0 if odd else 0.5)) * step, a) for ring in range(rings // 2) for a in sector_angles]
    values, support = np.zeros((2, len(centres), len(r)))
    for k, (radius, angle) in enumerate(centres):
        sides = [(r, phi)] if odd or angle is None else [(r, phi), (-r, phi - np.pi)]
        for distance, direction in sides:
            along = np.abs(distance - radius) / step
            across = np.zeros_like(r) if angle is None else _angle(direction - angle) / width
            values[k] += np.maximum(1.0 - along, 0.0) * np.maximum(1.0 - across, 0.0)
            support[k] += (along <= RIM) & (across <= RIM)
    return values, support > 0


def _angle(difference: np.ndarray) -> np.ndarray:
    """Return angles without sign, 0 to pi."""
    size = np.abs(difference)
    return np.minimum(size, np.abs(2.0 * np.pi - size))


def _morlet(r: np.ndarray, phi: np.ndarray, south: int, east: int) -> tuple[np.ndarray, np.ndarray]:
    """Return products of waves in a window of Hann; the number of the eastward wave runs fastest."""
    window = np.cos(0.5 * np.pi * r) ** 2
    southward = [_wave(m, r * np.cos(phi)) for m in range(south)]
    eastward = [_wave(n, r * np.sin(phi)) for n in range(east)]
    values = np.stack([window * y * x for y in southward for x in eastward])
    return values, np.ones_like(values, dtype=bool)


def _wave(number: int, x: np.ndarray) -> np.ndarray:
    return (np.sin if number % 2 else np.cos)((number + 1) // 2 * np.pi * x)


def _zernike(r: np.ndarray, phi: np.ndarray, levels: int, _: int) -> tuple[np.ndarray, np.ndarray]:
    """Return Zernike polynomials, which do not vanish at the rim."""
    values = []
    for n in range(levels):
        for m in range(-n, n + 1, 2):
            values.append(_zernike_radius(n, abs(m), r) * (np.sin(m * phi) if m < 0 else np.cos(m * phi)))
    return np.stack(values), np.ones((len(values), len(r)), dtype=bool)


def _zernike_radius(n: int, m: int, r: np.ndarray) -> np.ndarray:
    total = np.zeros_like(r)
    for k in range((n - m) // 2 + 1):
        below = math.factorial(k) * math.factorial((n + m) // 2 - k) * math.factorial((n - m) // 2 - k)
        total += (-1) ** k * math.factorial(n - k) / below * r ** (n - 2 * k)
    return total


BASES = {"piecewise_linear": _piecewise_linear, "morlet": _morlet, "zernike": _zernike}


@dataclass(frozen=True)
class SparseFilter:
    """Hold the values of a filter between two grids: basis function, row of output, row and column of input, value.

    Each of shape (entry,), in the order of the output's rows, for the output's first column; those of other columns
    follow by a shift of longitude.
    """

    function: np.ndarray
    row_out: np.ndarray
    row: np.ndarray
    column: np.ndarray
    value: np.ndarray


@lru_cache(maxsize=8)
def sparse_filter(
    basis: FilterBasis, source: tuple[str, int, int], goal: tuple[str, int, int], cutoff: float
) -> SparseFilter:
    """Return the values of a basis between the grids (kind, nlat, nlon) `source` and `goal`; cutoff: radians."""
    kind, nlat, nlon = source
    mu, weights = nodes(kind, nlat)
    area = weights / (2.0 * nlon)
    colatitudes_out = np.arccos(np.clip(nodes(goal[0], goal[1])[0], -1.0, 1.0))
    colatitudes = np.arccos(np.clip(mu, -1.0, 1.0))[:, None]
    longitudes = np.arange(nlon) * (2.0 * np.pi / nlon)
    reach = (1.0 + MARGIN) * cutoff
    parts = []
    for t, colatitude in enumerate(colatitudes_out):
        near = np.flatnonzero(np.abs(colatitudes - colatitude) <= 1.01 * reach)
        r, phi = _polar(colatitude, colatitudes[near], longitudes)
        row, column = np.nonzero(r <= reach)
        values, support = basis.values(r[row, column] / reach, phi[row, column])
        function, point = np.nonzero(support)
        parts.append((function, np.full_like(function, t), near[row[point]], column[point], values[support]))
    function, row_out, row, column, value = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if basis.norm != "none":
        value = value * area[row] / _norms(basis, function, row_out, value, area[row], goal[1])
    return SparseFilter(function, row_out, row, column, value)


def _polar(colatitude: float, colatitudes: np.ndarray, longitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distance and direction of points seen from a point of longitude 0, each (lat, lon)."""
    sine, cosine = np.sin(colatitudes), np.cos(colatitudes)
    south = np.cos(colatitude) * np.cos(longitudes) * sine - cosine * np.sin(colatitude)
    east = np.sin(longitudes) * sine
    up = np.cos(longitudes) * np.sin(colatitude) * sine + np.cos(colatitude) * cosine
    length = np.sqrt(south * south + east * east + up * up)
    return np.arccos(np.clip(up / length, -1.0, 1.0)), np.mod(np.arctan2(east, south), 2.0 * np.pi)


def _norms(
    basis: FilterBasis, function: np.ndarray, row_out: np.ndarray, value: np.ndarray, area: np.ndarray, rows: int
) -> np.ndarray:
    """Return what each value is divided by, (entry,)."""
    of = function * rows + row_out
    summed = area if basis.norm == "support" else np.abs(value) * area
    sums = np.bincount(of, weights=summed, minlength=basis.size * rows)
    if basis.norm == "mean":
        sums = np.repeat(sums.reshape(basis.size, rows).mean(1), rows)
    return sums[of] + LEAST_SUM
