"""Measure the growth of errors with lead time: doubling, crossing of another curve, spread over initial times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.verification.score_rows import Row

if TYPE_CHECKING:
    import xarray as xr


FREE = 0.5  # fraction of the saturated error up to which errors grow unhindered


def squared_errors(by_init: xr.Dataset, row: Row, region: str) -> np.ndarray | None:
    """Mean squared errors (init, lead) of one row, NaN where they are not finite; None where there are none."""
    if not row.is_in(by_init, region=region):
        return None
    values = row.field(by_init).sel(statistic="squared_error", region=region).values.astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan) if np.isfinite(values).any() else None


def doubling_time(leads: np.ndarray, errors: np.ndarray, saturation: float) -> float:
    """Time in which errors double, by a line through log2 of those below half the saturation; NaN if they do not."""
    free = np.isfinite(errors) & (errors > 0) & (errors <= FREE * saturation)
    free &= np.cumprod(free).astype(bool)  # up to the first lead beyond it
    rate = np.polyfit(leads[free], np.log2(errors[free]), 1)[0] if free.sum() >= 3 else 0.0
    return float(1.0 / rate) if rate > 0 else np.nan


def crossing(leads: np.ndarray, errors: np.ndarray, other: np.ndarray) -> float:
    """Lead time at which errors reach another curve, linear between leads; -inf before the first, inf if never."""
    gap = errors - other
    beyond = np.flatnonzero(gap >= 0)
    if not beyond.size:
        return np.inf
    at = int(beyond[0])
    if at == 0:
        return -np.inf
    return float(leads[at - 1] + (leads[at] - leads[at - 1]) * gap[at - 1] / (gap[at - 1] - gap[at]))


def relative_spread(errors: np.ndarray) -> float:
    """Standard deviation over initial times divided by the mean; NaN for fewer than two values."""
    finite = errors[np.isfinite(errors)]
    return float(finite.std(ddof=1) / finite.mean()) if finite.size > 1 and finite.mean() > 0 else np.nan
