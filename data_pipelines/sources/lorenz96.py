"""Lorenz's model of 1996 as data: one row of numbers around the equator, on one scale or two.

The equations are in `data_pipelines.simulators.lorenz96`. Sectors lie around the equator, from 0 degrees eastward; a
unit of time is five days, so that samples 6 hours apart are 0.05 units apart, as in Lorenz 1996. With `fast` variables,
those of each sector are stored as levels, and what they do to the large scale as a field of its own, for those who want
to learn it (Wilks 2005, doi 10.1256/qj.04.03).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from data_pipelines.simulators.small_models import GAP, SimulatedSource
from data_pipelines.simulators.stores import (
    COLUMN,
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

    from data_pipelines.simulators.lorenz96 import Lorenz96Equations

EDITION = 1  # of the equations: a new one makes new data
INTERVAL = np.timedelta64(6, "h")
UNIT_DAYS = 5  # of time
TIMESTEPS = {False: 72, True: 18}  # minutes, on one scale and on two
SLOW: dict[str, VariableDescription] = {"slow_variable": (SURFACE, "1", "", "X, the large scale")}
FAST: dict[str, VariableDescription] = {
    "fast_variable": (COLUMN, "1", "", "Y, the small scale"),
    "subgrid_tendency": (SURFACE, "1", "", "Tendency of X by the small scale, per unit of time"),
}


class Lorenz96(SimulatedSource):
    """Trajectories of `days` days each, made on first use and cached in `folder` (default: the user's cache).

    splits: first and last time of train, validation and test. seed: of the initial disturbances. sectors and forcing: K
    and F. fast: J, small-scale variables in each sector; 0: one scale. coupling, time_ratio, amplitude_ratio: h, c, b
    of the small scale. spinup_days: simulated before the first stored sample. start: date of the first stored sample.
    """

    def __init__(
        self,
        *,
        splits: Mapping[str, Sequence[str | int]],
        folder: str | None = None,
        days: int = 1000,
        trajectories: int = 8,
        seed: int = 0,
        spinup_days: int = 100,
        sectors: int = 40,
        forcing: float = 8.0,
        fast: int = 0,
        coupling: float = 1.0,
        time_ratio: float = 10.0,
        amplitude_ratio: float = 10.0,
        start: str = "2001-01-01",
    ) -> None:
        require_at_least(
            "Lorenz 1996",
            {
                "days": (days, 1),
                "trajectories": (trajectories, 1),
                "spinup_days": (spinup_days, 0),
                "sectors": (sectors, 4),
                "fast": (fast, 0),
            },
        )
        self.splits = {name: list(period) for name, period in splits.items()}
        self.label, self.seed = "Lorenz 1996", seed
        self.spinup: np.timedelta64 = np.timedelta64(spinup_days, "D")
        self.timestep: np.timedelta64 = np.timedelta64(TIMESTEPS[fast > 0], "m")
        self.settings = {
            "sectors": sectors,
            "forcing": forcing,
            "fast": fast,
            "coupling": coupling,
            "time_ratio": time_ratio,
            "amplitude_ratio": amplitude_ratio,
        }
        self.fast, self.variables = fast, SLOW | (FAST if fast else {})
        self.trajectories = Trajectories(trajectories, 4 * days, INTERVAL, np.datetime64(start, "s"), GAP)
        own = {"seed": seed, "spinup_days": spinup_days, "edition": EDITION}
        self.path = store_path(folder, "lorenz96", self.settings | own | self.trajectories.plain())

    @property
    def grid(self) -> LatLonGrid:
        """The equator, one point a sector."""
        return gaussian_grid(1, int(self.settings["sectors"]))

    def template(self) -> xr.Dataset:
        """Coordinates, attributes and shapes of the dataset, without its numbers."""
        within = {"long_name": "number of the small-scale variable within its sector"}
        return empty_dataset(
            self.variables,
            self.grid,
            self.trajectories.times,
            (tuple(range(1, self.fast + 1)), within) if self.fast else None,
            {"title": "emul Lorenz 1996", "edition": EDITION, "vertical_kind": "none"},
        )

    def beginning(self, members: int) -> tuple[Lorenz96Equations, Tensor]:
        """The model, and its unstable rest with a little noise."""
        from data_pipelines.simulators.lorenz96 import Lorenz96Equations

        units = float(self.timestep / np.timedelta64(UNIT_DAYS, "D"))
        model = Lorenz96Equations(units, **self.settings)  # type: ignore[arg-type]
        return model, model.disturbed(model.rest(members), 0.01, torch.Generator().manual_seed(self.seed))
