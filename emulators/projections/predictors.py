"""Write drivers and fields as few numbers a year: global series as they are, maps by their leading patterns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emulators.projections.scenarios import Scenario, ScenarioSet


class Patterns:
    """Hold the leading empirical orthogonal functions of maps, weighted by area (Lorenz 1956).

    maps: (sample, lat, lon). weights: areas, broadcast to (lat, lon). count: the largest number of patterns.
    """

    def __init__(self, maps: np.ndarray, weights: np.ndarray, count: int) -> None:
        self.shape = maps.shape[1:]
        self.root = np.sqrt(np.broadcast_to(weights, self.shape)).ravel()
        self.mean = maps.mean(axis=0).ravel().astype(np.float64)
        rows = (maps.reshape(len(maps), -1) - self.mean) * self.root
        _, sizes, patterns = np.linalg.svd(rows, full_matrices=False)
        count = min(count, int((sizes > 1e-10 * max(sizes[0], 1e-300)).sum()))
        self.patterns = patterns[:count]

    def coefficients(self, maps: np.ndarray) -> np.ndarray:
        """Return the coefficients of maps (sample, lat, lon), (sample, pattern)."""
        return ((maps.reshape(len(maps), -1) - self.mean) * self.root) @ self.patterns.T

    def maps(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the maps of coefficients (sample, pattern); points without area have their mean."""
        divisor = np.where(self.root > 0.0, self.root, np.inf)
        return (coefficients @ self.patterns / divisor + self.mean).reshape(-1, *self.shape)


class Predictors:
    """Turn the drivers of scenarios into standardised columns, fitted to those of training.

    modes: patterns of each driver that has maps. drivers: their names; None: all.
    """

    def __init__(self, data: ScenarioSet, modes: int, drivers: Sequence[str] | None = None) -> None:
        first = data.training[0].drivers
        self.drivers = list(first) if drivers is None else list(drivers)
        data.driver_means(data.training[0], self.drivers)  # refuses unknown ones
        self.patterns = {
            name: Patterns(np.concatenate([one.drivers[name] for one in data.training]), data.weights, modes)
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
