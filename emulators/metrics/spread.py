"""Spread of an ensemble: sqrt(<V>), V the variance of the members about their mean, divided by M - 1.

The root comes after the mean over area and initial times, comparable with the RMSE of the ensemble mean; with `by_init`
it is taken for each initial time (`ensemble_stddev_sqrt_before_time_avg` of WeatherBench 2).
Fortin et al. 2014, doi 10.1175/JHM-D-14-0008.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from emulators.scores.ensemble import variance
from emulators.scores.interfaces import Metric


class Spread(Metric):
    """Compute the spread of an ensemble.

    squared: the mean variance itself. by_init: take the root of each initial time's area mean, then the mean over them.
    """

    members = 2
    moments = True
    vector = True
    perfect = math.nan

    def __init__(self, *, squared: bool = False, by_init: bool = False) -> None:
        self.squared, self.by_init, self.exponent = squared, by_init, 2 if squared else 1
        self.definition = (
            "mean variance of the members, M - 1" if squared else "sqrt(mean variance of the members, M - 1)"
        )
        if by_init:
            self.definition += ", of each init"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return pointwise terms, each of the shape of `target`."""
        return {"variance": variance(prediction) + 0.0 * target}  # missing where the truth is, as every score

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return means["variance"] if self.squared else means["variance"].sqrt()
