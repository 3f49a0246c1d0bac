"""CRPS of a normal distribution with the mean and the variance of the ensemble (`GaussianCRPS` of WeatherBench 2).

    s [z (2 Phi(z) - 1) + 2 phi(z) - 1/sqrt(pi)],   z = (y - mean x) / s,   s^2 = V, divided by M - 1

Gneiting et al. 2005, doi 10.1175/MWR2904.1.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.ensemble import gaussian_crps, variance
from emulators.scores.interfaces import Metric


class GaussianCRPS(Metric):
    """Compute the CRPS of a normal distribution; at points where all members agree, the absolute error."""

    members = 2
    moments = True
    exponent = 1
    definition = "CRPS of the normal distribution with the ensemble's mean and variance (M - 1)"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return pointwise terms, each of the shape of `target`."""
        mean, std = prediction.mean(dim=0), variance(prediction).sqrt()
        crps = gaussian_crps(mean, std, target)
        return {"gaussian_crps": crps.where(std != 0.0, (mean - target).abs())}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return means["gaussian_crps"]
