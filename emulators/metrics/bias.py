"""Bias: <f - o>, forecast minus truth, mean over area and initial times (Rasp et al. 2024, arXiv 2308.15560)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.deterministic import error
from emulators.scores.interfaces import Metric


class Bias(Metric):
    """Compute the mean error, positive if the forecast is too high, in the variable's units."""

    exponent = 1
    definition = "mean over inits and area of forecast - truth"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return pointwise terms, each of the shape of `target`."""
        return {"error": error(prediction, target)}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return means["error"]
