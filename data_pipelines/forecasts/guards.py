"""Guards: what is done about forecasts that a run should not be trusted with.

Dates seen in training flatter, analyses unlike those of training mislead (`data_pipelines.forecasts.analyses`), and so
do forcing that the future alone knows and a forecast that drifts from training (`data_pipelines.forecasts.checks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_pipelines.batches.seen import SeenDates, overlaps
from data_pipelines.conventions.durations import length

Mode = Literal["mark", "refuse", "ignore"]
Marks = dict[str, list[str]]  # kind of guard -> sentences
KINDS = ("training_dates", "ranges", "future_forcing", "drift")


@dataclass(frozen=True)
class Guards:
    """Say what is done about a forecast that its run should not be trusted with: mark, refuse, or ignore it.

    training_dates: it is of dates that the run was trained on, or within `adjacent` of them. ranges: the analysis it
    starts from is unlike those of training. future_forcing: it reads what is known only after it is made. drift: it
    leaves the values, the area means or the power at small scales of training on its way; refuse: it stops there.
    """

    training_dates: Mode = "mark"
    ranges: Mode = "mark"
    future_forcing: Mode = "mark"
    drift: Mode = "mark"
    adjacent: str = "5d"

    def __post_init__(self) -> None:
        for kind in KINDS:
            if self.mode(kind) not in ("mark", "refuse", "ignore"):
                raise ValueError(f"guards.{kind}: expected mark, refuse or ignore; got '{self.mode(kind)}'.")

    def mode(self, kind: str) -> str:
        """Return what is done about one of KINDS."""
        return str(vars(self)[kind])

    def on_dates(self, seen: SeenDates, inits: np.ndarray, longest: np.timedelta64) -> list[str]:
        """Return a sentence for each way in which forecasts are of dates that the run has seen."""
        return [] if self.training_dates == "ignore" else overlaps(seen, inits, longest, length(self.adjacent))

    def allowed(self, marks: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the sentences that are only marked; ValueError with those whose guard refuses."""
        for kind in KINDS:
            if self.mode(kind) == "refuse" and marks.get(kind):
                raise ValueError(f"{' '.join(marks[kind])} guards.{kind}=mark goes on and says so in the results.")
        return [line for kind in KINDS if self.mode(kind) == "mark" for line in marks.get(kind, ())]
