"""An ocean of a few layers on the planet's continents, driven by the planet's weather: means of five days.

Equations and their sources are in `data_pipelines.simulators.ocean.layers`, what drives them in
`data_pipelines.simulators.ocean.trajectories`. Each trajectory begins with another year of the planet. Land has the
temperature and salinity of the abyss, no currents and layers of 100 m. Sums of `surface_heat_gain` and
`abyssal_heat_gain` over time and area are the change of `ocean_heat_content`, and likewise of salt, to the rounding of
single precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.interfaces import Progress
from data_pipelines.simulators.ocean.layers import LayeredOcean, OceanConstants
from data_pipelines.simulators.planet.trajectories import PlanetSource
from data_pipelines.simulators.stores import (
    SURFACE,
    Trajectories,
    VariableDescription,
    empty_dataset,
    make_once,
    open_store,
    require_at_least,
    store_path,
)
from emulators.grid import LatLonGrid, equiangular_grid

EDITION = 1  # of the equations; a new edition makes new stores
PLANET_SHARE = 0.4  # of the work, if the planet's store is made too
YEAR, PENTAD, GAP = 73, np.timedelta64(5, "D"), np.timedelta64(10, "D")  # five-day means; between trajectories
LAYERS = ("time", "level", "latitude", "longitude")
VARIABLES: dict[str, VariableDescription] = {
    "sea_water_potential_temperature": (LAYERS, "K", "sea_water_potential_temperature", "Temperature of the layer"),
    "sea_water_salinity": (LAYERS, "g kg**-1", "", "Salinity of the layer"),
    "eastward_sea_water_velocity": (LAYERS, "m s**-1", "eastward_sea_water_velocity", "Eastward current"),
    "northward_sea_water_velocity": (LAYERS, "m s**-1", "northward_sea_water_velocity", "Northward current"),
    "sea_water_layer_thickness": (LAYERS, "m", "", "Thickness of the layer"),
    "sea_surface_height": (SURFACE, "m", "", "Height of the sea surface over that of the abyss alone"),
    "surface_eastward_stress": (SURFACE, "N m**-2", "surface_downward_eastward_stress", "Eastward stress on the water"),
    "surface_northward_stress": (
        SURFACE, "N m**-2", "surface_downward_northward_stress", "Northward stress on the water",
    ),
    "surface_weather_heat_flux": (SURFACE, "W m**-2", "", "Turbulent heat into the water, less its mean"),
    "surface_fresh_water_flux": (SURFACE, "m s**-1", "", "Precipitation less evaporation, less its mean over the sea"),
    "air_sea_surface_temperature": (SURFACE, "K", "", "Temperature to which the surface is restored"),
    "surface_heat_gain": (SURFACE, "W m**-2", "", "Heat over that of the abyss, through the surface"),
    "abyssal_heat_gain": (SURFACE, "W m**-2", "", "Heat over that of the abyss, from beneath"),
    "surface_salt_gain": (SURFACE, "g kg**-1 m s**-1", "", "Salt over that of the abyss, through the surface"),
    "abyssal_salt_gain": (SURFACE, "g kg**-1 m s**-1", "", "Salt over that of the abyss, from beneath"),
    "ocean_heat_content": (SURFACE, "J m**-2", "", "Heat over that of the abyss, at the end of the mean"),
    "ocean_salt_content": (SURFACE, "g kg**-1 m", "", "Salt over that of the abyss, at the end of the mean"),
    "land_sea_mask": (("latitude", "longitude"), "1", "land_area_fraction", "1 on land, 0 in the ocean"),
    "ocean_mask": (("latitude", "longitude"), "1", "sea_area_fraction", "1 in the ocean, 0 on land"),
}  # fmt: skip


class Ocean:
    """Simulate the ocean on first use, and cache the store beside that of the planet that drives it.

    planet: its air; trajectories of at least a year. splits: first and last time of train, validation and test. years,
    spinup_years: length of each trajectory, and of what is simulated before it. rows: of latitude; twice as many
    columns. polewards: no water at higher latitudes than these, in degrees. timestep_minutes: of the simulation.
    restoring: W m-2 for each K by which the surface is colder than the planet's. single: single precision while it is
    simulated. constants: of the water.
    """

    def __init__(
        self,
        *,
        planet: PlanetSource,
        splits: Mapping[str, Sequence[str | int]],
        years: int = 6,
        spinup_years: int = 6,
        trajectories: int = 3,
        rows: int = 48,
        polewards: float = 76.0,
        timestep_minutes: int = 160,
        restoring: float = 40.0,
        single: bool = True,
        start: str = "2001-01-01",
        constants: OceanConstants | None = None,
    ) -> None:
        least = {
            "years": (years, 1),
            "spinup_years": (spinup_years, 0),
            "trajectories": (trajectories, 1),
            "rows": (rows, 16),
        }
        require_at_least("The ocean", least)
        if timestep_minutes < 1 or 1440 % timestep_minutes:
            raise ValueError(f"The ocean's timestep_minutes must divide a day; got {timestep_minutes}. Try 160 or 120.")
        if not 0.0 < polewards < 90.0:
            raise ValueError(f"The ocean's polewards must be a latitude between 0 and 90; got {polewards:g}.")
        self.planet, self.splits = planet, {name: list(period) for name, period in splits.items()}
        self.grid: LatLonGrid = equiangular_grid(rows)
        self.polewards, self.restoring, self.single = polewards, restoring, single
        self.spinup_years, self.seconds = spinup_years, 60.0 * timestep_minutes
        self.constants = constants or OceanConstants()
        self.trajectories = Trajectories(trajectories, years * YEAR, PENTAD, np.datetime64(start, "s"), GAP)
        settings = {
            "planet": planet.path.stem,
            "rows": rows,
            "polewards": polewards,
            "timestep_minutes": timestep_minutes,
            "restoring": restoring,
            "single": single,
            "spinup_years": spinup_years,
            "edition": EDITION,
            **asdict(self.constants),
        }
        self.path: Path = store_path(str(planet.path.parent), "ocean", settings | self.trajectories.plain())

    @cached_property
    def sea(self) -> np.ndarray:
        """Return where there is water, (lat, lon): the largest sea of the planet on this grid."""
        from scipy import ndimage

        from data_pipelines.simulators.ocean.trajectories import between_grids

        land = between_grids(self.planet.static()["land_sea_mask"], self.planet.grid, self.grid)
        water = (land < 0.5) & (np.abs(self.grid.latitude) < self.polewards)[:, None]
        seas, number = ndimage.label(np.concatenate([water, water], axis=1))  # twice around: seas join over the edge
        if not number:
            raise ValueError("An ocean needs a planet with water; take geography=continents or geography=water.")
        largest = seas == np.argmax(np.bincount(seas[seas > 0]))
        columns = water.shape[1]
        return largest[:, :columns] | largest[:, columns:]

    def template(self) -> xr.Dataset:
        """Return the coordinates, attributes and shapes of the dataset, without its values."""
        depths = np.cumsum([0.0, *self.constants.thickness])
        level = {"long_name": "middle of the layer at rest", "units": "m", "positive": "down", "axis": "Z"}
        attributes: dict[str, Any] = {
            "title": f"emul ocean of {len(depths) - 1} layers, means of 5 days",
            "driven_by": self.planet.path.name,
            "edition": EDITION,
        }
        middles = 0.5 * (depths[1:] + depths[:-1])
        return empty_dataset(VARIABLES, self.grid, self.trajectories.times, (middles, level), attributes)

    def prepare(self, progress: Progress | None = None) -> None:
        """Make the planet's store and then the ocean's, if they are missing, or continue an interrupted run."""
        report = progress or (lambda label, share: None)
        LayeredOcean(self.grid, self.sea, self.seconds, self.constants)  # refuses a timestep that is too long

        def make(folder: Path) -> None:
            from data_pipelines.simulators.ocean.trajectories import OceanRun, fill_store, pentads

            self.planet.prepare(lambda label, share: report(label, PLANET_SHARE * share))
            truth = self.planet.dataset()
            years = self.trajectories.samples // YEAR
            run = OceanRun(
                self.grid,
                self.sea,
                self.constants,
                pentads(truth, float(truth.attrs["latent_heat_of_vaporisation"])),
                self.planet.grid,
                self.spinup_years,
                years,
                tuple(self.trajectories.times[:: self.trajectories.samples]),
                self.restoring,
                self.seconds,
                self.single,
            )
            water = self.sea.astype(np.float32)
            masks = {"land_sea_mask": 1.0 - water, "ocean_mask": water}
            fill_store(
                run,
                folder,
                self.template(),
                masks,
                lambda label, s: report(label, PLANET_SHARE + (1 - PLANET_SHARE) * s),
            )

        make_once(self.path, make, resumable=True)

    def dataset(self) -> xr.Dataset:
        """Open the dataset lazily; FileNotFoundError if the store is not made yet."""
        return open_store(self.path, list(VARIABLES), "The ocean's")
