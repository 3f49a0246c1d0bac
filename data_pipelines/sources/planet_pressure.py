"""The embedded planet in the form of a reanalysis: pressure levels, a WeatherBench 2 grid, fields near the ground.

It is computed once from the planet's store (sigma levels, Gaussian grid) and cached beside it. Temperature, wind,
surface pressure and orography are interpolated with spherical harmonics; water and fluxes are regridded conservatively
(first order), humidity as mass in each layer, so `total_column_water_vapour` and every accumulated flux keep their area
means. For the interpolation to pressure levels see `data_pipelines.simulators.planet.pressure_levels`. Budgets close in
the planet's store, not on pressure levels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.derived.regridding import Regridding
from data_pipelines.interfaces import Progress, TwinCase
from data_pipelines.simulators.planet.pressure_levels import (
    columns_on_pressure_levels,
    ground_temperature,
    mean_sea_level_pressure,
    near_ground,
)
from data_pipelines.simulators.planet.trajectories import PlanetSource
from data_pipelines.simulators.stores import (
    COLUMN,
    SURFACE,
    VariableDescription,
    create_store,
    empty_dataset,
    make_once,
    open_arrays,
    open_store,
    store_path,
)
from emulators.grid import LatLonGrid, lat_lon
from emulators.grids.catalogue import named_grid
from emulators.physics.columns import column_water
from emulators.world import Vertical

EDITION = 1  # of the formulas; a new edition makes new stores
LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
CHUNK = 20  # times
PLANET_SHARE = 0.8  # of the work, if the planet's store is made too
COLUMNS = ("temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity")
# name: (dimensions, units, CF standard name, long name) of variables that the planet's store lacks
DERIVED: dict[str, VariableDescription] = {
    "mean_sea_level_pressure": (SURFACE, "Pa", "air_pressure_at_mean_sea_level", "Mean sea level pressure"),
    "2m_temperature": (SURFACE, "K", "air_temperature", "2 metre temperature"),
    "10m_u_component_of_wind": (SURFACE, "m s**-1", "eastward_wind", "10 metre U wind component"),
    "10m_v_component_of_wind": (SURFACE, "m s**-1", "northward_wind", "10 metre V wind component"),
    "total_column_water_vapour": (
        SURFACE,
        "kg m**-2",
        "atmosphere_mass_content_of_water_vapor",
        "Total column vertically-integrated water vapour",
    ),
}
STATIC: dict[str, VariableDescription] = {
    "geopotential_at_surface": (SURFACE[1:], "m**2 s**-2", "surface_geopotential", "Geopotential at the surface"),
    "land_sea_mask": (SURFACE[1:], "1", "land_area_fraction", "Land fraction"),
}


def target_grid(name: str, planet: LatLonGrid) -> LatLonGrid:
    """Return the grid of a WeatherBench 2 name, such as 64x32_equiangular (longitudes x latitudes).

    planet: the grid that is called `gaussian`. Raises ValueError for other names.
    """
    try:
        return planet if name == "gaussian" else lat_lon(named_grid(name))
    except ValueError as error:
        raise ValueError(f"{error} Or gaussian: the planet's own points.") from error


class PressureView:
    """Convert samples of the planet, (*lead, [level,] lat, lon) by name, to pressure levels and another grid.

    half: sigma at half levels. levels: pressures in hPa. ground: geopotential at the surface, land: land fraction, both
    (lat, lon) on the planet's grid.
    """

    def __init__(
        self, regridding: Regridding, half: np.ndarray, levels: Sequence[float], ground: np.ndarray, land: np.ndarray
    ) -> None:
        self.regridding, self.half = regridding, np.asarray(half, dtype=np.float64)
        self.vertical = Vertical("sigma", (0.0,) * len(half), tuple(self.half))
        self.pressures = 100.0 * torch.tensor([float(level) for level in levels], dtype=torch.float64)
        self.ground = regridding.spectral(torch.from_numpy(np.array(ground, dtype=np.float64)))
        self.land = regridding.conservative(torch.from_numpy(np.array(land, dtype=np.float64)))

    @property
    def static(self) -> dict[str, np.ndarray]:
        """Return the fields without time, float32, (lat, lon)."""
        return {"geopotential_at_surface": _float32(self.ground), "land_sea_mask": _float32(self.land)}

    def on_grid(self, sample: Mapping[str, np.ndarray]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Regrid a sample in float64; return its columns, still on sigma levels, and its surface fields.

        Surface fields are regridded conservatively unless they are known to be smooth.
        """
        regridding = self.regridding
        fields = {name: torch.from_numpy(np.asarray(field)).double() for name, field in sample.items()}
        fields.pop("geopotential", None)
        thickness = fields.pop("surface_pressure")
        surfaces = {"surface_pressure": regridding.spectral(thickness)}
        columns = {"temperature": regridding.spectral(fields.pop("temperature"))}
        names = COLUMNS[1:3]
        columns |= zip(names, regridding.winds(*(fields.pop(name) for name in names)), strict=True)
        if "specific_humidity" in fields:
            humidity = fields.pop("specific_humidity")
            water = regridding.conservative(humidity * thickness.unsqueeze(-3))
            columns["specific_humidity"] = water / surfaces["surface_pressure"].unsqueeze(-3)
            column = column_water(humidity, thickness, self.vertical)
            surfaces["total_column_water_vapour"] = regridding.conservative(column)
        return columns, surfaces | {name: regridding.conservative(field) for name, field in fields.items()}

    def __call__(self, sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the sample on pressure levels, at mean sea level and near the ground, float32."""
        columns, surfaces = self.on_grid(sample)
        pressure = surfaces["surface_pressure"]
        star = ground_temperature(columns["temperature"][..., -1, :, :], 0.5 * (self.half[-1] + self.half[-2]))
        fields = {
            **surfaces,
            "mean_sea_level_pressure": mean_sea_level_pressure(pressure, star, self.ground),
            **near_ground(columns, _surface_temperature(surfaces), self.land, self.half),
            **columns_on_pressure_levels(self.pressures, columns, pressure, self.ground, self.half),
        }
        return {name: _float32(field) for name, field in fields.items()}


def _surface_temperature(fields: Mapping[str, Tensor]) -> Tensor | None:
    """Return the temperature of the surface; None if the planet has none (dry air)."""
    return next((fields[name] for name in ("skin_temperature", "sea_surface_temperature") if name in fields), None)


def _float32(field: Tensor) -> np.ndarray:
    return field.float().numpy()


class PlanetPressure:
    """Interpolate `planet` to pressure levels on first use, and cache the result beside the planet's store.

    levels: pressures in hPa, from the top down. grid: `gaussian` (the planet's own), or the WeatherBench 2 name of an
    equiangular grid, longitudes x latitudes: 64x32_equiangular, 240x121_equiangular_with_poles.
    """

    def __init__(
        self, *, planet: PlanetSource, levels: Sequence[float] = LEVELS, grid: str = "64x32_equiangular"
    ) -> None:
        pressures = [float(level) for level in levels]
        if len(pressures) < 1 or pressures[0] <= 0.0 or any(np.diff(pressures) <= 0.0):
            raise ValueError(f"levels: expected pressures in hPa above 0, each once, from the top down; got {levels}.")
        self.planet, self.splits = planet, planet.splits
        self.levels = [int(level) if level == int(level) else level for level in pressures]
        self.grid = target_grid(grid, planet.grid)
        self._regridding = Regridding(planet.grid, self.grid, planet.truncation + 1)
        settings = {"planet": planet.path.stem, "levels": pressures, "grid": repr(self.grid), "edition": EDITION}
        self.path: Path = store_path(str(planet.path.parent), "planet_pressure", settings)

    @cached_property
    def _described(self) -> dict[str, VariableDescription]:
        """Return the descriptions of all variables: those of the planet, derived ones, and those without time."""
        truth = self.planet.template()
        copied: dict[str, VariableDescription] = {}
        for name, field in truth.data_vars.items():
            if "time" not in field.dims or ("level" in field.dims and name not in (*COLUMNS, "geopotential")):
                continue
            units, standard_name, long_name = (
                str(field.attrs.get(key, "")) for key in ("units", "standard_name", "long_name")
            )
            copied[str(name)] = (COLUMN if "level" in field.dims else SURFACE, units, standard_name, long_name)
        derived = {
            name: description
            for name, description in DERIVED.items()
            if name != "total_column_water_vapour" or "specific_humidity" in copied
        }
        return {**copied, **derived, **STATIC}

    def template(self) -> xr.Dataset:
        """Return the coordinates, attributes and shapes of the dataset, without its values."""
        truth = self.planet.template()
        level = {"long_name": "pressure", "standard_name": "air_pressure", "units": "hPa", "positive": "down"}
        attributes: dict[str, Any] = {
            "title": f"{truth.attrs['title']} on pressure levels",
            "vertical_kind": "pressure",
            "vertical_dry": truth.attrs["vertical_dry"],
            "gravity": truth.attrs["gravity"],
            "truth": self.planet.path.name,
            "edition": EDITION,
        }
        dataset = empty_dataset(self._described, self.grid, truth["time"].values, (self.levels, level), attributes)
        for name, field in truth.data_vars.items():  # such as the direction of a flux; interpolation adds small scales
            if name in dataset and name not in STATIC:
                dataset[name].attrs |= {n: value for n, value in field.attrs.items() if n != "spectral_truncation"}
        return dataset

    def prepare(self, progress: Progress | None = None) -> None:
        """Make the planet's store if it is missing, then this one."""
        report = progress or (lambda label, share: None)
        first = 0.0 if self.planet.path.exists() else PLANET_SHARE
        self.planet.prepare(lambda label, share: report(label, first * share))

        def make(folder: Path) -> None:
            create_store(folder, self.template(), CHUNK)
            self._fill(folder, lambda share: report("pressure levels", first + (1.0 - first) * share))

        make_once(self.path, make)

    def dataset(self) -> xr.Dataset:
        """Open the dataset lazily; FileNotFoundError if the store is not made yet."""
        dataset = open_store(self.path, list(self._described), "The planet's pressure-level")
        dataset["sea_surface_temperature"].attrs["known_beforehand"] = int(self.planet.has_prescribed_sea)
        return dataset

    def view(self) -> PressureView:
        """Return the conversion from the planet's samples to those of this dataset; needs the planet's store."""
        truth = self.planet.dataset()
        none = xr.DataArray(np.zeros(self.planet.grid.shape))
        ground, land = (truth.get(name, none) for name in STATIC)
        return PressureView(self._regridding, truth.attrs["vertical_b"], self.levels, ground.values, land.values)

    @property
    def hidden(self) -> Collection[str]:
        """Return the variables that a twin can forget: those of the planet."""
        return self.planet.hidden

    def twins(
        self, cases: int, leads: int, perturbation: float, report: Progress, forgotten: Collection[str] = ()
    ) -> Iterator[TwinCase]:
        """Convert the twin cases of the planet; see `data_pipelines.interfaces.TwinSource`."""
        view = self.view()
        for case in self.planet.twins(cases, leads, perturbation, report, forgotten):
            yield TwinCase(view(case.first), map(view, case.control), map(view, case.twin))

    def _fill(self, folder: Path, report: Callable[[float], None]) -> None:
        """Convert the planet's store to that in `folder`, a chunk at a time."""
        truth, view, stored = self.planet.dataset(), self.view(), open_arrays(folder, list(self._described))
        for name, field in view.static.items():
            stored[name][...] = field
        names = [
            str(name) for name, field in truth.data_vars.items() if "time" in field.dims and name != "geopotential"
        ]
        count = truth.sizes["time"]
        for start in range(0, count, CHUNK):
            times = slice(start, min(start + CHUNK, count))
            with torch.no_grad():
                fields = view({name: truth[name][times].values for name in names})
            for name, field in fields.items():
                stored[name][times] = field
            report(times.stop / count)
