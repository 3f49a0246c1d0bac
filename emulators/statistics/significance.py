"""Significance of differences between two scores of the same initial times.

With d the difference of the scores and z_t what initial time t adds to it (its jackknife values), t = 1..n, the
variance of d comes from the slowest B cosines in the series, each of which is an estimate of it:

    V = 1 / (n B) sum_{j<=B} ( sqrt(2 / n) sum_t z_t cos(pi j (t - 1/2) / n) )^2
    interval = d +- t_B s sqrt(V),    B = max(3, 0.08 n^(2/3)),    s = 1 + 14 / n

t_B is the quantile of Student's t with B degrees of freedom. Correlation of any form counts, up to about n / B initial
times, and no length has to be guessed. B is smaller than where a first-order autoregression is the worst to be expected
(0.4 n^(2/3)), and s is above 1: weak slow variations under noise show in no faster cosine. Both were chosen by
simulation: of series without a difference, 2 to 8 % are called significant at 95 % (`tests/benchmarks/referee.py`).

    n_eff = min(n, n var(z) / (n V))

is the number of independent initial times that would tell as much; below 15 there is no verdict. Of many differences
judged together, the false discovery rate is kept: p_(k) <= (1 - level) k / m for the k-th smallest p-value of m.

Lazarus, Lewis, Stock & Watson 2018, doi 10.1080/07350015.2018.1506926; Mueller 2007, doi 10.1016/j.jeconom.2007.01.019;
why differences need it: Geer 2016, doi 10.3402/tellusa.v68.30229; false discovery rate: Benjamini & Hochberg 1995, doi
10.1111/j.2517-6161.1995.tb02031.x; Wilks 2016, doi 10.1175/BAMS-D-15-00267.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from emulators.scores.interfaces import Metric

SERIES = 2**12  # series judged at a time


@dataclass(frozen=True)
class Significance:
    """Set how differences are judged.

    level: of the intervals. least: effective number of initial times below which there is no verdict. false_discovery:
    whether the rate of false claims is kept over all differences that are judged together, or for each one alone.
    """

    level: float = 0.95
    least: float = 15.0
    false_discovery: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.level < 1.0:
            raise ValueError(f"significance.level: expected a share between 0 and 1, such as 0.95; got {self.level:g}.")
        if not self.least >= 0.0:
            raise ValueError(f"significance.least: expected a number of initial times from 0; got {self.least:g}.")

    def __str__(self) -> str:
        rate = 100 * (1 - self.level)
        together = f"false discovery rate {rate:.3g} % over all variables, levels and leads (Benjamini & Hochberg 1995)"
        return (
            "paired differences of initial times, variance from the slowest cosines of the series (Lazarus et al. "
            f"2018), {100 * self.level:g} % intervals by Student's t, no verdict below {self.least:g} effective "
            f"initial times; {together if self.false_discovery else 'each difference for itself'}"
        )

    def significant(self, p_values: np.ndarray) -> np.ndarray:
        """1 where a difference is significant, 0 where it is not, NaN where the p-value is; all are judged together."""
        verdicts, finite = np.full(p_values.shape, np.nan), np.isfinite(p_values)
        if finite.any():
            p = adjusted(p_values[finite]) if self.false_discovery else p_values[finite]
            verdicts[finite] = p <= 1.0 - self.level
        return verdicts


@dataclass(frozen=True)
class Difference:
    """Hold differences of two scores with their intervals and p-values.

    effective_inits: how many independent initial times would tell as much. inits: number of shared ones. All of the
    shape of the series; low, high and p_value are NaN where a score is NaN or too few initial times are shared.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray
    effective_inits: np.ndarray
    inits: np.ndarray


def paired_difference(
    metric: Metric, first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], significance: Significance
) -> Difference:
    """Loss of the first less loss of the second, |score - perfect| each, the score where nothing is perfect.

    first, second: by statistic of the metric (of one by init: its value, under any name) the area means of each initial
    time, in their order, shape (init, *series); NaN where an initial time has none, which is then left out of both.
    """
    names = list(first)
    shape = first[names[0]].shape[1:]
    stacked = [
        np.asarray(side[name], dtype=np.float64).reshape(len(side[name]), -1)
        for side in (first, second)
        for name in names
    ]
    table = np.stack(stacked)  # (2 x statistic, init, series)
    valid = ~np.isnan(table).any(axis=0)
    estimates = np.full((5, table.shape[-1]), np.nan)
    patterns, kind = np.unique(valid, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        columns = np.flatnonzero(kind.ravel() == number)
        for batch in np.array_split(columns, -(-columns.size // SERIES)):
            complete = table[:, patterns[:, number]][..., batch]
            estimates[:, batch] = _judged(metric, names, complete, significance)
    value, low, high, p_value, effective = (estimate.reshape(shape) for estimate in estimates)
    return Difference(value, low, high, p_value, effective, valid.sum(axis=0).reshape(shape))


def _judged(metric: Metric, names: list[str], table: np.ndarray, significance: Significance) -> np.ndarray:
    """value, low, high, p_value, effective_inits of series without gaps; table (2 x statistic, init, series)."""
    from scipy.stats import t as student

    inits, series = table.shape[1:]
    estimates = np.full((5, series), np.nan)
    if inits == 0:
        return estimates
    mean = table.mean(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        estimates[0] = _loss_difference(metric, names, mean)
        if inits < 2:
            return estimates
        without = (inits * mean[:, None] - table) / (inits - 1)
        added = -(inits - 1.0) * _loss_difference(metric, names, without)
        added -= added.mean(axis=0)
        variance, count = variance_of_mean(added), cosines(inits)
        effective = effective_number(added, variance)
        error = widening(inits) * np.sqrt(variance)
        reach = error * student.ppf(0.5 + significance.level / 2, count)
        p_value = 2.0 * student.sf(np.abs(estimates[0]) / error, count)
    low_high_p = np.stack(
        [estimates[0] - reach, estimates[0] + reach, np.where(error == 0.0, estimates[0] == 0.0, p_value)]
    )
    estimates[1:4] = np.where(effective >= significance.least, low_high_p, np.nan)
    estimates[4] = effective
    return estimates


def _loss_difference(metric: Metric, names: list[str], means: np.ndarray) -> np.ndarray:
    """Loss of the first less that of the second from means (2 x statistic, ...)."""
    losses = []
    for side in np.split(means, 2):
        terms = dict(zip(names, map(torch.from_numpy, side), strict=True))
        score = side[0] if metric.by_init else metric.value(terms).numpy()
        losses.append(score if np.isnan(metric.perfect) else np.abs(score - metric.perfect))
    return losses[0] - losses[1]


def cosines(n: int) -> int:
    """B: the number of cosines, and of degrees of freedom."""
    return min(max(3, int(0.08 * n ** (2.0 / 3.0))), n - 1)


def widening(n: int) -> float:
    """s: the factor of standard errors."""
    return 1.0 + 14.0 / n


def variance_of_mean(series: np.ndarray) -> np.ndarray:
    """V: the variance of the mean along the first axis, in all but `widening`."""
    n = len(series)
    j, t = np.arange(1, cosines(n) + 1)[:, None], np.arange(n) + 0.5
    waves = np.sqrt(2.0 / n) * np.cos(np.pi * j * t / n)
    return np.square(np.tensordot(waves, series, axes=1)).mean(axis=0) / n


def effective_number(series: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """n_eff from the variance of the mean; n where nothing varies."""
    n = len(series)
    single = series.var(axis=0)
    return np.where(single == 0.0, n, np.minimum(n, np.divide(single, variance, where=variance > 0.0, out=single * n)))


def adjusted(p_values: np.ndarray) -> np.ndarray:
    """The smallest false discovery rate at which each difference would be significant, from p-values (difference,)."""
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p_values))
