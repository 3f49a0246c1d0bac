"""Relative economic value: what a user saves who protects at a cost C against a loss L, as a share of what is possible.

With s the frequency of the event, a and b the shares of hits and false alarms of "k of M members or more", r = C/L:

    V = max over k of (min(r, s) - [r (a + b) + s - a]) / (min(r, s) - r s)

1 for perfect forecasts; 0 for those worth no more than the climatological frequency. The event is that the field
exceeds a climatological quantile of the valid time, or an amount. Richardson 2000, doi 10.1002/qj.49712656313.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from emulators.scores.events import Threshold, economic_value, event
from emulators.scores.interfaces import Metric


class EconomicValue(Metric):
    """Compute the relative economic value of an ensemble, at the probability that serves the user best.

    quantile, threshold, gaussian: as in `EventScore`. cost_loss: the ratio of cost to loss, between 0 and 1.
    """

    members = 1
    perfect = 1.0

    def __init__(
        self,
        *,
        quantile: float | None = None,
        threshold: float | None = None,
        gaussian: bool = False,
        cost_loss: float = 0.2,
    ) -> None:
        if not 0.0 < cost_loss < 1.0:
            raise ValueError(f"The ratio of cost to loss lies between 0 and 1; got {cost_loss}.")
        self.threshold, self.ratio = Threshold(quantile, threshold, gaussian), cost_loss
        self.needs = self.threshold.needs
        self.definition = f"relative economic value of {self.threshold}, cost/loss {cost_loss:g}, best probability"
        self.names = tuple(f"{term} {self.threshold}" for term in ("hits of k", "alarms of k", "frequency"))

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return hits and alarms at each number of members k = 1..M, (member, ...), and the event itself."""
        limit = self.threshold.field(climatology)
        count, truth = event(prediction, limit).sum(dim=0), event(target, limit)
        least = torch.arange(1, prediction.shape[0] + 1, dtype=truth.dtype, device=truth.device)
        alarm = (count >= least.view(-1, *(1,) * truth.ndim)).to(truth.dtype) + 0.0 * (count + truth)
        return dict(zip(self.names, (alarm * truth, alarm, truth + 0.0 * count), strict=True))

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        hits, alarms, frequency = (means[name] for name in self.names)
        return economic_value(hits, alarms, frequency, self.ratio)
