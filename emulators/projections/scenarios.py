"""Hold scenarios: what drives the climate, and the annual maps that members of an ensemble simulated.

Projections are compared as in ClimateBench: fitted to the mean of the members of some scenarios, scored on others
(Watson-Parris et al. 2022, doi 10.1029/2021MS002954).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Scenario:
    """Hold one scenario, year by year.

    years: (year,). drivers: emissions or forcings by name, of the globe (year,) or maps (year, lat, lon). fields:
    annual maps by variable, (member, year, lat, lon). before: the scenario that this one goes on from, if any. forced:
    the mean of infinitely many members by variable, (year, lat, lon), where it is known.

    Raises ValueError where shapes do not agree.
    """

    name: str
    years: np.ndarray
    drivers: Mapping[str, np.ndarray]
    fields: Mapping[str, np.ndarray]
    before: Scenario | None = None
    forced: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.years)
        wrong = [name for name, values in self.drivers.items() if len(values) != count or values.ndim not in (1, 3)]
        wrong += [name for name, values in self.fields.items() if values.ndim != 4 or values.shape[1] != count]
        if wrong:
            raise ValueError(f"Scenario {self.name} has {count} years; {', '.join(wrong)} should have as many.")

    @property
    def members(self) -> int:
        """The number of members that every variable has."""
        return min(len(values) for values in self.fields.values())

    def mean(self, variable: str) -> np.ndarray:
        """Return the mean of the members, (year, lat, lon)."""
        return self.fields[variable].mean(axis=0)

    def history(self, driver: str, window: int) -> np.ndarray:
        """Return a driver in each year and the `window` - 1 years before it, oldest first, (year, window, ...).

        Years come from the scenario before; where there is none, the first year stands for those before it.
        """
        series = self.drivers[driver]
        past = self.before
        if past is not None and past.years[-1] + 1 == self.years[0] and window > 1:
            series = np.concatenate([past.drivers[driver][-(window - 1) :], series])
        missing = len(self.years) + window - 1 - len(series)
        padded = np.concatenate([np.repeat(series[:1], missing, axis=0), series])
        return np.stack([padded[lag : lag + len(self.years)] for lag in range(window)], axis=1)


@dataclass(frozen=True, eq=False)
class ScenarioSet:
    """Hold the scenarios of one climate model on one grid.

    latitude: degrees, north to south, (lat,). longitude: degrees, (lon,). train: names of scenarios that emulators are
    fitted to. test: of those that they are scored on, in the years from the first to the last of `period`. units: of
    the variables.

    Raises ValueError for a scenario that is not there, or a period without years.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    scenarios: Mapping[str, Scenario]
    train: Sequence[str]
    test: Sequence[str]
    period: tuple[int, int]
    units: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [name for name in (*self.train, *self.test) if name not in self.scenarios]
        if missing or not self.train or not self.test:
            raise ValueError(
                f"Expected scenarios to train and to test on, of {', '.join(self.scenarios)}; "
                f"got train=[{', '.join(self.train)}], test=[{', '.join(self.test)}]."
            )
        if shared := {*self.train} & {*self.test}:
            raise ValueError(f"{', '.join(sorted(shared))} is trained on and tested on; take it out of one of them.")
        for name in self.test:
            self.in_period(self.scenarios[name])

    @property
    def variables(self) -> list[str]:
        """The variables that all scenarios have, in the order of the first."""
        first, *others = [self.scenarios[name].fields for name in (*self.train, *self.test)]
        return [name for name in first if all(name in fields for fields in others)]

    @property
    def training(self) -> list[Scenario]:
        """The scenarios to fit to."""
        return [self.scenarios[name] for name in self.train]

    @cached_property
    def weights(self) -> np.ndarray:
        """The cosine of latitude over its mean, (lat, 1): the area of the cells as ClimateBench weights it."""
        cosine = np.maximum(np.cos(np.deg2rad(self.latitude)), 0.0)
        return (cosine / cosine.mean())[:, None]

    def targets(self, variable: str) -> np.ndarray:
        """Return the mean of the members in all years of training, (sample, lat, lon), float64."""
        return np.concatenate([scenario.mean(variable) for scenario in self.training]).astype(np.float64)

    def driver_means(self, scenario: Scenario, names: Sequence[str]) -> np.ndarray:
        """Return global values, or area means, of drivers, (year, driver), float64. ValueError for an unknown one."""
        if unknown := [name for name in names if name not in scenario.drivers]:
            raise ValueError(f"{scenario.name} has no driver {unknown[0]}; it has {', '.join(scenario.drivers)}.")
        series = [scenario.drivers[name] for name in names]
        means = [values if values.ndim == 1 else self.area_mean(values) for values in series]
        return np.stack(means, axis=-1).astype(np.float64)

    def area_mean(self, maps: np.ndarray) -> np.ndarray:
        """Return the area mean of maps (..., lat, lon)."""
        return (maps * self.weights).mean(axis=(-2, -1))

    def in_period(self, scenario: Scenario) -> np.ndarray:
        """Return which years of a scenario are scored, boolean (year,). ValueError where there is none."""
        first, last = self.period
        inside = (scenario.years >= first) & (scenario.years <= last)
        if not inside.any():
            got = f"{scenario.years[0]} to {scenario.years[-1]}"
            raise ValueError(f"{scenario.name} has no year in period={first}..{last}; it has {got}.")
        return inside


class Projection(Protocol):
    """Map what drives the climate to annual maps of one variable."""

    def fit(self, data: ScenarioSet, variable: str) -> None:
        """Fit to the mean of the members of the training scenarios."""

    def project(self, data: ScenarioSet, scenario: Scenario) -> np.ndarray:
        """Return maps of the variable that it was fitted to, (year, lat, lon), without noise."""
