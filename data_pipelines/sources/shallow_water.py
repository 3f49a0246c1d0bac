"""Shallow water on the sphere as a dataset: the standard cases, and an ensemble of variations to train on.

Equations and cases are in `data_pipelines.simulators.shallow_water`. The first trajectory is the published case; the
others vary its parameters and start with a little noise. All trajectories run side by side in one tensor and are stored
as Zarr in the layout of WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from data_pipelines.interfaces import Progress
from data_pipelines.simulators.small_models import GAP, Integration, SimulatedSource, checked_intervals
from data_pipelines.simulators.stores import (
    SURFACE,
    Trajectories,
    empty_dataset,
    require_at_least,
    store_path,
)
from emulators.grid import LatLonGrid, alias_free_grid

if TYPE_CHECKING:
    from torch import Tensor

    from data_pipelines.simulators.shallow_water import ShallowWaterEquations

EDITION = 1  # of the equations; a new edition makes new stores
CASES = ("rotation", "mountain", "haurwitz", "jet")
VARIABLES = {
    "u_component_of_wind": (SURFACE, "m s**-1", "eastward_wind", "U component of wind"),
    "v_component_of_wind": (SURFACE, "m s**-1", "northward_wind", "V component of wind"),
    "geopotential": (SURFACE, "m**2 s**-2", "geopotential", "Geopotential of the free surface"),
    "vorticity": (SURFACE, "s**-1", "atmosphere_relative_vorticity", "Relative vorticity"),
    "potential_vorticity": (SURFACE, "m**-1 s**-1", "", "Absolute vorticity over the depth of the fluid"),
    "geopotential_at_surface": (("latitude", "longitude"), "m**2 s**-2", "surface_geopotential", "Ground"),
}


class ShallowWater(SimulatedSource):
    """Simulate shallow water on the sphere on first use, and cache the store in `folder` (default: the user's cache).

    splits: first and last time of train, validation and test. days: length of each trajectory. case: rotation,
    mountain, haurwitz or jet (Williamson et al. 1992, cases 2, 5 and 6; Galewsky et al. 2004). seed: of the variations.
    noise: rms in m/s of the wind added to all trajectories but the first. truncation: largest degree of the spherical
    harmonics. timestep_minutes: of the model. interval_hours: between stored samples. damping_hours: e-folding time of
    the smallest scale; null: none. start: date of the first stored sample.
    """

    def __init__(
        self,
        *,
        splits: Mapping[str, Sequence[str | int]],
        folder: str | None = None,
        case: str = "jet",
        days: int = 10,
        trajectories: int = 16,
        seed: int = 0,
        noise: float = 0.5,
        truncation: int = 42,
        timestep_minutes: int = 15,
        interval_hours: int = 3,
        damping_hours: float | None = 12.0,
        start: str = "2001-01-01",
    ) -> None:
        if case not in CASES:
            raise ValueError(f"A case of shallow water is one of {', '.join(CASES)}; got '{case}'.")
        require_at_least(
            "Shallow water",
            {
                "days": (days, 1),
                "trajectories": (trajectories, 1),
                "noise": (noise, 0),
                "truncation": (truncation, 12),
            },
        )
        if damping_hours is not None and not damping_hours > 0.0:
            raise ValueError(f"damping_hours must be above 0, or null for no damping; got {damping_hours:g}.")
        self.timestep, interval = checked_intervals("Shallow water", timestep_minutes, interval_hours)
        self.splits = {name: list(period) for name, period in splits.items()}
        self.label, self.case, self.seed = f"shallow water T{truncation}, {case}", case, seed
        self.noise, self.truncation, self.damping_hours = noise, truncation, damping_hours
        self.spinup: np.timedelta64 = np.timedelta64(0, "D")
        samples = days * 24 // interval_hours
        self.trajectories = Trajectories(trajectories, samples, interval, np.datetime64(start, "s"), GAP)
        settings = {
            "case": case,
            "seed": seed,
            "noise": noise,
            "truncation": truncation,
            "timestep_minutes": timestep_minutes,
            "damping_hours": damping_hours,
            "edition": EDITION,
        }
        self.path = store_path(folder, "shallow_water", settings | self.trajectories.plain())

    @property
    def grid(self) -> LatLonGrid:
        """Return the Gaussian grid on which products of fields of this truncation do not alias."""
        return alias_free_grid(self.truncation)

    def template(self) -> xr.Dataset:
        """Return the coordinates, attributes and shapes of the dataset, without its values."""
        title = f"emul shallow water T{self.truncation}, {self.case}"
        return empty_dataset(
            VARIABLES, self.grid, self.trajectories.times, attributes={"title": title, "edition": EDITION}
        )

    def controls(self, cases: int, report: Progress) -> list[Integration]:
        """Return one control for each initial state, as those of the trajectories: a jet breaks up only once."""
        model, states = self.initial_state(cases)
        return [Integration(model, state.contiguous()) for state in states.split(1, dim=-1)]

    def initial_state(self, members: int) -> tuple[ShallowWaterEquations, Tensor]:
        """Return the model, and the initial states: the published one first, then variations of it."""
        from data_pipelines.simulators.shallow_water import CASES, VARIED, ShallowWaterEquations

        varied = np.random.default_rng(self.seed).uniform(-1.0, 1.0, (members, VARIED))
        varied[0] = 0.0
        starts = [CASES[self.case](self.grid, numbers) for numbers in varied]
        u, v, depth, bottom = (np.stack(fields) for fields in zip(*starts, strict=True))
        model = ShallowWaterEquations(
            self.grid,
            self.truncation,
            float(self.timestep / np.timedelta64(1, "s")),
            bottom=bottom[0],
            damping_hours=self.damping_hours,
            dtype=torch.float32,  # as it is stored
        )
        state = model.coefficients(u, v, depth)
        noisy = model.disturbed(state, self.noise, torch.Generator().manual_seed(self.seed))
        noisy[..., 0] = state[..., 0]
        return model, noisy
