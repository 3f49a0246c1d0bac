"""Sums of arrays by month or year; those of batches, processes or runs add up to the whole."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class PeriodSums:
    """Accumulate sums of arrays by period, a whole number such as the year, and how many entered each.

    name: of these sums among those of `partial`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.sums: dict[int, np.ndarray] = {}
        self.counts: dict[int, int] = {}

    @property
    def periods(self) -> list[int]:
        """The periods, in order."""
        return sorted(self.sums)

    def add(self, period: int, total: np.ndarray, count: int = 1) -> None:
        """Add a sum of `count` arrays of one period."""
        self.sums[period] = self.sums.get(period, 0.0) + total
        self.counts[period] = self.counts.get(period, 0) + count

    def add_times(self, periods: np.ndarray, fields: np.ndarray, axis: int) -> None:
        """Add fields whose `axis` is time, of the periods (time,)."""
        for period in np.unique(periods).tolist():
            within = periods == period
            self.add(period, np.compress(within, fields, axis=axis).sum(axis=axis), int(within.sum()))

    def mean(self, period: int) -> np.ndarray:
        """Return the mean of the arrays of a period."""
        return self.sums[period] / self.counts[period]

    def partial(self) -> dict[str, np.ndarray]:
        """The sums so far as arrays, for `add_partial`."""
        periods = self.periods
        return {
            f"{self.name} periods": np.array(periods, dtype=np.int64),
            f"{self.name} sums": np.stack([self.sums[period] for period in periods]) if periods else np.zeros(0),
            f"{self.name} counts": np.array([self.counts[period] for period in periods], dtype=np.int64),
        }

    def add_partial(self, partial: Mapping[str, np.ndarray]) -> None:
        """Add the sums of others."""
        of_others = (partial[f"{self.name} {part}"] for part in ("periods", "sums", "counts"))
        for period, total, count in zip(*of_others, strict=True):
            self.add(int(period), total, int(count))
