"""Error of the ensemble mean without what the finite size adds: <(mean x - y)^2 - V/M>, V the variance of the members.

In the mean this is the squared error of the mean of infinitely many members: `debiased_ensemble_mean_mse` of
WeatherBench 2, `UnbiasedEnsembleMeanRMSE` of WeatherBench-X. Plain, the error of the ensemble mean is `mse` and `rmse`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.ensemble import debiased_squared_error
from emulators.scores.interfaces import Metric


class DebiasedError(Metric):
    """root: of the mean, in the variable's units; else in their square."""

    members = 2
    vector = True

    def __init__(self, *, root: bool = True) -> None:
        self.root, self.exponent = root, 1 if root else 2
        square = "(ensemble mean - truth)^2 - variance / M"
        self.definition = f"sqrt(mean of {square})" if root else f"mean of {square}"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Pointwise terms, each of the shape of `target`."""
        return {"debiased_squared_error": debiased_squared_error(prediction, target)}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """The score from the means of the terms; a root of less than nothing is NaN."""
        return means["debiased_squared_error"].sqrt() if self.root else means["debiased_squared_error"]
