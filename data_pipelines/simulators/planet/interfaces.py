"""Interface of a planet source, for the code that fills its store and for views of it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from data_pipelines.interfaces import TwinSource
from data_pipelines.simulators.planet.simulation import Simulation
from emulators.grid import LatLonGrid


class PlanetSource(TwinSource, Protocol):
    """Provide trajectories of the planet, the settings they are made with, and the simulations that make them.

    days, spinup_days: length of each trajectory and of the simulation before it. truncation, levels: resolution.
    timestep_minutes: of the simulation. device: `cpu` or `cuda`.
    """

    days: int
    trajectories: int
    spinup_days: int
    truncation: int
    levels: int
    timestep_minutes: int
    device: str

    @property
    def grid(self) -> LatLonGrid:
        """Return the Gaussian grid of the store."""
        ...

    def static(self) -> dict[str, np.ndarray]:
        """Return the fields without time by name, float32, (lat, lon)."""
        ...

    def simulation(self, trajectory: int) -> Simulation:
        """Return the simulation of a trajectory, before its spin-up."""
        ...
