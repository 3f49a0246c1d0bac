"""Anomaly correlation: <fa oa> / sqrt(<fa^2> <oa^2>), fa = f - c, oa = o - c, anomalies not centred.

Pooled, the means run over area and initial times before the ratio is taken (WeatherBench-X); with `by_init` the
ratio is taken for each initial time and then averaged (WeatherBench 2: Rasp et al. 2024, arXiv 2308.15560).
The climatology c is that of the valid time.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.deterministic import anomalies, anomaly_correlation
from emulators.scores.interfaces import Metric, Product


class ACC(Metric):
    """Compute the anomaly correlation.

    by_init: take the ratio of each initial time's area means, then the mean over initial times.
    """

    needs = ("mean",)
    vector = True
    perfect = 1.0

    def __init__(self, *, by_init: bool = False) -> None:
        self.by_init = by_init
        self.definition = (
            "mean over inits of the correlation of anomalies of each init (WeatherBench 2)"
            if by_init
            else "correlation of anomalies pooled over inits and area (WeatherBench-X)"
        )

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Product]:
        """Return pointwise terms, each of the shape of `target`."""
        forecast, truth = anomalies(prediction, target, climatology["mean"])
        return {
            "anomaly_product": Product(forecast, truth),
            "forecast_anomaly_square": Product(forecast, forecast),
            "true_anomaly_square": Product(truth, truth),
        }

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return anomaly_correlation(
            means["anomaly_product"], means["forecast_anomaly_square"], means["true_anomaly_square"]
        )
