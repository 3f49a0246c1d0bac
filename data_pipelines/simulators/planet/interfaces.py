"""The interface of a planet's store, which its trajectories and views on it use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import xarray as xr

from data_pipelines.interfaces import Case, Progress
from data_pipelines.simulators.planet.simulation import Simulation
from emulators.grid import LatLonGrid


class PlanetSource(Protocol):
    """A store of planet trajectories: its settings, its dataset, and the simulations that fill it.

    days: length of a trajectory. timestep_minutes: of the simulation. device: `cpu` or `cuda`.
    """

    path: Path
    splits: dict[str, list[str | int]]
    days: int
    trajectories: int
    spinup_days: int
    truncation: int
    levels: int
    timestep_minutes: int
    device: str

    @property
    def grid(self) -> LatLonGrid:
        """The grid of the store."""

    def template(self) -> xr.Dataset:
        """Coordinates, attributes and shapes of the dataset, without its values."""

    def prepare(self, progress: Progress | None = None) -> None:
        """Make the store where it is missing."""

    def static(self) -> dict[str, np.ndarray]:
        """The fields without time, float32, by name."""

    def dataset(self) -> xr.Dataset:
        """The dataset, lazily."""

    def simulation(self, trajectory: int) -> Simulation:
        """The simulation of a trajectory, before its spin-up."""

    def twins(self, cases: int, leads: int, perturbation: float, report: Progress) -> Iterator[Case]:
        """Pairs of simulations that start almost alike."""
