"""Quasi-geostrophic weather in perpetual northern winter as a dataset: three levels, two oceans, two mountain ranges.

The model of Marshall & Molteni 1993 is in `data_pipelines.simulators.quasigeostrophic`. All trajectories run side by
side in one tensor and are stored as Zarr in the layout of WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from data_pipelines.simulators.small_models import GAP, SimulatedSource, checked_intervals
from data_pipelines.simulators.stores import COLUMN, Trajectories, empty_dataset, require_at_least, store_path
from emulators.grid import LatLonGrid, alias_free_grid

if TYPE_CHECKING:
    from torch import Tensor

    from data_pipelines.simulators.quasigeostrophic import QuasiGeostrophicEquations

EDITION = 1  # of the equations; a new edition makes new stores
LEVELS = (200.0, 500.0, 800.0)  # hPa
VARIABLES = {
    "streamfunction": (COLUMN, "m**2 s**-1", "atmosphere_horizontal_streamfunction", "Streamfunction"),
    "u_component_of_wind": (COLUMN, "m s**-1", "eastward_wind", "U component of wind"),
    "v_component_of_wind": (COLUMN, "m s**-1", "northward_wind", "V component of wind"),
    "geopotential": (COLUMN, "m**2 s**-2", "geopotential", "Geopotential, by linear balance"),
    "geopotential_at_surface": (("latitude", "longitude"), "m**2 s**-2", "surface_geopotential", "Mountains"),
}


class QuasiGeostrophic(SimulatedSource):
    """Simulate quasi-geostrophic weather on first use, and cache the store in `folder` (default: the user's cache).

    splits: first and last time of train, validation and test. days: length of each trajectory. seed: of the initial
    noise. spinup_days: simulated before the first stored sample. truncation: largest degree of the spherical harmonics.
    timestep_minutes: of the model. interval_hours: between stored samples. mountains: height in m of the higher of two
    ranges; 0: flat. oceans: temperature contrast of sea and land in winter; 0: none. start: date of the first stored
    sample.
    """

    def __init__(
        self,
        *,
        splits: Mapping[str, Sequence[str | int]],
        folder: str | None = None,
        days: int = 360,
        trajectories: int = 8,
        seed: int = 0,
        spinup_days: int = 90,
        truncation: int = 21,
        timestep_minutes: int = 120,
        interval_hours: int = 12,
        mountains: float = 3000.0,
        oceans: float = 0.4,
        start: str = "2001-01-01",
    ) -> None:
        require_at_least(
            "The quasi-geostrophic model",
            {
                "days": (days, 1),
                "trajectories": (trajectories, 1),
                "spinup_days": (spinup_days, 0),
                "truncation": (truncation, 5),
                "mountains": (mountains, 0),
            },
        )
        self.timestep, interval = checked_intervals("The quasi-geostrophic model", timestep_minutes, interval_hours)
        self.splits = {name: list(period) for name, period in splits.items()}
        self.label, self.seed, self.truncation = f"quasi-geostrophic T{truncation}", seed, truncation
        self.spinup: np.timedelta64 = np.timedelta64(spinup_days, "D")
        self.mountains, self.oceans = mountains, oceans
        samples = days * 24 // interval_hours
        self.trajectories = Trajectories(trajectories, samples, interval, np.datetime64(start, "s"), GAP)
        settings = {
            "seed": seed,
            "spinup_days": spinup_days,
            "truncation": truncation,
            "timestep_minutes": timestep_minutes,
            "mountains": mountains,
            "oceans": oceans,
            "edition": EDITION,
        }
        self.path = store_path(folder, "quasigeostrophic", settings | self.trajectories.plain())

    @property
    def grid(self) -> LatLonGrid:
        """Return the Gaussian grid on which products of fields of this truncation do not alias."""
        return alias_free_grid(self.truncation)

    def template(self) -> xr.Dataset:
        """Return the coordinates, attributes and shapes of the dataset, without its values."""
        level = {"standard_name": "air_pressure", "units": "hPa", "positive": "down", "axis": "Z"}
        title = f"emul quasi-geostrophic planet T{self.truncation}L{len(LEVELS)}"
        return empty_dataset(
            VARIABLES,
            self.grid,
            self.trajectories.times,
            (LEVELS, level),
            {"title": title, "edition": EDITION},
        )

    def initial_state(self, members: int) -> tuple[QuasiGeostrophicEquations, Tensor]:
        """Return the model, and the equilibrium of its forcing with a little noise."""
        from data_pipelines.simulators.quasigeostrophic import Forcing, QuasiGeostrophicEquations

        forcing = Forcing(mountains=self.mountains, oceans=self.oceans)
        seconds = self.timestep / np.timedelta64(1, "s")
        model = QuasiGeostrophicEquations(self.grid, self.truncation, float(seconds), forcing)
        state, generator = model.equilibrium(members), torch.Generator().manual_seed(self.seed)
        return model, model.disturbed(state, 1.0, generator)
