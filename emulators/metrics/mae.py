"""Mean absolute error: <|f - o|>, mean over area and initial times (Rasp et al. 2024, arXiv 2308.15560)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.deterministic import absolute_error
from emulators.scores.interfaces import Metric


class MAE(Metric):
    """Compute the mean absolute error, in the variable's units."""

    exponent = 1
    definition = "mean over inits and area of |forecast - truth|"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return pointwise terms, each of the shape of `target`."""
        return {"absolute_error": absolute_error(prediction, target)}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return means["absolute_error"]
