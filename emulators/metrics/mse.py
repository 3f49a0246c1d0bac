"""Mean squared error: <(f - o)^2>, mean over area and initial times (Rasp et al. 2024, arXiv 2308.15560).

For a vector the squares of its components are added: the wind-vector error of WeatherBench 2.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.deterministic import error
from emulators.scores.interfaces import Metric, Product


class MSE(Metric):
    """Compute the mean squared error, in the square of the variable's units."""

    vector = True
    exponent = 2
    definition = "mean over inits and area of (forecast - truth)^2"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Product]:
        """Return pointwise terms, each of the shape of `target`."""
        difference = error(prediction, target)
        return {"squared_error": Product(difference, difference)}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return means["squared_error"]
