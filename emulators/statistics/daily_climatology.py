"""Climatology by day of the year: weighted statistics of all years within a window of days around each day.

    mean_d = sum_k w_k sum_y x_y(d+k) / sum w,    w_k falling linearly from the day itself to 0 at the window's ends

Days are 1..366 and go round; the day that an ordinary year lacks is filled with its last. The quantile of weighted
values is the mean of the empirical quantile function over 1/n about it, n = (sum w)^2 / sum w^2: type 7 of Hyndman &
Fan (1996, doi 10.1080/00031305.1996.10473566), weighted as by Akinshin (2023, arXiv 2304.07265). SEEPS: how often it is
dry, counted, and the amount that two of three wet cases stay below, weighted (Rodwell et al. 2010,
doi 10.1002/qj.656). All as in WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

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
    there = ~np.isnan(samples)
    count = there.sum(axis=0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.nansum(samples, axis=(0, 1), dtype=np.float64) / count.sum(axis=0)  # keeps what is squared small
        first, second = np.zeros(count.shape), np.zeros(count.shape)
        for year, known in zip(samples, there, strict=True):
            departure = np.where(known, year - centre, 0.0)
            first += departure
            second += np.square(departure)
        smooth = _circulant(weights)
        total = smooth @ count
        mean, square = (smooth @ part / total for part in (first, second))
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
    found = np.empty((len(levels), *samples.shape[1:]))
    for start in range(0, samples.shape[2], BLOCK):
        part = slice(start, start + BLOCK)
        for day, values, weight in _sorted_by_day(samples[:, :, part], weights):
            found[:, day, part] = _quantiles_of_sorted(values, weight, levels)
    return found


def seeps_threshold(samples: np.ndarray, weights: np.ndarray, dry: float) -> np.ndarray:
    """The amount from which precipitation is heavy, by day, (day, point); dry: the least that is not dry."""
    return quantiles(np.where(samples < dry, np.float32(np.nan), samples), weights, [HEAVY])[0]


def dry_fraction(samples: np.ndarray, width: int, dry: float) -> np.ndarray:
    """The share of the window's days that are dry, all counting the same, (day, point); NaN where none is known."""
    smooth = _circulant(np.ones(width))
    with np.errstate(invalid="ignore"):
        is_dry, known = (samples < dry).sum(axis=0), (~np.isnan(samples)).sum(axis=0)
        return (smooth @ is_dry) / (smooth @ known)


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

    found = np.empty((len(levels), len(values)))
    for row, level in enumerate(levels):
        h = (effective - 1.0) * level + 1.0
        low, high = (h - 1.0) / effective, np.minimum(h / effective, 1.0)
        found[row] = centre[:, 0] + effective * (integral_to(high) - integral_to(low))
    return np.where(total[:, 0] > 0, found, np.nan)
