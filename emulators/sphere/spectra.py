"""Spectra by total wavenumber, on any grid: power, cross power of two fields, effective resolution.

    power         P(l)    = sum over all m of |a_lm|^2 = |a_l0|^2 + 2 sum over m > 0 of |a_lm|^2
    cross power   X(l)    = Re sum over all m of a_lm conj(b_lm)
    Parseval      sum over l of P(l) = 4 pi * (area mean of f^2)

Power and cross power are those of AMSE (Subich et al. 2025, arXiv 2501.19374).
Coefficients come in the layout of `SphericalHarmonics`, (2 * orders, degrees, n), zero where l < m. `harmonics_of` a
grid gives them: on rows and columns the transform, on rings of points `RingHarmonics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from emulators.constants import EARTH_RADIUS
from emulators.grid import Grid, LatLonGrid
from emulators.sphere.legendre import legendre
from emulators.sphere.transform import SphericalHarmonics, Tables, phase


def cross_power(a: Tensor, b: Tensor) -> Tensor:
    """Return the cross power X(l), (degrees, n), of two sets of coefficients (2 * orders, degrees, n)."""
    weights = a.new_full((a.shape[0],), 2.0)
    weights[0], weights[1] = 1.0, 0.0  # order 0 counts once, and has no imaginary part
    return (weights @ (a * b).flatten(1)).view(a.shape[1:])


def power(coefficients: Tensor) -> Tensor:
    """Return the power P(l), (degrees, n), of coefficients (2 * orders, degrees, n).

    Divided by 4 pi it is the share of each degree in the mean square.
    """
    return cross_power(coefficients, coefficients)


CLIFF, CLIFF_FROM = 30.0, 4  # fall of power that ends a spectrum, and the first degree at which it may
SAME = 1e-6  # degrees, within which points are on one ring, and equally spaced
NOISE = 1e-5  # share of the truth's variance in one degree from which excess power is called noise


@dataclass(frozen=True)
class EffectiveResolution:
    """Hold the effective resolution of forecasts, int64 degrees and float64 numbers of one shape.

    degree: the last degree resolved. wavelength: 2 pi radius / degree (m), infinite if none is resolved. coherent: the
    last degree up to which forecast and truth are coherent, -1 where that is not known. last: the last degree of the
    truth. noise: excess power as a share of the truth's variance. noise_degree: the first degree with it, 0 if there is
    none. convention: the definitions, in words.
    """

    degree: Tensor
    wavelength: Tensor
    coherent: Tensor
    last: Tensor
    noise: Tensor
    noise_degree: Tensor
    convention: str


def effective_resolution(
    forecast: Tensor,
    truth: Tensor,
    threshold: float = 0.5,
    radius: float = EARTH_RADIUS,
    *,
    coherence: Tensor | None = None,
    last: Tensor | None = None,
) -> EffectiveResolution:
    """Return the last degree up to which the power of a forecast is near the truth's at every degree.

    Near is from `threshold` to 1 / threshold of it: more is noise and resolves nothing. No degree beyond the truth's
    last is resolved. forecast, truth, coherence: by degree, (degrees, ...), the mean before l = 1 not counted; average
    power over dates and members, not fields. last: of the truth, default that of `last_degree`. Wavelengths are whole
    ones; half of it is the size of one crest. Raises ValueError for a threshold that is no share.
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(
            f"Expected a threshold above 0 and at most 1, as a share of the truth's power; got {threshold}."
        )
    last = last_degree(truth) if last is None else last
    inside = _degrees(truth) <= last
    degree = _reached((forecast >= threshold * truth) & (threshold * forecast <= truth) & inside)
    excess = (forecast - truth / threshold).clamp(min=0.0)[1:] / truth[1:].sum(dim=0)
    noisy = excess > NOISE
    noise_degree = torch.where(noisy.any(dim=0), noisy.to(torch.int64).argmax(dim=0) + 1, 0)
    wavelength = 2.0 * torch.pi * radius / degree.to(torch.float64)
    convention = (
        f"wavelength 2 pi a / l of the last degree l, none beyond the truth's last, with {threshold:g} power(truth) <= "
        f"power(forecast) <= {1 / threshold:g} power(truth) at 1..l, a = {radius:g} m; coherent: the last degree with "
        f"coherence >= {threshold:g} at 1..l; noise: power above {1 / threshold:g} power(truth), as a share of the "
        "truth's variance"
    )
    return EffectiveResolution(
        degree,
        wavelength,
        torch.full_like(degree, -1) if coherence is None else _reached((coherence >= threshold) & inside),
        last,
        torch.where(noisy, excess, 0.0).sum(dim=0),
        noise_degree,
        convention,
    )


def last_degree(truth: Tensor) -> Tensor:
    """Return the degree at which the power of data ends, (...), from power by degree, (degrees, ...).

    It is the first (of at least 4) beyond which no degree has 1/30 of its power, as where a spectral model is
    truncated; else the last degree there is.
    """
    beyond = truth.flip(0).cummax(dim=0).values.flip(0)[1:]  # the largest power at higher degrees
    cliff = (beyond < truth[:-1] / CLIFF) & (_degrees(truth)[:-1] >= CLIFF_FROM)
    return torch.where(cliff.any(dim=0), cliff.to(torch.int64).argmax(dim=0), len(truth) - 1)


def _degrees(like: Tensor) -> Tensor:
    return torch.arange(len(like)).view(-1, *[1] * (like.ndim - 1))


def _reached(holds: Tensor) -> Tensor:
    """The last degree up to which something holds at every degree from 1 on; holds: (degrees, ...)."""
    return holds[1:].to(torch.int64).cumprod(dim=0).sum(dim=0)


class RingHarmonics(Tables):
    """Transform fields on rings of latitude, each with its own number of equally spaced points: (cell, n).

        synthesis  f_kj = Re sum_m (2 - delta_m0) exp(i m lambda_kj) sum_l a_lm P_lm(mu_k)
        analysis   a_lm = sum_k A_k P_lm(mu_k) sum_j f_kj exp(-i m lambda_kj)
        iteration  a <- a + analysis(f - synthesis(a))

    with the area A_k of a cell of ring k. Coefficients are (2 * orders, degrees, n), as `SphericalHarmonics` lays them.
    Reduced Gaussian grids hold as many degrees as half their rows without iteration, to 1e-7: their rows are those of a
    quadrature, and near the poles, where points are few, high orders vanish. The equal areas of HEALPix are no
    quadrature; up to degree 2 n three iterations leave an error of less than 1e-3 (Gorski et al. 2005,
    doi 10.1086/427976).

    A ring of n points is transformed by a fast Fourier transform; orders beyond n / 2 are folded onto those that look
    the same there.

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
