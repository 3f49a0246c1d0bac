"""Scores: the formulas behind losses and metrics, pointwise or on means, free of grids and names.

With forecast f, truth o, climatology c and < > the mean over area and initial times:

    MSE = <(f - o)^2>,   MAE = <|f - o|>,   bias = <f - o>,   RMSE = sqrt(MSE)
    ACC = <(f - c)(o - c)> / sqrt(<(f - c)^2> <(o - c)^2>)        (anomalies are not centred)

Conventions of WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560); ACC after Murphy and Epstein (1989),
doi 10.1175/1520-0493(1989)117<0572:SSACCI>2.0.CO;2.
"""

from __future__ import annotations

from torch import Tensor


def error(prediction: Tensor, target: Tensor) -> Tensor:
    """Forecast minus truth, in the units of the field."""
    return prediction - target


def absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """|forecast - truth|, in the units of the field."""
    return (prediction - target).abs()


def anomalies(prediction: Tensor, target: Tensor, climatology: Tensor) -> tuple[Tensor, Tensor]:
    """Anomalies of the forecast and of the truth, in the units of the field."""
    return prediction - climatology, target - climatology


def anomaly_correlation(product: Tensor, forecast_square: Tensor, true_square: Tensor) -> Tensor:
    """Correlation of anomalies from their mean product and mean squares; NaN where an anomaly is zero everywhere."""
    return product / (forecast_square * true_square).sqrt()


def skill(score, reference, perfect: float = 0.0):
    """1 - |score - perfect| / |reference - perfect|: 1 at a perfect forecast, 0 at the reference's level."""
    return 1.0 - abs(score - perfect) / abs(reference - perfect)
