"""Write drivers and fields as few numbers a year: global series as they are, maps by their leading patterns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emulators.projections.scenarios import Scenario, ScenarioSet
from emulators.statistics.patterns import Patterns


class Predictors:
    """Turn the drivers of scenarios into standardised columns, fitted to those of training.

    modes: patterns of each driver that has maps. drivers: their names; None: all.
    """

    def __init__(self, data: ScenarioSet, modes: int, drivers: Sequence[str] | None = None) -> None:
        first = data.training[0].drivers
        self.drivers = list(first) if drivers is None else list(drivers)
        data.driver_means(data.training[0], self.drivers)  # refuses unknown ones
        self.patterns = {
            name: Patterns(np.concatenate([scenario.drivers[name] for scenario in data.training]), data.weights, modes)
            for name in self.drivers
            if first[name].ndim == 3
        }
        columns = np.concatenate([self._columns(scenario) for scenario in data.training])
        self.mean, spread = columns.mean(axis=0), columns.std(axis=0)
        self.spread = np.where(spread > 0.0, spread, 1.0)

    def __call__(self, scenario: Scenario) -> np.ndarray:
        """Return the predictors of every year, (year, predictor), float64."""
        return (self._columns(scenario) - self.mean) / self.spread

    def _columns(self, scenario: Scenario) -> np.ndarray:
        columns = []
        for name in self.drivers:
            series = scenario.drivers[name]
            pattern = self.patterns.get(name)
            columns.append(series[:, None] if pattern is None else pattern.coefficients(series))
        return np.concatenate(columns, axis=1).astype(np.float64)

    def of_training(self, data: ScenarioSet) -> np.ndarray:
        """Return the predictors of all years of training, (sample, predictor)."""
        return np.concatenate([self(scenario) for scenario in data.training])
