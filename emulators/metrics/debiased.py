"""Error of the ensemble mean without the effect of finite size: <(mean x - y)^2 - V/M>, V the variance of the members.

On average this is the squared error of the mean of infinitely many members: `debiased_ensemble_mean_mse` of
WeatherBench 2, `UnbiasedEnsembleMeanRMSE` of WeatherBench-X. Not debiased, the error of the ensemble mean is `mse` and
`rmse`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.ensemble import debiased_squared_error
from emulators.scores.interfaces import Metric


class DebiasedError(Metric):
    """Compute the debiased error of the ensemble mean.

    root: take the root of the mean, in the variable's units; else the result is in their square.
    """

    members = 2
    vector = True

    def __init__(self, *, root: bool = True) -> None:
        self.root, self.exponent = root, 1 if root else 2
        square = "(ensemble mean - truth)^2 - variance / M"
        self.definition = f"sqrt(mean of {square})" if root else f"mean of {square}"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return pointwise terms, each of the shape of `target`."""
        return {"debiased_squared_error": debiased_squared_error(prediction, target)}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms; the root of a negative mean is NaN."""
        return means["debiased_squared_error"].sqrt() if self.root else means["debiased_squared_error"]
