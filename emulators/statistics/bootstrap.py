"""Significance of differences between two scores of the same initial times: a paired circular block bootstrap.

Blocks of L consecutive initial times, the series closed to a circle, are drawn with replacement until n are there; both
forecasts keep what was drawn together. With d the difference of scores, d* its value from the means of a resample, and
r the lag-one autocorrelation of what each initial time adds to d (its jackknife values),

    n' = n (1 - r) / (1 + r),   L = (n - L + 1)^((2/3)(1 - n'/n)),   interval = d +- t_{n/L-1} sqrt(c var(d*))

    c = V / ((G_L - L V) / n),  V = sum_{|k|<n} (1 - |k|/n) r^|k| / n,  G_L = sum_{|k|<L} (1 - |k|/L) g_|k|,
    g_k = ((n - k) r^k + k r^(n-k)) / n

c makes the variance of the mean of a first-order autoregression right in n initial times, where blocks alone give too
little of it; for r = 0 it is n / (n - L). r is freed of the bias of short series (r + (1 + 4 r)/n).

Blocks: Kuensch 1989, doi 10.1214/aos/1176347265; circle: Politis & Romano 1992; L: Wilks 1997, doi
10.1175/1520-0442(1997)010<0065:RHTFAF>2.0.CO;2; errors from resamples: Efron & Tibshirani 1993, chapters 6 and 11;
bias of r: Marriott & Pope 1954, doi 10.1093/biomet/41.3-4.390; why n': Geer 2016, doi 10.3402/tellusa.v68.30229.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from emulators.scores.interfaces import Metric

LEAST = 4  # initial times below which nothing is said
HIGHEST = 0.97  # autocorrelation taken for certain at most; beyond it no number of initial times is enough
SERIES = 2**12  # series resampled at a time


@dataclass(frozen=True)
class Bootstrap:
    """Set how differences are judged. level: of the intervals. block: its length; None: from the autocorrelation.

    seed: of the draws, which are the same for all series of one length.
    """

    resamples: int = 500
    level: float = 0.95
    block: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 2 or not 0.0 < self.level < 1.0 or (self.block is not None and self.block < 1):
            raise ValueError(
                "A bootstrap needs at least 2 resamples, a level between 0 and 1 and blocks of at least 1; got "
                f"{self.resamples}, {self.level} and {self.block}."
            )

    def __str__(self) -> str:
        length = "from the autocorrelation (Wilks 1997)" if self.block is None else f"{self.block}"
        return (
            f"paired circular block bootstrap over initial times, {self.resamples} resamples, block length {length}, "
            f"variance corrected for first-order autoregression, {100 * self.level:g} % intervals by Student's t, "
            "each difference for itself (no correction for their number)"
        )


@dataclass(frozen=True)
class Difference:
    """Hold differences of two scores with their intervals. block: length of a block. inits: number of shared ones.

    All of the shape of the series; NaN (0 in `block`) where a score is NaN or too few initial times are shared.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    block: np.ndarray
    inits: np.ndarray

    @property
    def significant(self) -> np.ndarray:
        """True where the interval lies on one side of zero."""
        return (self.low > 0.0) | (self.high < 0.0)


def paired_difference(
    metric: Metric, first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], bootstrap: Bootstrap
) -> Difference:
    """Loss of the first less loss of the second, |score - perfect| each, the score where nothing is perfect.

    first, second: by statistic of the metric (of one by init: its value, under any name) the area means of each initial
    time, shape (init, *series); NaN where an initial time has none, which is then left out of both.
    """
    names = list(first)
    shape = first[names[0]].shape[1:]
    both = [
        np.asarray(side[name], dtype=np.float64).reshape(len(side[name]), -1)
        for side in (first, second)
        for name in names
    ]
    table = np.stack(both)  # (2 x statistic, init, series)
    there = ~np.isnan(table).any(axis=0)
    found = np.full((4, table.shape[-1]), np.nan)
    found[3] = 0.0
    patterns, kind = np.unique(there, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        chosen = np.flatnonzero(kind.ravel() == number)
        for some in np.array_split(chosen, -(-chosen.size // SERIES)):
            kept = table[:, patterns[:, number]][..., some]
            found[:, some] = _judged(metric, names, kept, bootstrap)
    value, low, high, block = (part.reshape(shape) for part in found)
    return Difference(value, low, high, block.astype(np.int64), there.sum(axis=0).reshape(shape))


def _judged(metric: Metric, names: list[str], table: np.ndarray, bootstrap: Bootstrap) -> np.ndarray:
    """value, low, high, block of series without gaps; table (2 x statistic, init, series)."""
    inits, series = table.shape[1:]
    found = np.full((4, series), np.nan)
    found[3] = 0.0
    if inits == 0:
        return found
    mean = table.mean(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found[0] = _loss_difference(metric, names, mean)
    if inits < LEAST:
        return found
    with np.errstate(invalid="ignore", divide="ignore"):
        without = (inits * mean[:, None] - table) / (inits - 1)
        r = autocorrelation(_loss_difference(metric, names, without))
    lengths = np.full(series, bootstrap.block or 0) if bootstrap.block else block_lengths(inits, r)
    lengths = np.minimum(lengths, max(1, inits // 3))
    for length in np.unique(lengths):
        some = np.flatnonzero(lengths == length)
        counts = block_counts(inits, int(length), bootstrap.resamples, bootstrap.seed)
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.std(_loss_difference(metric, names, counts @ table[..., some]), axis=0)
        error = error * np.sqrt(variance_factor(inits, int(length), r[some]))
        reach = error * student_quantile(0.5 + bootstrap.level / 2, max(inits / length - 1, 1))
        found[1, some], found[2, some], found[3, some] = found[0, some] - reach, found[0, some] + reach, length
    return found


def _loss_difference(metric: Metric, names: list[str], means: np.ndarray) -> np.ndarray:
    """Loss of the first less that of the second from means (2 x statistic, ...)."""
    losses = []
    for side in np.split(means, 2):
        terms = dict(zip(names, map(torch.from_numpy, side), strict=True))
        score = side[0] if metric.by_init else metric.value(terms).numpy()
        losses.append(score if np.isnan(metric.perfect) else np.abs(score - metric.perfect))
    return losses[0] - losses[1]


def autocorrelation(series: np.ndarray) -> np.ndarray:
    """Lag-one autocorrelation along the first axis freed of the bias of short series, between 0 and 0.97; 0 where
    nothing varies."""
    n = len(series)
    apart = series - series.mean(axis=0)
    square = np.square(apart).sum(axis=0)
    r = np.divide((apart[1:] * apart[:-1]).sum(axis=0), square, out=np.zeros_like(square), where=square > 0)
    return np.clip(r + (1.0 + 4.0 * r) / n, 0.0, HIGHEST)


def equivalent_inits(n: int, r: np.ndarray) -> np.ndarray:
    """n' = n (1 - r) / (1 + r): how many independent initial times tell as much."""
    return n * (1.0 - r) / (1.0 + r)


def block_lengths(n: int, r: np.ndarray) -> np.ndarray:
    """L = (n - L + 1)^((2/3)(1 - n'/n)), whole numbers."""
    power = 2.0 / 3.0 * (1.0 - equivalent_inits(n, r) / n)
    length = np.ones_like(r)
    for _ in range(60):
        length = 0.5 * length + 0.5 * np.maximum(n - length + 1.0, 1.0) ** power
    return np.rint(length).astype(np.int64)


@lru_cache(maxsize=64)
def block_counts(n: int, length: int, resamples: int, seed: int = 0) -> np.ndarray:
    """The share of draws of each of n initial times, shape (resample, n)."""
    random = np.random.default_rng([seed, n, length])
    blocks = -(-n // length)
    starts = random.integers(0, n, (resamples, blocks))
    drawn = ((starts[..., None] + np.arange(length)) % n).reshape(resamples, -1)[:, :n]
    counts = np.zeros((resamples, n))
    np.add.at(counts, (np.arange(resamples)[:, None], drawn), 1.0 / n)
    counts.setflags(write=False)
    return counts


def variance_factor(n: int, length: int, r: np.ndarray) -> np.ndarray:
    """c: variance of the mean of a first-order autoregression over what blocks of `length` give of it on average."""

    def summed(reach: int, covariance: np.ndarray) -> np.ndarray:
        """sum_{|k|<reach} (1 - |k|/reach) covariance_k: variance of the mean of as many, times their number."""
        k = np.arange(reach).reshape(-1, *(1,) * np.ndim(r))
        return (np.where(k == 0, 1.0, 2.0) * (1.0 - k / reach) * covariance[:reach]).sum(axis=0)

    k = np.arange(n).reshape(-1, *(1,) * np.ndim(r))
    variance = summed(n, r**k) / n
    circular = ((n - k) * r**k + k * r ** (n - k)) / n
    blocks, rest = divmod(n, length)  # the last block is cut to the `rest` that is left
    given = sum(m * reach * (summed(reach, circular) - reach * variance) for m, reach in ((blocks, length), (1, rest)))
    return variance * n**2 / given


def student_quantile(share: float, freedom: float) -> float:
    """Quantile (share >= 0.5) of Student's t of at least one degree of freedom, to 1e-3 of its value."""
    inverse, table = _student_table(share)
    return float(np.interp(1.0 / freedom, inverse, table))


@lru_cache
def _student_table(share: float) -> tuple[np.ndarray, np.ndarray]:
    """1 / f and the quantile; with t = sqrt(f) tan a, the angle a has the density cos^(f-1) a."""
    inverse, table = np.linspace(1e-6, 1.0, 257), []
    for f in 1.0 / inverse:
        angle = np.linspace(0.0, min(np.pi / 2, 40.0 / np.sqrt(f)), 2**12 + 1)
        density = np.cos(angle) ** (f - 1.0)
        below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
        table.append(np.sqrt(f) * np.tan(np.interp(2.0 * share - 1.0, below / below[-1], angle)))
    return inverse, np.array(table)
