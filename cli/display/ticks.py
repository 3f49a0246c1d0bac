"""Choose ticks of axes, linear and logarithmic, and write them."""

from __future__ import annotations

import math

from emul.display.text import MINUS


def ticks(low: float, high: float, most: int = 5, unit: str = "") -> list[float]:
    """Round numbers within low..high: steps of 1, 2 or 5 times a power of ten; in hours, divisors of a day."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    steps = (1, 3, 6, 12, 24) if unit == "hours" and 0.2 < raw <= 24 else [f * power for f in (1, 2, 5, 10)]
    step = next(step for step in steps if step >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def powers_of_ten(low: float, high: float, most: int = 6) -> list[float]:
    """Powers of ten within low..high, every n-th where there are more than `most`."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0**n for n in range(first, last + 1, max(1, math.ceil((last - first + 1) / most)))]


def round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten within low..high; 1 and 3 times, or the powers alone, where they are many."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits, most in (((1, 2, 5), 6), ((1, 3), 6), ((1,), 99)):
        numbers = [digit * 10.0**n for n in exponents for digit in digits if low <= digit * 10.0**n <= high]
        if len(numbers) <= most:
            return numbers
    return []


def tick_text(value: float) -> str:
    """A tick in few characters."""
    text = f"{value:g}" if 1e-3 <= abs(value) < 1e5 or not value else f"{value:.0e}"
    return text.replace("-", MINUS)
