"""Climatology: harmonics of the year and of the day fitted at every point by least squares, or windows of days.

    f(t) = sum_kj c_kj A_k(t) D_j(t),   A = 1, cos(2 pi k y), sin(2 pi k y);   D = 1, cos(2 pi j d), sin(2 pi j d)

y is the fraction of the mean tropical year, d that of the UTC day. The normal equations are summed in float64 over any
number of passes, so that the memory needed does not grow with the record. Narapusetty, DelSole & Tippett 2009,
doi 10.1175/2009JCLI2944.1.

Climatology by day of the year: weighted statistics of all years within a window of days around each day.

    mean_d = sum_k w_k sum_y x_y(d+k) / sum w,    w_k falling linearly from the day itself to 0 at the window's ends

Days are 1..366 and go round; the day that an ordinary year lacks is filled with its last. The quantile of weighted
values is the mean of the empirical quantile function over 1/n about it, n = (sum w)^2 / sum w^2: type 7 of Hyndman &
Fan (1996, doi 10.1080/00031305.1996.10473566), weighted as by Akinshin (2023, arXiv 2304.07265). SEEPS: how often it is
dry, counted, and the amount that two of three wet cases stay below, weighted (Rodwell et al. 2010,
doi 10.1002/qj.656). All as in WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

DAY = 86_400
TROPICAL_YEAR = 31_556_925  # s


class HarmonicClimatology:
    """Fit the mean, annual and diurnal cycle of each channel at each point.

    annual, diurnal: how many harmonics of the year and of the day; their products are included.

        climatology = HarmonicClimatology(annual=2, diurnal=2)
        for times, values in batches:                # datetime64 (time,), (time, channel, *grid)
            climatology.accumulate(times, values)
        normal = climatology.solve().evaluate(times)   # float32 (*times.shape, channel, *grid)

    Combinations of harmonics that the sample does not determine (a record much shorter than a year, one hour a day) are
    left out of the fit: those whose variance in the sample is below 1 % of the largest. Missing values spread: a point
    with a NaN has a NaN climatology.
    """

    def __init__(self, annual: int = 2, diurnal: int = 2) -> None:
        if annual < 0 or diurnal < 0:
            raise ValueError(f"Expected numbers of harmonics of at least 0; got annual={annual}, diurnal={diurnal}.")
        self.annual, self.diurnal = annual, diurnal
        self.coefficients: Tensor | None = None
        self._gram: Tensor | None = None
        self._moment: Tensor | None = None

    @classmethod
    def for_timestep(cls, timestep: np.timedelta64, annual: int = 2, diurnal: int = 2) -> HarmonicClimatology:
        """A climatology without the cycles that a series with this timestep cannot resolve."""
        return cls(*resolved_harmonics(timestep, annual, diurnal))

    @property
    def size(self) -> int:
        """Number of coefficients of a channel at a point."""
        return (1 + 2 * self.annual) * (1 + 2 * self.diurnal)

    def accumulate(self, times: np.ndarray | Tensor, values: Tensor | np.ndarray) -> None:
        """Add fields to the sums. times: datetime64 or int64 seconds since 1970, (time,); values (time, ...)."""
        values = torch.as_tensor(values)
        basis = harmonics(_seconds(times).to(values.device), self.annual, self.diurnal)
        if basis.shape[0] != values.shape[0] or basis.ndim != 2:
            raise ValueError(f"Expected a field a time; got {tuple(basis.shape[:-1])} times, {values.shape[0]} fields.")
        gram, moment = basis.T @ basis, torch.tensordot(basis.T, values.double(), dims=1)
        self._gram = gram if self._gram is None else self._gram + gram
        self._moment = moment if self._moment is None else self._moment.add_(moment)

    def solve(self) -> HarmonicClimatology:
        """Fit the coefficients, (size, channel, *grid), to all fields accumulated so far."""
        if self._gram is None or self._moment is None:
            raise ValueError("A climatology needs fields: call accumulate before solve.")
        inverse = torch.linalg.pinv(self._gram, rtol=0.01, hermitian=True)
        self.coefficients = torch.tensordot(inverse, self._moment, dims=1).float()
        return self

    def evaluate(self, times: np.ndarray | Tensor) -> Tensor:
        """Normal fields at `times` of any shape, float32 (*times.shape, channel, *grid)."""
        if self.coefficients is None:
            raise ValueError("A climatology must be solved before it is evaluated.")
        basis = harmonics(_seconds(times).to(self.coefficients.device), self.annual, self.diurnal)
        return torch.tensordot(basis.to(self.coefficients.dtype), self.coefficients, dims=1)


def resolved_harmonics(timestep: np.timedelta64, annual: int, diurnal: int) -> tuple[int, int]:
    """At most `annual` and `diurnal` harmonics: two samples a cycle, the last harmonic of an even number by half."""
    unit, _ = np.datetime_data(timestep)
    seconds = int(timestep.astype(int)) * TROPICAL_YEAR // 12 if unit == "M" else timestep / np.timedelta64(1, "s")
    return min(annual, int(TROPICAL_YEAR * 1.01 / (2 * seconds))), min(diurnal, int(DAY / (2 * seconds)))


def harmonics(seconds: Tensor, annual: int, diurnal: int) -> Tensor:
    """The basis at times in int64 seconds since 1970: float64, (*seconds.shape, size)."""
    year = _waves(seconds, TROPICAL_YEAR, annual)
    day = _waves(seconds, DAY, diurnal)
    return (year.unsqueeze(-1) * day.unsqueeze(-2)).flatten(-2)


def _waves(seconds: Tensor, period: int, count: int) -> Tensor:
    angle = torch.remainder(seconds, period).double() * (2.0 * math.pi / period)
    waves = [torch.ones_like(angle)]
    for k in range(1, count + 1):
        waves += [torch.cos(k * angle), torch.sin(k * angle)]
    return torch.stack(waves, dim=-1)


def _seconds(times: np.ndarray | Tensor) -> Tensor:
    if isinstance(times, Tensor):
        return times
    return torch.from_numpy(np.asarray(times, dtype="datetime64[s]").astype(np.int64))


DAYS = 366
WIDTH = 61  # days
HEAVY = 2.0 / 3.0  # quantile of the wet cases above which precipitation is heavy
MISSING = 512  # marks the place in the window of a value that is missing; above every width
BLOCK = 64  # points whose samples are sorted at a time


def window_weights(width: int = WIDTH) -> np.ndarray:
    """The weights of the days of a window, mean 1, shape (width,)."""
    if width % 2 == 0 or not 3 <= width < DAYS:
        raise ValueError(f"A window has an odd number of days from 3 to {DAYS - 1}; got {width}.")
    rise = np.linspace(0.0, 1.0, width // 2 + 1)
    weights = np.concatenate([rise, rise[-2::-1]])
    return weights / weights.mean()


def calendar(times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Year, day of the year (from 0; 1 March is 59 or 60) and seconds of the day of datetimes."""
    times = np.asarray(times, dtype="datetime64[s]")
    year, date = times.astype("datetime64[Y]"), times.astype("datetime64[D]")
    return year.astype(int) + 1970, (date - year.astype("datetime64[D]")).astype(int), (times - date).astype(int)


def fill_last_day(samples: np.ndarray) -> None:
    """Fill, in place, what is missing on day 366 with day 365. samples: (..., year, day, point)."""
    last = samples[..., -1, :]
    np.copyto(last, samples[..., -2, :], where=np.isnan(last))


def mean_and_std(samples: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and standard deviation by day, float64 (day, point), of samples (year, day, point).

    Missing values (NaN) are left out; a day without any has NaN.
    """
    valid = ~np.isnan(samples)
    count = valid.sum(axis=0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.nansum(samples, axis=(0, 1), dtype=np.float64) / count.sum(axis=0)  # keeps what is squared small
        first, second = np.zeros(count.shape), np.zeros(count.shape)
        for year, valid_year in zip(samples, valid, strict=True):
            departure = np.where(valid_year, year - centre, 0.0)
            first += departure
            second += np.square(departure)
        smooth = _circulant(weights)
        total = smooth @ count
        mean, square = (smooth @ moment / total for moment in (first, second))
        return centre + mean, np.sqrt(np.maximum(square - np.square(mean), 0.0))


def _circulant(weights: np.ndarray) -> np.ndarray:
    """(day, day) matrix that sums over the window around each day of a year that goes round."""
    matrix, half = np.zeros((DAYS, DAYS)), len(weights) // 2
    for place, weight in enumerate(weights):
        matrix[np.arange(DAYS), (np.arange(DAYS) + place - half) % DAYS] += weight
    return matrix


def quantiles(samples: np.ndarray, weights: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Weighted quantiles by day, float64 (level, day, point), of float32 samples (year, day, point).

    Missing values (NaN) are left out; a day without any has NaN.
    """
    estimates = np.empty((len(levels), *samples.shape[1:]))
    for start in range(0, samples.shape[2], BLOCK):
        block = slice(start, start + BLOCK)
        for day, values, weight in _sorted_by_day(samples[:, :, block], weights):
            estimates[:, day, block] = _quantiles_of_sorted(values, weight, levels)
    return estimates


def seeps_threshold(samples: np.ndarray, weights: np.ndarray, dry: float) -> np.ndarray:
    """The amount from which precipitation is heavy, by day, (day, point); dry: the least that is not dry."""
    return quantiles(np.where(samples < dry, np.float32(np.nan), samples), weights, [HEAVY])[0]


def dry_fraction(samples: np.ndarray, width: int, dry: float) -> np.ndarray:
    """The share of the window's days that are dry, all counting the same, (day, point); NaN where none is known."""
    smooth = _circulant(np.ones(width))
    with np.errstate(invalid="ignore"):
        is_dry, valid = (samples < dry).sum(axis=0), (~np.isnan(samples)).sum(axis=0)
        return (smooth @ is_dry) / (smooth @ valid)


def _sorted_by_day(samples: np.ndarray, weights: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each day's samples, sorted, and their weights, (point, sample).

    A value and its place in the window are sorted as one whole number, which is several times quicker than an argsort.
    """
    inner = np.flatnonzero(weights)
    half = len(weights) // 2
    bits = np.ascontiguousarray(samples.transpose(2, 1, 0), dtype=np.float32).view(np.uint32)
    missing = np.isnan(bits.view(np.float32))
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))  # orders as the floats do
    keys = np.where(missing, np.uint64(MISSING), rising.astype(np.uint64) << np.uint64(32))
    keys = np.concatenate([keys[:, -half:], keys, keys[:, :half]], axis=1)
    places = np.arange(len(inner), dtype=np.uint64)[:, None]
    table = np.zeros(2 * MISSING)
    table[: len(inner)] = weights[inner]
    for day in range(DAYS):
        window = keys[:, day + inner[0] : day + inner[-1] + 1] | places
        ordered = np.sort(window.reshape(len(keys), -1), axis=1)
        high = (ordered >> np.uint64(32)).astype(np.uint32)
        values = np.where(high >> 31, high & np.uint32((1 << 31) - 1), ~high).view(np.float32)
        weight = table[ordered & np.uint64(2 * MISSING - 1)]
        yield day, np.where(weight > 0, values, 0.0), weight


def _quantiles_of_sorted(values: np.ndarray, weight: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """(level, point) from sorted values and their weights, both (point, sample).

    The mean of the quantile function over an interval is the difference of its integral, which is linear between the
    cumulative weights.
    """
    total = weight.sum(axis=1, keepdims=True)
    share = weight / np.where(total > 0, total, 1.0)
    effective = 1.0 / np.where(total[:, 0] > 0, np.square(share).sum(axis=1), 1.0)
    rows = np.arange(len(values))
    centre = (share * values).sum(axis=1, keepdims=True)
    below = np.pad(np.cumsum(share, axis=1), ((0, 0), (1, 0)))
    integral = np.pad(np.cumsum(share * (values - centre), axis=1), ((0, 0), (1, 0)))
    flat = (below + 2.0 * rows[:, None]).ravel()  # rows one after the other are sorted as a whole

    def integral_to(share_below: np.ndarray) -> np.ndarray:
        at = np.searchsorted(flat, share_below + 2.0 * rows) - rows * below.shape[1]
        at = np.clip(at, 1, below.shape[1] - 1)
        left, right = below[rows, at - 1], below[rows, at]
        step = np.where(right > left, (share_below - left) / np.where(right > left, right - left, 1.0), 0.0)
        return integral[rows, at - 1] + step * (integral[rows, at] - integral[rows, at - 1])

    estimates = np.empty((len(levels), len(values)))
    for row, level in enumerate(levels):
        h = (effective - 1.0) * level + 1.0
        low, high = (h - 1.0) / effective, np.minimum(h / effective, 1.0)
        estimates[row] = centre[:, 0] + effective * (integral_to(high) - integral_to(low))
    return np.where(total[:, 0] > 0, estimates, np.nan)


class AnnualMaxima:
    """Hold the largest values of each year, float32, for several series of fields at once (series, time, ...)."""

    def __init__(self) -> None:
        self.by_year: dict[int, np.ndarray] = {}

    def add(self, years: np.ndarray, fields: np.ndarray) -> None:
        """Add fields of the years (time,)."""
        for year in np.unique(years).tolist():
            self._raise(year, fields[:, years == year].max(axis=1).astype(np.float32))

    def _raise(self, year: int, largest: np.ndarray) -> None:
        previous = self.by_year.get(year)
        self.by_year[year] = largest if previous is None else np.maximum(previous, largest)

    def partial(self) -> dict[str, np.ndarray]:
        """The maxima so far as arrays, for `add_partial`."""
        years = sorted(self.by_year)
        stacked = np.stack([self.by_year[year] for year in years]) if years else np.zeros(0, dtype=np.float32)
        return {"maximum years": np.array(years, dtype=np.int64), "maxima": stacked}

    def add_partial(self, partial: Mapping[str, np.ndarray]) -> None:
        """Add the maxima of others."""
        for year, largest in zip(partial["maximum years"].tolist(), partial["maxima"], strict=True):
            self._raise(year, largest)

    def return_levels(self, years: np.ndarray, period: float) -> tuple[np.ndarray, np.ndarray]:
        """Return what the first series, and all others taken together, exceed once in `period` of these years."""
        maxima = np.stack([self.by_year[year] for year in years.tolist()]).astype(np.float64)
        return return_level(maxima[:, 0], period), return_level(maxima[:, 1:].reshape(-1, *maxima.shape[2:]), period)


def return_level(maxima: np.ndarray, period: float) -> np.ndarray:
    """Return the value that annual maxima (year, ...) exceed once in `period` years, of a Gumbel distribution.

    Its location and scale are those of the first two L-moments (Hosking 1990, doi 10.1111/j.2517-6161.1990.tb01775.x).
    """
    ordered = np.sort(maxima, axis=0)
    rank = np.arange(len(ordered)).reshape(-1, *[1] * (ordered.ndim - 1)) / (len(ordered) - 1)
    mean, weighted = ordered.mean(axis=0), (rank * ordered).mean(axis=0)
    scale = (2.0 * weighted - mean) / math.log(2.0)
    return mean - np.euler_gamma * scale - scale * math.log(-math.log1p(-1.0 / period))
