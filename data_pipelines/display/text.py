"""Format numbers, percentages and lead times, and choose the ticks of axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.verification.score_rows import DAY
from emulators.constants import MONTH

if TYPE_CHECKING:
    from data_pipelines.verification.score_files import EvaluationResults

STEPS = (1, 2, 5, 10, 20, 50)  # percent, as on the score cards of WeatherBench 2
MARKS = {"no": "~", "few": "?"}  # of differences, by verdict
MINUS, DASH = "\u2212", "\u2013"
TITLES = {  # of metrics
    "rmse": "RMSE",
    "mse": "MSE",
    "mae": "Mean absolute error",
    "bias": "Bias",
    "acc": "Anomaly correlation",
    "rmse_by_init": "RMSE, root by init",
    "acc_by_init": "Anomaly correlation by init",
    "crps": "CRPS",
    "spread_skill": "Spread/skill",
}


def metric_title(metric: str) -> str:
    """The name of a metric in a heading."""
    return TITLES.get(metric, metric)


def lead_text(lead: np.timedelta64) -> str:
    """`6 h`, `3 d`, `2 months`, `1 y`."""
    seconds = int(lead.astype("timedelta64[s]").astype(np.int64))
    if seconds >= MONTH and seconds % MONTH == 0:
        months = seconds // MONTH
        return f"{months // 12} y" if months % 12 == 0 else f"{months} month{'s' if months > 1 else ''}"
    return f"{seconds // DAY} d" if seconds % DAY == 0 else f"{seconds / 3600:g} h"


def moment(time: np.datetime64) -> str:
    """`2004-07-04 18 UTC`, with minutes where there are any."""
    text = np.datetime_as_string(time, "m").replace("T", " ")
    return f"{text.removesuffix(':00')} UTC"


def colour_step(difference: float) -> int:
    """How many of the bounds in STEPS a relative difference reaches, with its sign."""
    reached = sum(abs(difference) * 100 >= bound for bound in STEPS)
    return reached if difference > 0 else -reached


def number(value: float) -> str:
    """A number with three significant digits."""
    if not np.isfinite(value):
        return DASH
    size = abs(value)
    if size != 0.0 and (size >= 1e5 or size < 1e-3):
        return f"{value:.2e}"
    return f"{value:.0f}" if size >= 100 else f"{value:#.3g}"


def percent(value: float) -> str:
    """A fraction as `+45 %` or `−1.2 %`: whole from 10 % on, one decimal below."""
    if not np.isfinite(value):
        return DASH
    size = min(100 * abs(value), 999)
    text = f"{size:.0f}" if size >= 9.95 else f"{size:.1f}"
    return f"{'±' if float(text) == 0 else '+' if value > 0 else MINUS}{text} %"


def verdict_lines(results: EvaluationResults, metric: str, region: str | None = None) -> list[str]:
    """How many differences to each baseline are significant, alone and together: a sentence each; none if unknown."""
    lines, judged = [], results.differences
    for source in results.sources:
        counts = results.verdict_counts(source, metric, region)
        if judged is None or counts is None:
            continue
        if not counts.judged:
            lines.append(f"{source}: too few initial times to say whether any difference is significant")
            continue
        level = float(judged.attrs["level"])
        together = judged.attrs["false_discovery"] == "true"
        corrected = f", {counts.shown} at a false discovery rate of {100 - level:.3g} %" if together else ""
        alone = f"of {counts.judged} differences {counts.alone} are significant alone at {level:g} %"
        few = f"; {counts.few} more have too few initial times" if counts.few else ""
        lines.append(f"{source}: {alone}{corrected}{few}")
    return lines


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
