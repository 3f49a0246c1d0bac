"""Activity: sqrt(<(f - c)^2>), the size of a forecast's anomalies (`PredictionActivity` of WeatherBench-X).

Relative to the truth's, sqrt(<(f - c)^2> / <(o - c)^2>), it is below 1 for blurred forecasts and above 1 for too active
ones. The climatology c is that of the valid time. Rasp et al. 2024, arXiv 2308.15560.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from emulators.scores.deterministic import anomalies
from emulators.scores.interfaces import Metric, Product


class Activity(Metric):
    """Compute the activity of the forecast, with `relative` divided by that of the truth."""

    needs = ("mean",)
    vector = True

    def __init__(self, *, relative: bool = False) -> None:
        self.relative = relative
        self.perfect, self.exponent = (1.0, 0) if relative else (math.nan, 1)
        self.definition = "sqrt(mean over inits and area of (forecast - climatology)^2)"
        if relative:
            self.definition += ", over that of the truth"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Product]:
        """Return pointwise terms, each of the shape of `target`."""
        forecast, truth = anomalies(prediction, target, climatology["mean"])
        return {
            "forecast_anomaly_square": Product(forecast, forecast),
            "true_anomaly_square": Product(truth, truth),
        }

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        square = means["forecast_anomaly_square"]
        return (square / means["true_anomaly_square"] if self.relative else square).sqrt()
