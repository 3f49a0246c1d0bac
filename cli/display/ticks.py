"""Choose ticks of axes, linear and by powers of ten."""

from __future__ import annotations

import math


def ticks(low: float, high: float, most: int = 5, unit: str = "") -> list[float]:
    """Round numbers within low..high: steps of 1, 2 or 5 times a power of ten, in hours parts of a day."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    steps = (1, 3, 6, 12, 24) if unit == "hours" and 0.2 < raw <= 24 else [f * power for f in (1, 2, 5, 10)]
    step = next(step for step in steps if step >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def powers_of_ten(low: float, high: float) -> list[float]:
    """Whole numbers within low..high, at most six."""
    first, last = math.ceil(low), math.floor(high)
    return [float(n) for n in range(first, last + 1, max(1, math.ceil((last - first + 1) / 6)))]
