"""Brier score: <(p - o)^2> of the event "the field exceeds a threshold", p the share of members that do.

o is 1 if the event occurred, else 0. Debiased by p (1 - p) / (M - 1), it does not penalise an ensemble for its finite
size (Ferro 2014, doi 10.1002/qj.2270). The threshold is a climatological quantile of the valid time, or an amount.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.events import Threshold, brier, debiased_brier, event
from emulators.scores.interfaces import Metric


class Brier(Metric):
    """Compute the Brier score of an event.

    quantile, threshold, gaussian: as in `EventScore`. debiased: remove the effect of the ensemble's finite size.
    """

    def __init__(
        self,
        *,
        quantile: float | None = None,
        threshold: float | None = None,
        gaussian: bool = False,
        debiased: bool = False,
    ) -> None:
        self.threshold, self.debiased = Threshold(quantile, threshold, gaussian), debiased
        self.members, self.needs = 2 if debiased else 1, self.threshold.needs
        self.name = f"{'debiased ' if debiased else ''}brier {self.threshold}"
        self.definition = f"{'debiased ' if debiased else ''}Brier score of {self.threshold}"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return pointwise terms, each of the shape of `target`."""
        limit = self.threshold.field(climatology)
        score = debiased_brier if self.debiased else brier
        return {self.name: score(event(prediction, limit), event(target, limit))}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return means[self.name]
