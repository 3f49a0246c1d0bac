"""Monthly means of fields: how much they vary at which time scale, and their leading patterns.

    x(y, m) = mean + season(m) + year(y) + rest(y, m)          means of month m of year y, both parts of mean zero
    total variance = days + season + months + years

with days the mean square departure of single times from the mean of their month, and season, years and months the mean
squares of season(m), year(y) and rest(y, m). The four add up where the data are complete. What they have of chance: the
weather of n independent times in a month alone leaves 1/n of its variance to months. Patterns are those of the
departures from the mean season and from a straight line in time at each point (see `statistics.patterns`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from emulators.scores.climate import area_mean
from emulators.statistics.patterns import Patterns, is_separate, overlap, sampling_error
from emulators.statistics.period_sums import PeriodSums

SCALES = ("days", "season", "months", "years")
MODES = 3


class Modes(NamedTuple):
    """Hold the leading patterns of forecast and truth in one region, NaN beyond those that there are.

    maps: what goes with one standard deviation of a mode's series, (source, mode, point), those of the forecast with
    the sign of the truth's. shares: of the variance, errors: of these, separate: 1 where a mode is distinct from its
    neighbours, each (source, mode). likeness: |e_k . e'_k| of each mode, (mode,). along: variance of the forecast along
    the truth's patterns over the truth's, (mode,). overlap: of the two sets.
    """

    maps: np.ndarray
    shares: np.ndarray
    errors: np.ndarray
    separate: np.ndarray
    likeness: np.ndarray
    along: np.ndarray
    overlap: float


class MonthlyFields:
    """Accumulate monthly means of several series of fields (series, time, channel, point), the first that of the truth.

    Held in float64 for every month and series.
    """

    def __init__(self) -> None:
        self._months = PeriodSums("field")  # since 1970; (series, channel, point)
        self._squares: np.ndarray | float = 0.0

    def add(self, months: np.ndarray, fields: np.ndarray) -> None:
        """Add fields of the months since 1970, (time,)."""
        self._squares = self._squares + np.square(fields).sum(axis=1)
        self._months.add_times(months, fields, axis=1)

    def partial(self) -> dict[str, np.ndarray]:
        """The sums so far as arrays, for `add_partial`."""
        return {**self._months.partial(), "field squares": np.asarray(self._squares)}

    def add_partial(self, partial: Mapping[str, np.ndarray]) -> None:
        """Add the sums of others."""
        self._months.add_partial(partial)
        if partial["field periods"].size:
            self._squares = self._squares + partial["field squares"]

    def whole(self, years: np.ndarray) -> np.ndarray:
        """Return monthly means of those of `years` that have all twelve, (series, year, month, channel, point)."""
        rows = []
        for year in years.tolist():
            months = range(12 * (year - 1970), 12 * (year - 1969))
            if all(month in self._months.sums for month in months):
                rows.append(np.stack([self._months.mean(month) for month in months]))
        return np.moveaxis(np.stack(rows), 2, 0) if rows else np.zeros((0, 0, 12, 0, 0))

    def variances(self, means: np.ndarray) -> np.ndarray:
        """Return the variance at each of SCALES, of the mean over the members and of the truth, (2, scale, ...).

        means: as from `whole`.
        """
        sums, counts = self._months.sums, self._months.counts
        count = sum(counts.values())
        inside = sum(np.square(sums[month]) / number for month, number in counts.items())
        days = np.maximum((self._squares - inside) / count, 0.0)  # (series, channel, point)
        centre = means.mean(axis=(1, 2), keepdims=True)
        season, year = means.mean(axis=1, keepdims=True) - centre, means.mean(axis=2, keepdims=True) - centre
        rest = means - centre - season - year
        parts = [np.square(part).mean(axis=(1, 2)) for part in (season, rest, year)]
        each = np.stack([days, *parts], axis=1)
        return np.stack([each[1:].mean(axis=0), each[0]])

    @staticmethod
    def modes(means: np.ndarray, weights: np.ndarray) -> Modes:
        """Return the leading patterns of one channel. means: as from `whole`, (series, year, month, point)."""
        series = departures(means)
        used = (weights > 0.0) & np.isfinite(series).all(axis=(0, 1))
        area = np.where(used, weights, 0.0)[used]
        truth, members = series[:1, :, used], series[1:, :, used]
        bases = [Patterns(part.reshape(-1, part.shape[-1]), area, MODES) for part in (members, truth)]
        amplitudes = [
            (part * basis.root) @ basis.patterns.T for part, basis in zip((members, truth), bases, strict=True)
        ]
        of_truth = bases[1].patterns
        maps, shares, errors, separate = (np.full((2, MODES, *tail), np.nan) for tail in ((weights.size,), (), (), ()))
        likeness, along = np.full(MODES, np.nan), np.full(MODES, np.nan)
        for source, (basis, amounts) in enumerate(zip(bases, amplitudes, strict=True)):
            count = len(basis.shares)
            spread = np.sqrt(np.square(amounts).mean(axis=(0, 1)))
            same = min(count, len(of_truth))
            sign = np.ones(count)
            sign[:same] = np.where((basis.patterns[:same] * of_truth[:same]).sum(axis=1) < 0.0, -1.0, 1.0)
            maps[source, :count, used] = ((sign * spread)[:, None] * basis.patterns / basis.root).T
            shares[source, :count], errors[source, :count] = basis.shares, sampling_error(basis.shares, amounts)
            separate[source, :count] = is_separate(basis.shares, errors[source, :count])
        both = min(len(basis.shares) for basis in bases)
        likeness[:both] = np.abs((bases[0].patterns[:both] * of_truth[:both]).sum(axis=1))
        projected = np.square((members * bases[1].root) @ of_truth.T).mean(axis=(0, 1))
        along[: len(of_truth)] = projected / np.square(amplitudes[1]).mean(axis=(0, 1))
        return Modes(maps, shares, errors, separate, likeness, along, overlap(bases[0].patterns, of_truth))


def departures(means: np.ndarray) -> np.ndarray:
    """Return the departures from the mean season and from a line in time, (series, time, point)."""
    series = (means - means.mean(axis=1, keepdims=True)).reshape(len(means), -1, means.shape[-1])
    line = np.arange(series.shape[1]) - 0.5 * (series.shape[1] - 1)
    slope = np.tensordot(series, line, axes=(1, 0)) / np.square(line).sum()
    return series - slope[:, None] * line[:, None]


def ratios(variances: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return root of variance over the truth's, of area means with weights (point, region), (..., region).

    variances: of forecast and truth, (2, ..., point). NaN where the truth hardly varies.
    """
    forecast, truth = area_mean(variances, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(np.where(truth > 1e-20 * (forecast + truth), forecast / truth, np.nan))
