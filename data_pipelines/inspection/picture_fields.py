"""Fields and statistics of a dataset for pictures: weather maps, zonal means, kinetic energy spectra.

    kinetic energy at degree l   E(l) = R^2 / (8 pi l (l + 1)) (P_vorticity(l) + P_divergence(l)),  sum of E = <v^2> / 2

with P the power of `emulators.sphere.spectra` (Koshyk & Hamilton 2001,
doi 10.1175/1520-0469(2001)058<0329:THKESA>2.0.CO;2).
Maps are interpolated with spherical harmonics for display; scores are computed from the data themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from data_pipelines.conventions.attributes import grid_of, vertical_coordinate
from data_pipelines.simulators.planet.pressure_levels import ground_temperature, mean_sea_level_pressure
from emulators.constants import EARTH_RADIUS
from emulators.grid import LatLonGrid, equiangular_grid
from emulators.physics.columns import column_water
from emulators.sphere.calculus import SphericalCalculus
from emulators.sphere.spectra import power
from emulators.sphere.transform import SphericalHarmonics

MOST = 400  # times in a mean, at most
MONTH = 120  # six-hourly times
RAIN = "total_precipitation_6hr"
PER_DAY = 4.0 * 1000.0  # m in 6 hours -> mm a day


def require_variables(dataset: xr.Dataset, *names: str) -> None:
    """Raise ValueError if a variable is not in the dataset."""
    missing = [name for name in names if name not in dataset]
    if missing:
        raise ValueError(f"the data hold no {' and no '.join(missing)}")


def winter_month(dataset: xr.Dataset) -> xr.Dataset:
    """A month of the data: the first January, else the first days."""
    january = np.flatnonzero(dataset["time"].dt.month.values == 1)
    first = int(january[0]) if january.size else 0
    return dataset.isel(time=slice(first, min(first + MONTH, dataset.sizes["time"])))


def sea_level_pressure(dataset: xr.Dataset) -> np.ndarray:
    """Return mean sea level pressure in Pa, float64, (*time, lat, lon), from the data or from sigma levels."""
    if "mean_sea_level_pressure" in dataset:
        return dataset["mean_sea_level_pressure"].values.astype(np.float64)
    require_variables(dataset, "surface_pressure", "temperature")
    half = np.array(vertical_coordinate(dataset).b)
    if vertical_coordinate(dataset).kind != "sigma":
        raise ValueError("the data hold no mean_sea_level_pressure, and lie on levels other than sigma")
    pressure = torch.from_numpy(dataset["surface_pressure"].values).double()
    ground = torch.zeros(pressure.shape[-2:], dtype=torch.float64)
    if "geopotential_at_surface" in dataset:
        ground = torch.from_numpy(dataset["geopotential_at_surface"].values).double()
    lowest = torch.from_numpy(dataset["temperature"].isel(level=-1).values).double()
    return mean_sea_level_pressure(pressure, ground_temperature(lowest, 0.5 * (half[-1] + half[-2])), ground).numpy()


def water_vapour(dataset: xr.Dataset) -> np.ndarray:
    """Return column water vapour in kg m-2, float64, (*time, lat, lon), from the data or from their layers."""
    if "total_column_water_vapour" in dataset:
        return dataset["total_column_water_vapour"].values.astype(np.float64)
    require_variables(dataset, "specific_humidity", "surface_pressure")
    humidity, pressure = (torch.from_numpy(dataset[n].values) for n in ("specific_humidity", "surface_pressure"))
    return column_water(humidity, pressure, vertical_coordinate(dataset)).numpy()


class SphericalInterpolation:
    """Interpolate fields from `grid` to a fine grid of `rows` x 2 `rows` points with spherical harmonics.

    The columns of the fine grid lie half a cell off the zero meridian, so that cells end at the edges of maps.
    """

    def __init__(self, grid: LatLonGrid, rows: int) -> None:
        fine = equiangular_grid(rows)
        self.grid = LatLonGrid(fine.latitude, fine.longitude + 180.0 / fine.longitude.size)
        self._source = SphericalHarmonics(grid, dtype=torch.float64)
        degrees = self._source.degrees
        self._target = SphericalHarmonics(self.grid, degrees, self._source.orders, torch.float64)
        degree = torch.arange(degrees)
        self._damping = torch.exp(-2.0 * (degree * (degree + 1.0) / (degrees * (degrees - 1.0))) ** 2)[:, None]

    def __call__(self, field: np.ndarray, *, least: float | None = None, soft: bool = False) -> np.ndarray:
        """Interpolate (..., lat, lon) to (..., rows, 2 * rows).

        least: lower bound of the result. soft: damp fine scales to avoid ringing.
        """
        coefficients = self._source.coefficients(torch.from_numpy(np.ascontiguousarray(field)).double())
        fine = self._target.field(coefficients * self._damping if soft else coefficients).numpy()
        return fine if least is None else fine.clip(min=least)


def low_pressure_centres(
    pressure: np.ndarray, grid: LatLonGrid, *, deepest: float, apart: float, most: int
) -> list[tuple[int, int]]:
    """Return row and column of the centres of lows between 25 and 75 degrees of latitude, deepest first.

    pressure: (lat, lon) in Pa. deepest: pressure in Pa below which a low counts. apart: least distance between two lows
    in degrees. most: largest number of lows.
    """
    around = np.pad(np.pad(pressure, ((0, 0), (1, 1)), mode="wrap"), ((1, 1), (0, 0)), mode="edge")
    rows, columns = pressure.shape
    neighbours = [
        around[1 + i : rows + 1 + i, 1 + j : columns + 1 + j]
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
        if (i, j) != (0, 0)
    ]
    stormy = (np.abs(grid.latitude) > 25.0) & (np.abs(grid.latitude) < 75.0)
    centres = np.argwhere((pressure < np.min(neighbours, axis=0)) & stormy[:, None] & (pressure < deepest))
    points = np.stack(_directions(grid), axis=-1)
    lows: list[tuple[int, int]] = []
    for row, column in sorted(map(tuple, centres), key=lambda place: pressure[place]):
        if len(lows) < most and all(points[row, column] @ points[place] < np.cos(np.deg2rad(apart)) for place in lows):
            lows.append((int(row), int(column)))
    return lows


def _directions(grid: LatLonGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the components of the unit vectors to each point, each (lat, lon)."""
    y, x = (np.deg2rad(a) for a in np.meshgrid(grid.latitude, grid.longitude, indexing="ij"))
    return np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)


@dataclass(frozen=True)
class ZonalMean:
    """Hold means over time and longitude, (level, lat): wind in m s-1, temperature in K. name: of the season."""

    name: str
    wind: np.ndarray
    temperature: np.ndarray


def zonal_means(dataset: xr.Dataset) -> list[ZonalMean]:
    """Return the means of December to February and of June to August if the data have both, else of all times."""
    require_variables(dataset, "u_component_of_wind", "temperature")
    month = dataset["time"].dt.month.values
    seasons = {"December\N{EN DASH}February": (12, 1, 2), "June\N{EN DASH}August": (6, 7, 8)}
    periods = {name: np.flatnonzero(np.isin(month, months)) for name, months in seasons.items()}
    if min(times.size for times in periods.values()) < 240:  # two months of six-hourly samples
        periods = {"all times": np.arange(month.size)}
    means = []
    for name, times in periods.items():
        part = dataset.isel(time=times[:: -(-times.size // MOST)])
        fields = (part[n].mean(("time", "longitude")).values for n in ("u_component_of_wind", "temperature"))
        means.append(ZonalMean(name, *fields))
    return means


def kinetic_energy(dataset: xr.Dataset, level: float | None) -> np.ndarray:
    """Return the time-mean kinetic energy by degree in m2 s-2, (degrees,). level: None for data without levels."""
    require_variables(dataset, "u_component_of_wind", "v_component_of_wind")
    grid = grid_of(dataset)
    calculus = SphericalCalculus(grid, dtype=torch.float64)
    part = dataset if level is None else dataset.sel(level=level)
    part = part.isel(time=slice(None, None, -(-dataset.sizes["time"] // MOST)))
    u, v = (torch.from_numpy(part[f"{letter}_component_of_wind"].values.T.astype(np.float64).copy()) for letter in "uv")
    vorticity, divergence = (power(part).mean(-1).numpy() for part in calculus.vorticity_divergence(u, v))
    degree = np.arange(calculus.degrees)
    scale = EARTH_RADIUS**2 / (8.0 * np.pi * np.maximum(degree * (degree + 1), 1))
    return (vorticity + divergence) * np.where(degree > 0, scale, 0.0)
