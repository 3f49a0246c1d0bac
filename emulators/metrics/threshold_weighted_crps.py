"""Threshold-weighted CRPS: the CRPS of the part of a field beyond a threshold, proper for forecasts of extremes.

    twCRPS = E|v(X) - v(y)| - c/2 E|v(X) - v(X')|,   v(x) = max(x, t), or min(x, t) for the lower tail

Gneiting & Ranjan 2011, doi 10.1198/jbes.2010.08110; v: Allen, Ginsbourger & Ziegel 2023, doi 10.1137/22M1532184. The
threshold t is a climatological quantile of the valid time, or an amount.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from emulators.scores.ensemble import beyond, mean_difference
from emulators.scores.events import Threshold
from emulators.scores.interfaces import Metric


class ThresholdWeightedCRPS(Metric):
    """Compute the fair CRPS of an ensemble beyond a threshold.

    quantile, threshold, gaussian: as in `EventScore`. tail: upper or lower.
    """

    members = 2
    exponent = 1

    def __init__(
        self,
        *,
        quantile: float | None = None,
        threshold: float | None = None,
        gaussian: bool = False,
        tail: Literal["upper", "lower"] = "upper",
    ) -> None:
        if tail not in ("upper", "lower"):
            raise ValueError(f"`tail` is upper or lower; got '{tail}'.")
        self.threshold, self.tail = Threshold(quantile, threshold, gaussian), tail
        self.needs = self.threshold.needs
        place = str(self.threshold) if tail == "upper" else str(self.threshold).replace("above", "below")
        self.definition = f"E|v(X) - v(y)| - E|v(X) - v(X')| / 2, fair, v the field where it is {place}"
        self.names = tuple(f"{term} {place}" for term in ("absolute_member_error", "mean_difference"))

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return pointwise terms, each of the shape of `target`."""
        limit, upper = self.threshold.field(climatology), self.tail == "upper"
        error = beyond(prediction, limit, upper) - beyond(target, limit, upper)
        return dict(zip(self.names, (error.abs().mean(dim=0), mean_difference(error)), strict=True))

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        error, spread = (means[name] for name in self.names)
        return error - 0.5 * spread
