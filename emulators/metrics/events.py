"""Scores of an event, "the field exceeds a threshold", from the table of hits, false alarms, misses and the rest.

CSI, ETS, frequency bias, recall, precision, F1, HSS, SEDI: formulas in `emulators.scores.events`. The table holds means
over area and initial times (WeatherBench-X). The threshold is a climatological quantile of the valid time or an amount.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.events import COUNTS, TABLE_SCORES, Threshold, contingency, event
from emulators.scores.interfaces import Metric


class EventScore(Metric):
    """Compute a score of an event from its contingency table.

    score: csi, ets, frequency_bias, recall, precision, f1, hss or sedi. quantile: that of the climatology at the valid
    time; gaussian: computed from its mean and standard deviation. threshold: an amount in the variable's units, instead
    of the quantile.
    """

    perfect = 1.0

    def __init__(
        self, *, score: str, quantile: float | None = None, threshold: float | None = None, gaussian: bool = False
    ) -> None:
        if score not in TABLE_SCORES:
            raise ValueError(f"Scores of events are {', '.join(TABLE_SCORES)}; got '{score}'.")
        self.score, self.threshold = score, Threshold(quantile, threshold, gaussian)
        self.needs, self.definition = self.threshold.needs, f"{score} of forecast and truth {self.threshold}"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return pointwise terms, each of the shape of `target`."""
        limit = self.threshold.field(climatology)
        return dict(zip(self._names, contingency(event(prediction, limit), event(target, limit)), strict=True))

    @property
    def _names(self) -> list[str]:
        return [f"{count} {self.threshold}" for count in COUNTS]

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return TABLE_SCORES[self.score](*(means[name] for name in self._names))
