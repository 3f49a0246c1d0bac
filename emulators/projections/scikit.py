"""Regressions of scikit-learn from drivers to the leading patterns of a variable: Gaussian process, random forest.

    c(t) = f(x(t)),    y(t) = mean + sum_k c_k(t) pattern_k

The drivers x and the targets are written by few numbers a year (`emulators.projections.predictors`), those of the
targets in units of the spread of the leading one. The kernel of the Gaussian process is a product of Matérn
functions with a length of its own for each driver, plus white noise, its parameters those of the largest likelihood
(Rasmussen & Williams 2006, ISBN 978-0-262-18253-9). Random forests: Breiman 2001, doi 10.1023/A:1010933404324. Both as
in ClimateBench (Watson-Parris et al. 2022, doi 10.1029/2021MS002954). `pip install 'emul[projections]'`.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from emulators.projections.predictors import Predictors
from emulators.projections.scenarios import Scenario, ScenarioSet
from emulators.statistics.patterns import Patterns


class PatternRegression:
    """Fit a regression to the leading patterns of a variable. modes: patterns of each driver with maps. targets: of the
    variable. every: of the years of training that are read.
    """

    regression: Any

    def __init__(self, modes: int, targets: int, every: int = 1) -> None:
        self.modes, self.targets, self.every = modes, targets, every
        self.predictors: Predictors | None = None
        self.patterns: Patterns | None = None
        self.unit = 1.0

    def fit(self, data: ScenarioSet, variable: str) -> None:
        """Fit patterns and regression."""
        self.predictors = Predictors(data, self.modes)
        targets = data.targets(variable)
        self.patterns = Patterns(targets, data.weights, self.targets)
        coefficients = self.patterns.coefficients(targets)
        self.unit = float(coefficients[:, 0].std())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The optimal value found")  # the length of a driver without effect
            self.regression.fit(
                self.predictors.of_training(data)[:: self.every], coefficients[:: self.every] / self.unit
            )

    def project(self, data: ScenarioSet, scenario: Scenario) -> np.ndarray:
        """Return the maps, (year, lat, lon)."""
        assert self.predictors is not None, "fit before project"
        assert self.patterns is not None, "fit before project"
        predicted = self.regression.predict(self.predictors(scenario)).reshape(len(scenario.years), -1)
        return self.patterns.maps(self.unit * predicted)


class GaussianProcess(PatternRegression):
    """Regress by a Gaussian process. smoothness: of the Matérn functions, 0.5, 1.5 or 2.5. restarts: of the search for
    the kernel's parameters, from random ones. modes, targets: patterns of drivers with maps, and of the variable.
    every: third year of training is read; the cost grows as the cube of their number.
    """

    def __init__(
        self,
        *,
        smoothness: float = 1.5,
        restarts: int = 0,
        modes: int = 5,
        targets: int = 10,
        every: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__(modes, targets, every)
        self.smoothness, self.restarts, self.seed = smoothness, restarts, seed

    def fit(self, data: ScenarioSet, variable: str) -> None:
        """Fit patterns, the kernel's parameters and the process."""
        process, kernels = _scikit("gaussian_process"), _scikit("gaussian_process.kernels")
        count = Predictors(data, self.modes).of_training(data).shape[1]
        matern = kernels.Matern(np.ones(count), (1e-1, 1e4), nu=self.smoothness)
        kernel = kernels.ConstantKernel(1.0, (1e-4, 1e6)) * matern + kernels.WhiteKernel(1e-2, (1e-6, 1e2))
        self.regression = process.GaussianProcessRegressor(
            kernel, n_restarts_optimizer=self.restarts, random_state=self.seed
        )
        super().fit(data, variable)


class RandomForest(PatternRegression):
    """Regress by the mean of many trees. trees: their number. depth: of each at most; None: any. leaf: fewest years in
    a leaf. modes, targets: patterns of drivers with maps, and of the variable.
    """

    def __init__(
        self,
        *,
        trees: int = 200,
        depth: int | None = None,
        leaf: int = 4,
        modes: int = 5,
        targets: int = 20,
        seed: int = 0,
    ) -> None:
        super().__init__(modes, targets)
        self.trees, self.depth, self.leaf, self.seed = trees, depth, leaf, seed

    def fit(self, data: ScenarioSet, variable: str) -> None:
        """Fit patterns and trees."""
        self.regression = _scikit("ensemble").RandomForestRegressor(
            self.trees, max_depth=self.depth, min_samples_leaf=self.leaf, random_state=self.seed
        )
        super().fit(data, variable)


def _scikit(module: str) -> Any:
    """A module of scikit-learn; ValueError says how to install it."""
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise ValueError(
            "This projection needs scikit-learn: pip install 'emul[projections]', or choose pattern_scaling, ridge or "
            "a network."
        ) from error
