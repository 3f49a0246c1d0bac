"""Note what scores cannot say: values of a forecast and its truth that are missing, or that no such variable has.

They are told with variable, time and place after the scoring. The sums add up as those of scores do.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from data_pipelines.reading.plausibility import ChannelLimits
from emulators.grid import LatLonGrid, place_text
from emulators.scores.interfaces import Pair
from emulators.variables import VariableSet

SIDES = ("forecast", "truth")
NEVER = np.iinfo(np.int64).max


class OddValues:
    """Count missing and impossible values of each channel, and keep the first of each kind.

    Arrays have shape (side, kind, channel), kinds missing and impossible; `first` has a last axis of valid time in
    seconds, initial time in seconds (of the truth: the same as the valid time), row and column.
    """

    def __init__(
        self, variables: VariableSet, grid: LatLonGrid, ranges: Mapping[str, tuple[float, float]] | None = None
    ) -> None:
        self.variables, self.grid = variables, grid
        self.limits = ChannelLimits(variables, ranges, learning=False)
        shape = (len(SIDES), 2, variables.size)
        self.count = np.zeros(shape, dtype=np.int64)
        self.first = np.full((*shape, 4), NEVER, dtype=np.int64)
        self.value = np.full(shape, np.nan)

    def add(self, pair: Pair) -> None:
        """Add forecasts of one lead and their truth."""
        for side, state in enumerate((pair.target, pair.prediction)):
            values = state.values if state.values.ndim == 4 else state.values.flatten(0, -5)
            self._add(1 - side, values, pair)

    def _add(self, side: int, values: torch.Tensor, pair: Pair) -> None:
        """Add fields (..., init, channel, lat, lon) of one side."""
        least, greatest = values.amin((-2, -1)).cpu().numpy(), values.amax((-2, -1)).cpu().numpy()
        odd = ~((least >= self.limits.low) & (greatest <= self.limits.high))  # NaN is odd
        for place in np.argwhere(odd):
            field = values[tuple(place.tolist())].float().cpu().numpy()
            init, channel = int(place[-2]), int(place[-1])
            missing = ~np.isfinite(field)
            if missing.any():
                self._note((side, 0, channel), missing, field, pair, init)
                field = np.where(missing, np.nanmedian(field) if not missing.all() else np.nan, field)
            if not missing.all() and (beyond := self.limits.beyond(field, channel)) is not None:
                self._note((side, 1, channel), beyond, field, pair, init)

    def _note(self, at: tuple[int, int, int], where: np.ndarray, field: np.ndarray, pair: Pair, init: int) -> None:
        self.count[at] += int(where.sum())
        row, column = np.argwhere(where)[0]
        valid = int(pair.target.time[init].astype("datetime64[s]").astype(np.int64))
        begun = int(pair.inits[init].astype("datetime64[s]").astype(np.int64)) if at[0] == 0 else valid
        found = np.array([valid, begun, row, column])
        if found.tolist() < self.first[at].tolist():
            self.first[at], self.value[at] = found, field[row, column]

    def partial(self) -> dict[str, np.ndarray]:
        """Return the counts so far as arrays."""
        return {"count": self.count.copy(), "first": self.first.copy(), "value": self.value.copy()}

    def add_partial(self, partial: Mapping[str, np.ndarray]) -> OddValues:
        """Add the counts of other pairs."""
        self.count += partial["count"]
        for at in np.ndindex(self.count.shape):
            if partial["first"][at].tolist() < self.first[at].tolist():
                self.first[at], self.value[at] = partial["first"][at], partial["value"][at]
        return self

    def notes(self, missing: str) -> list[str]:
        """Return a sentence for each variable, side and kind. missing: how these are treated (`Evaluation`)."""
        return [
            self._sentence(side, kind, variable.name, missing)
            for kind in (0, 1)
            for side in (0, 1)
            for variable in self.variables
            if self.count[side, kind, self.variables.slice(variable.name)].any()
            and not self._usual(side, kind, missing)
        ]

    @staticmethod
    def _usual(side: int, kind: int, missing: str) -> bool:
        """Return whether nothing is to be told: missing values that are left out as agreed."""
        return kind == 0 and (missing == "any" or (missing == "truth" and SIDES[side] == "truth"))

    def _sentence(self, side: int, kind: int, name: str, missing: str) -> str:
        part = self.variables.slice(name)
        channels = np.flatnonzero(self.count[side, kind, part]) + part.start
        channel = min(channels.tolist(), key=lambda c: self.first[side, kind, c].tolist())
        valid, begun, row, column = self.first[side, kind, channel].tolist()
        when = f"at {np.datetime64(valid, 's')}" + (f" (from {np.datetime64(begun, 's')})" if side == 0 else "")
        where = f"{place_text(self.grid, row, column)}, {when}"
        count, label = int(self.count[side, kind, part].sum()), self.variables.channels[channel]
        if kind == 0:
            return (
                f"{name}: {count} values of the {SIDES[side]} are missing, the first of {label} at {where}; scores "
                "that need them are missing too. missing=any leaves such points out."
            )
        units = self.variables.variable(name).units
        return (
            f"{name}: {count} values of the {SIDES[side]} are {self.limits.reason(channel)}, the first {label} = "
            f"{self.value[side, kind, channel]:g} {units}".rstrip()
            + f" at {where}. They are scored as they are: a number in place of missing values, other units, or a "
            "broken forecast."
        )
