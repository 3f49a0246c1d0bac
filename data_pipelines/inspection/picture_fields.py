"""Fields and statistics of a dataset for pictures: weather maps, zonal means, kinetic energy spectra.

    kinetic energy at degree l   E(l) = R^2 / (8 pi l (l + 1)) (P_vorticity(l) + P_divergence(l)),  sum of E = <v^2> / 2

with P the power of `emulators.sphere.spectra` (Koshyk & Hamilton 2001,
doi 10.1175/1520-0469(2001)058<0329:THKESA>2.0.CO;2).
Maps are interpolated with spherical harmonics for display; scores are computed from the data themselves.

Sample fields of a grid at the pixels of a map: equal-area (Mollweide) for the sphere, plain degrees for a part.

    x = 2 / pi  longitude cos(theta),   y = sin(theta),   2 theta + sin(2 theta) = pi sin(latitude)

with the 180th meridian in the middle; x in units of half the height (Snyder 1987, doi 10.3133/pp1395, p. 251).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from data_pipelines.conventions.attributes import grid_of, vertical_coordinate
from data_pipelines.simulators.planet.pressure_levels import ground_temperature, mean_sea_level_pressure
from emulators.constants import EARTH_RADIUS
from emulators.grid import Grid, LatLonGrid, equiangular_grid, lat_lon, unit_vectors
from emulators.physics.columns import column_water
from emulators.sphere.calculus import SphericalCalculus
from emulators.sphere.spectra import power
from emulators.sphere.transform import SphericalHarmonics


class MapSampling(NamedTuple):
    """Hold, for each pixel of a map, the four grid points around it and their bilinear weights.

    points: indices into the flattened field, (4, y, x). weight: the same shape. inside: True on the map, (y, x).
    """

    points: np.ndarray
    weight: np.ndarray
    inside: np.ndarray

    def values(self, field: np.ndarray) -> np.ndarray:
        """Values at the pixels, (y, x), from the north."""
        return (field.ravel()[self.points] * self.weight).sum(axis=0)

    def coasts(self, land: np.ndarray | None) -> np.ndarray:
        """True at the pixels where the land fraction passes one half."""
        edge = np.zeros(self.inside.shape, dtype=bool)
        if land is not None:
            ground = self.values(land) > 0.5
            edge[:, 1:] |= ground[:, 1:] != ground[:, :-1]
            edge[1:] |= ground[1:] != ground[:-1]
        return edge & self.inside

    def outline(self) -> np.ndarray:
        """True at the pixels along the end of the map: fields about zero are as pale as the page around it."""
        around = np.pad(self.inside, 1)
        within = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
        return self.inside & ~within


class Raster:
    """Show fields on any grid as rows and columns: themselves, or the nearest cell of each point of a fine grid.

    grid: of the rows and columns. A limited area ends where points lie further from all cells than cells from another.
    """

    def __init__(self, grid: Grid) -> None:
        self._cells: np.ndarray | None = None
        if isinstance(grid, LatLonGrid):
            self.grid = grid
            return
        from scipy.spatial import KDTree

        latitude, longitude = grid.points
        tree = KDTree(unit_vectors(latitude, longitude))
        spacing = np.rad2deg(tree.query(tree.data, k=2)[0][:, 1]) if grid.size > 1 else np.ones(1)
        self.grid = _around(latitude, longitude, float(np.clip(0.4 * np.median(spacing), 0.05, 2.0)), grid.is_global)
        distance, self._cells = tree.query(unit_vectors(*self.grid.points))
        reach = np.inf if grid.is_global else np.deg2rad(1.5 * np.quantile(spacing, 0.9))
        self._outside = distance > reach

    def __call__(self, field: np.ndarray) -> np.ndarray:
        """Return (..., *grid) as (..., lat, lon)."""
        if self._cells is None:
            return field
        sampled = np.where(self._outside, np.nan, field[..., self._cells])
        return sampled.reshape(*field.shape[:-1], *self.grid.shape)


def _around(latitude: np.ndarray, longitude: np.ndarray, step: float, is_global: bool) -> LatLonGrid:
    """Return rows and columns about `step` degrees apart that hold all points."""
    if is_global:
        return equiangular_grid(round(180.0 / step))
    centre = np.rad2deg(np.angle(np.exp(1j * np.deg2rad(longitude)).mean()))
    east = (longitude - centre + 180.0) % 360.0 - 180.0 + centre
    across = step / max(np.cos(np.deg2rad(latitude)).max(), 0.1)
    north, south = min(latitude.max() + step, 90.0), max(latitude.min() - step, -90.0)
    west, width = east.min() - across, min(np.ptp(east) + 2.0 * across, 359.9)
    rows, columns = (max(2, 1 + round(span / spacing)) for span, spacing in ((north - south, step), (width, across)))
    return LatLonGrid(np.linspace(north, south, rows), np.linspace(west, west + width, columns))


def is_whole_sphere(grid: LatLonGrid) -> bool:
    """True if the grid covers all longitudes and most latitudes."""
    return bool(grid.is_cyclic and np.ptp(grid.latitude) > 90)


def mollweide(latitude: float, longitude: float) -> tuple[float, float]:
    """Map coordinates of a place in degrees: x from -2 to 2, y from -1 to 1."""
    table = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 20001)
    theta = np.interp(np.pi * np.sin(np.deg2rad(latitude)), 2.0 * table + np.sin(2.0 * table), table)
    east = np.mod(longitude, 360.0) - 180.0
    return float(east / 90.0 * np.cos(theta)), float(np.sin(theta))


def map_sampling(grid: LatLonGrid, width: int) -> MapSampling:
    """The sampling of a map `width` pixels wide: of the sphere an equal-area ellipse, half as high as wide."""
    if is_whole_sphere(grid):
        y, x = np.mgrid[1 : -1 : width // 2 * 1j, -1 : 1 : width * 1j]
        inside = x**2 + y**2 <= 1.0
        theta = np.arcsin(y)
        latitude = np.degrees(np.arcsin(np.clip((2 * theta + np.sin(2 * theta)) / np.pi, -1, 1)))
        longitude = 180.0 + 180.0 * np.clip(x / np.maximum(np.cos(theta), 1e-9), -1, 1)
    else:
        east = _eastward(grid) + grid.longitude[0]
        shape = np.ptp(grid.latitude) / np.ptp(east) / max(np.cos(np.deg2rad(grid.latitude.mean())), 0.1)
        latitude, longitude = np.meshgrid(
            np.linspace(grid.latitude[0], grid.latitude[-1], max(8, min(int(width * shape), 2 * width))),
            np.linspace(east[0], east[-1], width),
            indexing="ij",
        )
        inside = np.ones(latitude.shape, dtype=bool)
    return _bilinear(grid, latitude, longitude, inside)


def _eastward(grid: LatLonGrid) -> np.ndarray:
    """Degrees east of the first meridian, growing along the row."""
    return np.concatenate([[0.0], np.cumsum(np.mod(np.diff(grid.longitude), 360.0))])


def _bilinear(grid: LatLonGrid, latitude: np.ndarray, longitude: np.ndarray, inside: np.ndarray) -> MapSampling:
    rows = np.interp(-latitude, -grid.latitude, np.arange(grid.shape[0]))
    steps, east = np.mod(longitude - grid.longitude[0], 360.0), _eastward(grid)
    east = np.append(east, 360.0) if grid.is_cyclic else east
    columns = np.interp(steps, east, np.arange(east.size))
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    last = grid.shape[0] - 1
    index, weight = [], []
    for i, a in ((top, 1 - down), (np.minimum(top + 1, last), down)):
        for j, b in ((left % grid.shape[1], 1 - right), ((left + 1) % grid.shape[1], right)):
            index.append(i * grid.shape[1] + j)
            weight.append(a * b)
    return MapSampling(np.stack(index), np.stack(weight), inside)


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
        fine_grid = equiangular_grid(rows)
        self.grid = LatLonGrid(fine_grid.latitude, fine_grid.longitude + 180.0 / fine_grid.longitude.size)
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
        values = self._target.field(coefficients * self._damping if soft else coefficients).numpy()
        return values if least is None else values.clip(min=least)


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
        sample = dataset.isel(time=times[:: -(-times.size // MOST)])
        fields = (sample[n].mean(("time", "longitude")).values for n in ("u_component_of_wind", "temperature"))
        means.append(ZonalMean(name, *fields))
    return means


def kinetic_energy(dataset: xr.Dataset, level: float | None) -> np.ndarray:
    """Return the time-mean kinetic energy by degree in m2 s-2, (degrees,). level: None for data without levels."""
    require_variables(dataset, "u_component_of_wind", "v_component_of_wind")
    grid = lat_lon(grid_of(dataset))
    calculus = SphericalCalculus(grid, dtype=torch.float64)
    part = dataset if level is None else dataset.sel(level=level)
    part = part.isel(time=slice(None, None, -(-dataset.sizes["time"] // MOST)))
    u, v = (torch.from_numpy(part[f"{letter}_component_of_wind"].values.T.astype(np.float64).copy()) for letter in "uv")
    vorticity, divergence = (power(part).mean(-1).numpy() for part in calculus.vorticity_divergence(u, v))
    degree = np.arange(calculus.degrees)
    scale = EARTH_RADIUS**2 / (8.0 * np.pi * np.maximum(degree * (degree + 1), 1))
    return (vorticity + divergence) * np.where(degree > 0, scale, 0.0)
