"""Bias: <f - o>, forecast minus truth, mean over area and initial times (Rasp et al. 2024, arXiv 2308.15560)."""

from __future__ import annotations

from torch import Tensor

from emulators.scores import error


class Bias:
    """Mean error, positive where the forecast is too high, in the variable's units."""

    needs_climatology = False
    by_init = False
    perfect = 0.0
    exponent = 1
    definition = "mean over inits and area of forecast - truth"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Tensor | None = None) -> dict[str, Tensor]:
        """Pointwise terms, each of the shape of `prediction`."""
        return {"error": error(prediction, target)}

    def value(self, means: dict[str, Tensor]) -> Tensor:
        """The score from the means of the terms."""
        return means["error"]
