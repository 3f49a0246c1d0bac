"""Limits of what the channels of fields may hold, so that a number in place of a missing value is not taken for data.

A variable keeps to its physical range, if it says its units; one whose range is unknown keeps to the values of the
fields read before, and of those to what does not lie apart from the rest (`emulators.statistics.outliers`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import xarray as xr

from emulators.physics.physical_ranges import plausible_range
from emulators.statistics.outliers import margin, usual_range
from emulators.variables import Variable, VariableSet

LARGEST = float(np.finfo(np.float32).max)


class ChannelLimits:
    """Keep the least and greatest value of each channel, float32 (channel,), and learn those that are unknown.

    ranges: bounds by variable name that override the table of physical ranges. learning: a variable whose first field
    varies and is for the most part beyond its range, as in simple models, is taken for one of unknown range.
    """

    def __init__(
        self, variables: VariableSet, ranges: Mapping[str, tuple[float, float]] | None = None, *, learning: bool = True
    ) -> None:
        found = [_range(v, ranges or {}) for v in variables for _ in v.channels]
        self.learning, self.proven = learning, np.zeros(len(found), dtype=bool)
        self.known = np.array([limits is not None for limits in found], dtype=bool)
        bounds = np.array([limits or (np.inf, -np.inf) for limits in found], dtype=np.float32).reshape(-1, 2)
        self.low, self.high = bounds.T.copy()
        self._first: dict[int, np.ndarray] = {}  # what the values of unknown channels are compared with

    def hold(self, fields: np.ndarray, channels: slice | int = slice(None)) -> bool:
        """Return whether fields (channel, lat, lon) of these channels are finite and within their limits.

        channels: an int for a field (lat, lon).
        """
        least, greatest = fields.min(axis=(-2, -1)), fields.max(axis=(-2, -1))
        held = bool(np.all(least >= self.low[channels]) and np.all(greatest <= self.high[channels]))
        if held:
            self.proven[channels] = True
        return held

    def beyond(self, field: np.ndarray, channel: int) -> np.ndarray | None:
        """Return where a finite field (lat, lon) is beyond its limits; None where it is not, which is learnt from."""
        low, high = float(self.low[channel]), float(self.high[channel])
        if field.min() >= low and field.max() <= high:
            return None
        if self.learning and self.known[channel] and not self.proven[channel]:
            self.known[channel] = low <= float(np.median(field)) <= high or not np.ptp(field)
            if not self.known[channel]:
                self.low[channel], self.high[channel] = np.inf, -np.inf
        if not self.known[channel]:
            low, high = self._usual(field, channel)
        apart = (field < low) | (field > high)
        return apart if apart.any() else None

    def reason(self, channel: int) -> str:
        """Return in words what is wrong with a value beyond the limits of a channel."""
        low, high = self.low[channel], self.high[channel]
        return f"beyond the physical range {low:g} to {high:g}" if self.known[channel] else "far from all other values"

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
    told = variable.units or variable.name in ranges
    return plausible_range(variable.name, variable.units, ranges) if told else None


def declared_ranges(dataset: xr.Dataset) -> dict[str, tuple[float, float]]:
    """Return the ranges that a dataset declares for its variables, by name."""
    said = json.loads(str(dataset.attrs.get("ranges") or "{}"))
    return {str(name): (float(low), float(high)) for name, (low, high) in said.items()}
