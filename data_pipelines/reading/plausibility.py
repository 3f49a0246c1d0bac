"""Limits of what the channels of fields may hold, so that a number in place of a missing value is not taken for data.

A variable keeps to its physical range, if it says its units; one whose range is unknown keeps to the values of the
fields read before, and of those to what does not lie apart from the rest (`data_pipelines.reading.plausibility`).

Find values that lie apart from the rest of a field, such as a number that stands for a missing value.

    gap > max(30 s, 2 r),    s = 1.4826 median |x - median x|,    r = max x - min x    of the rest

s is the standard deviation where more than half of the rest are the same. A heavy tail has no such gap, since its
values come ever closer to the rest; two values alone, as of a mask, are not judged. Robust spread: Rousseeuw & Croux
(1993, doi:10.1080/01621459.1993.10476408).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import xarray as xr

from emulators.physics.physical_ranges import canonical_units, plausible_range
from emulators.variables import Variable, VariableSet

DEVIATIONS, SPANS = 30.0, 2.0
# Units that are called by others' names, and what leads from the first to the second: degC that is called K.
MISTAKEN = {
    "K": ("degC", 1.0, 273.15),
    "Pa": ("hPa", 100.0, 0.0),
    "m2 s-2": ("m", 9.80665, 0.0),
    "kg kg-1": ("g kg-1", 1e-3, 0.0),
}


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


VARIED = 0.06
LARGEST = float(np.finfo(np.float32).max)


class ChannelLimits:
    """Keep the least and greatest value of each channel, float32 (channel,), and learn those that are unknown.

    ranges: bounds by variable name that override the table of physical ranges. learning: a variable whose first field
    varies and is for the most part beyond its range, as in simple models, is taken for one of unknown range; but for
    one that another unit would bring into its range, as degC called K.
    """

    def __init__(
        self, variables: VariableSet, ranges: Mapping[str, tuple[float, float]] | None = None, *, learning: bool = True
    ) -> None:
        channel_ranges = [_range(v, ranges or {}) for v in variables for _ in v.channels]
        self.units = [v.units for v in variables for _ in v.channels]
        self.learning, self.proven = learning, np.zeros(len(channel_ranges), dtype=bool)
        self.bounded = np.array([limits is not None for limits in channel_ranges], dtype=bool)
        bounds = np.array([limits or (np.inf, -np.inf) for limits in channel_ranges], dtype=np.float32).reshape(-1, 2)
        self.low, self.high = bounds.T.copy()
        self._first: dict[int, np.ndarray] = {}  # what the values of unknown channels are compared with

    def hold(self, fields: np.ndarray, channels: slice | int = slice(None)) -> bool:
        """Return whether fields (channel, *grid) of these channels are finite and within their limits.

        channels: an int for a field (*grid).
        """
        axes = tuple(range(0 if isinstance(channels, int) else 1, fields.ndim))
        least, greatest = fields.min(axis=axes), fields.max(axis=axes)
        within = bool(np.all(least >= self.low[channels]) and np.all(greatest <= self.high[channels]))
        if within:
            self.proven[channels] = True
        return within

    def beyond(self, field: np.ndarray, channel: int) -> np.ndarray | None:
        """Return where a finite field (lat, lon) is beyond its limits; None where it is not, which is learnt from."""
        low, high = float(self.low[channel]), float(self.high[channel])
        if field.min() >= low and field.max() <= high:
            return None
        if self.learning and self.bounded[channel] and not self.proven[channel]:
            usual = low <= float(np.median(field)) <= high
            self.bounded[channel] = usual or not np.ptp(field) or bool(self.other_units(channel, field))
            if not self.bounded[channel]:
                self.low[channel], self.high[channel] = np.inf, -np.inf
        if not self.bounded[channel]:
            low, high = self._usual(field, channel)
        outside = (field < low) | (field > high)
        return outside if outside.any() else None

    def reason(self, channel: int) -> str:
        """Return in words what is wrong with a value beyond the limits of a channel."""
        low, high = self.low[channel], self.high[channel]
        return (
            f"beyond the physical range {low:g} to {high:g}" if self.bounded[channel] else "far from all other values"
        )

    def other_units(self, channel: int, field: np.ndarray) -> str:
        """Return the units that would bring a field beyond its range into it; empty where none would.

        A field that then varies by less than VARIED of the range is taken for one of a simple model.
        """
        unit = canonical_units(self.units[channel])
        mistaken, factor, offset = MISTAKEN.get(unit, ("", 0.0, 0.0))
        low, high = self.low[channel], self.high[channel]
        least, greatest = (factor * float(value) + offset for value in (field.min(), field.max()))
        is_within = mistaken and low <= least and greatest <= high and greatest - least > VARIED * (high - low)
        is_within = is_within and not low <= float(np.median(field)) <= high
        return f"{mistaken} -> {unit}" if is_within else ""

    def _usual(self, field: np.ndarray, channel: int) -> tuple[float, float]:
        """Return the range of what does not lie apart, together with the first field of the channel."""
        first = self._first.setdefault(channel, field.copy())
        together = np.concatenate([first.reshape(-1), field.reshape(-1)])
        low, high = usual_range(together)
        within = together[(together >= low) & (together <= high)]
        room = margin(within)
        room = room if np.isfinite(room) else 0.0  # nothing is known of a constant
        self.low[channel] = max(min(float(self.low[channel]), low - room), -LARGEST)
        self.high[channel] = min(max(float(self.high[channel]), high + room), LARGEST)
        return low, high


def _range(variable: Variable, ranges: Mapping[str, tuple[float, float]]) -> tuple[float, float] | None:
    """Return the range of a variable; None if it is unknown, as where units are."""
    identified = variable.units or variable.name in ranges
    return plausible_range(variable.name, variable.units, ranges) if identified else None


def declared_ranges(dataset: xr.Dataset) -> dict[str, tuple[float, float]]:
    """Return the ranges that a dataset declares for its variables, by name."""
    declared = json.loads(str(dataset.attrs.get("ranges") or "{}"))
    return {str(name): (float(low), float(high)) for name, (low, high) in declared.items()}
