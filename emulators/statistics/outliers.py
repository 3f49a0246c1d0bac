"""Find values that lie apart from the rest of a field, such as a number that stands for a missing value.

    gap > max(30 s, 2 r),    s = 1.4826 median |x - median x|,    r = max x - min x    of the rest

s is the standard deviation where more than half of the rest are the same. A heavy tail has no such gap, since its
values come ever closer to the rest; two values alone, as of a mask, are not judged. Robust spread: Rousseeuw & Croux
(1993, doi:10.1080/01621459.1993.10476408).
"""

from __future__ import annotations

import numpy as np

DEVIATIONS, SPANS = 30.0, 2.0


def usual_range(values: np.ndarray) -> tuple[float, float]:
    """Return the least and greatest of the finite values that do not lie apart from most distinct ones, any shape.

    NaN where no value is finite.
    """
    values = np.sort(values[np.isfinite(values)], axis=None).astype(np.float64)
    while values.size:
        steps = np.diff(values)
        if not steps.size or not steps.any():
            break
        at = int(steps.argmax())
        parts = values[: at + 1], values[at + 1 :]
        rest = max(parts, key=lambda part: np.count_nonzero(np.diff(part)))
        if steps[at] <= margin(rest):
            break
        values = rest
    return (float(values[0]), float(values[-1])) if values.size else (float("nan"), float("nan"))


def margin(values: np.ndarray) -> float:
    """Return the gap by which a value lies apart from these, finite ones; infinite where all are the same."""
    span = float(values.max() - values.min())
    if span == 0.0:
        return float("inf")
    middle = np.median(values)
    spread = 1.4826 * float(np.median(np.abs(values - middle))) or float(values.std())
    return max(DEVIATIONS * spread, SPANS * span)
