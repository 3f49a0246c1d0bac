"""Ridge regression of every cell on all drivers at once, solved in closed form.

    y_i(t) = b_i + w_i . x(t),    w_i = argmin  sum_t (y_i - b_i - w_i . x)^2 + penalty |w_i|^2

Hoerl & Kennard 1970, doi 10.1080/00401706.1970.10488634.
"""

from __future__ import annotations

import numpy as np

from emulators.projections.predictors import Predictors
from emulators.projections.scenarios import Scenario, ScenarioSet


class Ridge:
    """Regress on standardised drivers. penalty: of the squared weights. modes: patterns of each driver with maps."""

    def __init__(self, *, penalty: float = 1.0, modes: int = 5) -> None:
        if penalty < 0.0:
            raise ValueError(f"projection.ridge.penalty should not be negative; got {penalty}.")
        self.penalty, self.modes = penalty, modes
        self.predictors: Predictors | None = None
        self.mean, self.weights = np.zeros((0, 0)), np.zeros((0, 0, 0))

    def fit(self, data: ScenarioSet, variable: str) -> None:
        """Solve the normal equations of all cells at once."""
        self.predictors = Predictors(data, self.modes)
        inputs, targets = self.predictors.of_training(data), data.targets(variable)
        self.mean = targets.mean(axis=0)  # the inputs have none
        matrix = inputs.T @ inputs + self.penalty * np.eye(inputs.shape[1])
        flat = (targets - self.mean).reshape(len(targets), -1)
        self.weights = np.linalg.lstsq(matrix, inputs.T @ flat, rcond=None)[0].reshape(-1, *self.mean.shape)

    def project(self, data: ScenarioSet, scenario: Scenario) -> np.ndarray:
        """Return the maps, (year, lat, lon)."""
        assert self.predictors is not None, "fit before project"
        return self.mean + np.tensordot(self.predictors(scenario), self.weights, axes=1)
