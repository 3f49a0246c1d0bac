"""Pattern scaling in two stages: drivers to the global mean of one variable, and that to every cell.

    T(t) = a . x(t) + b,    y_i(t) = sum_k c_ki T(t)^k

Both stages are least squares over the years of training, the second on the simulated T. Santer et al. 1990; as a
baseline of ClimateBench Lütjens et al. 2025, doi 10.1029/2024MS004619, arXiv 2408.05288.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emulators.projections.scenarios import Scenario, ScenarioSet


class PatternScaling:
    """Scale a pattern with a global mean. drivers: names of the x, by their area means. index: the variable of T.

    degree: of the polynomial of each cell.
    """

    def __init__(self, *, drivers: Sequence[str] = ("CO2",), index: str = "tas", degree: int = 1) -> None:
        if degree < 1:
            raise ValueError(f"projection.pattern_scaling.degree should be at least 1; got {degree}.")
        self.drivers, self.index, self.degree = list(drivers), index, degree
        self.slopes, self.intercept = np.zeros(len(self.drivers)), 0.0
        self.pattern = np.zeros((0, 0, 0))

    def fit(self, data: ScenarioSet, variable: str) -> None:
        """Fit both stages; ValueError where the variable of the first is not there."""
        if self.index not in data.variables:
            raise ValueError(
                f"projection.pattern_scaling.index={self.index} is no variable of the scenarios; "
                f"take one of {', '.join(data.variables)}."
            )
        inputs = np.concatenate([data.driver_means(scenario, self.drivers) for scenario in data.training])
        index = data.area_mean(data.targets(self.index))
        centre = inputs.mean(axis=0)
        self.slopes = np.linalg.lstsq(inputs - centre, index - index.mean(), rcond=None)[0]
        self.intercept = float(index.mean() - centre @ self.slopes)
        targets = data.targets(variable)
        coefficients = np.polyfit(index, targets.reshape(len(targets), -1), self.degree)
        self.pattern = coefficients.reshape(self.degree + 1, *targets.shape[1:])

    def project(self, data: ScenarioSet, scenario: Scenario) -> np.ndarray:
        """Return the maps, (year, lat, lon)."""
        index = data.driver_means(scenario, self.drivers) @ self.slopes + self.intercept
        return np.polyval(self.pattern, index[:, None, None])
