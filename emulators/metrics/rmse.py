"""Root-mean-square error: sqrt(<(f - o)^2>), the root after the mean over initial times (ECMWF's convention).

With `by_init` the root is taken for each initial time and then averaged, which gives a smaller number
(`rmse_sqrt_before_time_avg` of WeatherBench 2: Rasp et al. 2024, arXiv 2308.15560).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.deterministic import error
from emulators.scores.interfaces import Metric, Product


class RMSE(Metric):
    """Compute the root-mean-square error.

    by_init: take the root of each initial time's area mean, then the mean over initial times.
    """

    vector = True
    exponent = 1

    def __init__(self, *, by_init: bool = False) -> None:
        self.by_init = by_init
        self.definition = (
            "mean over inits of sqrt(area mean of (forecast - truth)^2)"
            if by_init
            else "sqrt(mean over inits and area of (forecast - truth)^2)"
        )

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Product]:
        """Return pointwise terms, each of the shape of `target`."""
        difference = error(prediction, target)
        return {"squared_error": Product(difference, difference)}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return means["squared_error"].sqrt()
