"""The Kuramoto-Sivashinsky equation as data: one row of numbers around the equator.

The equation is in `data_pipelines.simulators.kuramoto_sivashinsky`. Its circle, of any length, is laid around the
equator, and its unit of time is called a day: samples 6 hours apart are a quarter of a unit apart, as is customary
(Pathak et al. 2018, doi 10.1103/PhysRevLett.120.024102).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from data_pipelines.simulators.small_models import GAP, SimulatedSource
from data_pipelines.simulators.stores import (
    SURFACE,
    Trajectories,
    VariableDescription,
    empty_dataset,
    require_at_least,
    store_path,
)
from emulators.grid import LatLonGrid, gaussian_grid

if TYPE_CHECKING:
    from torch import Tensor

    from data_pipelines.simulators.kuramoto_sivashinsky import KuramotoSivashinskyEquation

EDITION = 1  # of the equations: a new one makes new data
INTERVAL = np.timedelta64(6, "h")
TIMESTEP = np.timedelta64(180, "m")  # 0.125 units of time
VARIABLES: dict[str, VariableDescription] = {"velocity": (SURFACE, "1", "", "u of the Kuramoto-Sivashinsky equation")}


class KuramotoSivashinsky(SimulatedSource):
    """Trajectories of `days` days each, made on first use and cached in `folder` (default: the user's cache).

    splits: first and last time of train, validation and test. seed: of the initial disturbances. length: of the circle,
    in the equation's units; points: on it. spinup_days: simulated before the first stored sample. start: date of the
    first.
    """

    def __init__(
        self,
        *,
        splits: Mapping[str, Sequence[str | int]],
        folder: str | None = None,
        days: int = 1000,
        trajectories: int = 8,
        seed: int = 0,
        spinup_days: int = 200,
        length: float = 22.0,
        points: int = 64,
        start: str = "2001-01-01",
    ) -> None:
        require_at_least(
            "Kuramoto-Sivashinsky",
            {
                "days": (days, 1),
                "trajectories": (trajectories, 1),
                "spinup_days": (spinup_days, 0),
                "length": (length, 1),
                "points": (points, max(8, int(np.ceil(2.0 * length)))),  # resolves the scales that are damped
            },
        )
        self.splits = {name: list(period) for name, period in splits.items()}
        self.label, self.seed = "Kuramoto-Sivashinsky", seed
        self.timestep: np.timedelta64 = TIMESTEP
        self.spinup: np.timedelta64 = np.timedelta64(spinup_days, "D")
        self.length, self.points = length, points
        self.trajectories = Trajectories(trajectories, 4 * days, INTERVAL, np.datetime64(start, "s"), GAP)
        settings = {"seed": seed, "spinup_days": spinup_days, "length": length, "points": points, "edition": EDITION}
        self.path = store_path(folder, "kuramoto_sivashinsky", settings | self.trajectories.plain())

    @property
    def grid(self) -> LatLonGrid:
        """The equator."""
        return gaussian_grid(1, self.points)

    def template(self) -> xr.Dataset:
        """Coordinates, attributes and shapes of the dataset, without its numbers."""
        attributes = {"title": f"emul Kuramoto-Sivashinsky, length {self.length:g}", "edition": EDITION}
        return empty_dataset(VARIABLES, self.grid, self.trajectories.times, attributes=attributes)

    def beginning(self, members: int) -> tuple[KuramotoSivashinskyEquation, Tensor]:
        """The model, and its unstable rest with noise."""
        from data_pipelines.simulators.kuramoto_sivashinsky import KuramotoSivashinskyEquation

        model = KuramotoSivashinskyEquation(self.points, self.length, float(self.timestep / np.timedelta64(1, "D")))
        return model, model.disturbed(model.rest(members), 1.0, torch.Generator().manual_seed(self.seed))
