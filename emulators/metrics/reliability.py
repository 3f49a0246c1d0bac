"""Reliability: how often the event occurred when the ensemble gave it the probability k/M, k = 0..M.

On the diagonal if forecast probabilities are right. `sharpness` is the share of the forecasts at each probability,
which a reliability diagram shows too. The event is that the field exceeds a climatological quantile of the valid
time, or an amount. Murphy & Winkler 1977, doi 10.2307/2346866.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from emulators.scores.events import Threshold, event
from emulators.scores.interfaces import Metric


class Reliability(Metric):
    """Compute the observed frequency of an event by its forecast probability.

    quantile, threshold, gaussian: as in `EventScore`. sharpness: compute the share of each probability instead.
    """

    members = 1
    dims = ("probability",)
    perfect = math.nan

    def __init__(
        self,
        *,
        quantile: float | None = None,
        threshold: float | None = None,
        gaussian: bool = False,
        sharpness: bool = False,
    ) -> None:
        self.threshold, self.sharpness = Threshold(quantile, threshold, gaussian), sharpness
        self.needs = self.threshold.needs
        what = "share of forecasts" if sharpness else "observed frequency"
        self.definition = f"{what} by forecast probability of {self.threshold}"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return 1 at the forecast probability, and the truth there, (member + 1, ...) each."""
        limit = self.threshold.field(climatology)
        forecast, truth = event(prediction, limit).sum(dim=0), event(target, limit)
        rank = torch.arange(prediction.shape[0] + 1, dtype=truth.dtype, device=truth.device)
        share = (forecast == rank.view(-1, *(1,) * truth.ndim)).to(truth.dtype) + 0.0 * (forecast + truth)
        return {f"share {self.threshold}": share, f"observed {self.threshold}": share * truth}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        share = means[f"share {self.threshold}"]
        return share if self.sharpness else means[f"observed {self.threshold}"] / share
