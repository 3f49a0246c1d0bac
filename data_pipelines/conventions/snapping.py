"""Snap times that lost digits when they were stored to the even axis that they were written from.

Fractions of days with some decimals, single precision, and times that another program cut to seconds (07:59:59) lie a
little beside the axis. All times of an axis are moved to multiples, from midnight, of the coarsest step in `STEPS` of
which none lies further away than the tolerance: the error of the stored numbers, 1 s or more, and at most a quarter of
the step.
"""

from __future__ import annotations

import numpy as np

STEPS = (86400, 43200, 21600, 10800, 3600, 1800, 900, 600, 300, 60, 1)  # seconds
CUT = 1.0  # seconds that are lost where times are cut to whole ones


def snapped(seconds: np.ndarray, error: float = 0.0) -> np.ndarray:
    """Round times or lengths of time, float64 seconds, to whole seconds on the axis they were written from; int64.

    error: largest error of the stored numbers in seconds (`stored_error`).
    """
    distinct = np.unique(seconds).size
    for step in STEPS:
        near = np.round(seconds / step) * step
        if (
            np.abs(near - seconds).max(initial=0.0) <= min(step / 4, max(CUT, error))
            and np.unique(near).size == distinct
        ):
            return near.astype(np.int64)
    return np.round(seconds).astype(np.int64)


def stored_error(values: np.ndarray, unit: float) -> float:
    """Return the largest error of numbers in units of `unit` seconds, in seconds; 0 for whole numbers.

    It is the spacing of floating-point numbers (single precision where all values fit it), or the last decimal where
    there are at most nine.
    """
    if not np.issubdtype(values.dtype, np.floating) or not values.size or (values == np.round(values)).all():
        return 0.0
    single = values.astype(np.float32)
    stored = single if (single == values).all() else values
    spacing = float(np.spacing(np.abs(stored).max()))
    fewest = 2 if values.size >= 4 else 3  # few numbers with few decimals may be meant exactly
    for decimals in range(fewest, 10):
        if np.allclose(values.round(decimals), values, rtol=0.0, atol=2 * spacing):
            return max(spacing, 10.0**-decimals) * unit
    return spacing * unit
