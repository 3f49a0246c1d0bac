"""Grids: the points of a field on the sphere, and the area of each; rows and columns, or any set of cells.

The weight of a point is the area of its cell divided by the mean cell area,

    w_ij = (sin(phi_{i-1/2}) - sin(phi_{i+1/2})) * dlambda_j / mean

with bounds midway between neighbours and at the poles (WeatherBench 2: Rasp et al. 2024, arXiv 2308.15560).
On a Gaussian or Lobatto grid the cells are those whose areas are the weights of the quadrature, so that area means
are exact for every field that the grid resolves. A grid that covers part of the sphere ends half a cell beyond its
edge rows.
The Gaussian grid of one row is the equator: the circle on which one-dimensional worlds live.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

WAYS = {"latitude": "north", "longitude": "east"}
TOLERANCE = 1e-3  # degrees, to which points of two grids are the same; single precision has 3e-5 at 360


class Grid(ABC):
    """Describe the points of a field and the area of each; fields have the shape (*lead, channel, *grid.shape)."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of a field: (lat, lon), or (cell,)."""

    @property
    @abstractmethod
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude of every point in degrees, float64, each (size,), in the order of a flat field."""

    @property
    @abstractmethod
    def weights(self) -> np.ndarray:
        """The cell areas with mean 1, float64, of the grid's shape."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """What the points are: `gaussian`, `limited_area`, `reduced_gaussian`, `healpix`, `stations`, ..."""

    @property
    @abstractmethod
    def is_global(self) -> bool:
        """True if the cells cover the whole sphere."""

    @abstractmethod
    def plain(self) -> dict[str, Any]:
        """Return the grid as numbers, strings and lists of them, for a checkpoint."""

    @property
    def size(self) -> int:
        """The number of points."""
        return int(np.prod(self.shape))

    @property
    def size_text(self) -> str:
        """The size in words: `32x64` or `5248 cells`."""
        return "x".join(map(str, self.shape)) if len(self.shape) > 1 else f"{self.size} cells"

    def same_as(self, other: Grid, tolerance: float = TOLERANCE) -> bool:
        """Return True if both grids hold the same points to `tolerance` degrees."""
        return self.shape == other.shape and degrees_apart(self.points, other.points) <= tolerance


def grid_dims(grid: Grid) -> tuple[str, ...]:
    """Return the names of the grid's dimensions: latitude and longitude, or cell."""
    return ("latitude", "longitude") if len(grid.shape) == 2 else ("cell",)


def grid_coordinates(grid: Grid) -> dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]]:
    """Return the coordinates of a field, {name: (dimensions, values, CF attributes)}; of cells, their areas too."""
    attrs = {name: {"long_name": name, "standard_name": name, "units": f"degrees_{way}"} for name, way in WAYS.items()}
    if isinstance(grid, LatLonGrid):
        axes = {"latitude": grid.latitude, "longitude": grid.longitude}
        return {name: ((name,), axes[name], attrs[name] | {"axis": "YX"[n]}) for n, name in enumerate(WAYS)}
    coordinates = {name: (("cell",), values, attrs[name]) for name, values in zip(WAYS, grid.points, strict=True)}
    area = {"long_name": "area of the cell over the mean area", "units": "1"}
    return coordinates | {"cell_area_weight": (("cell",), grid.weights, area)}


@dataclass(frozen=True, eq=False)
class PointGrid(Grid):
    """Hold any set of points on the sphere, and the area of the cell of each.

    latitude, longitude: degrees, each (cell,); longitudes are brought to [0, 360). area: of the cells, (cell,), in any
    unit. family: a file of `emulators.grids`, or `points`. name: by which `named_grid` makes the grid, or empty.
    coverage: share of the sphere that the cells cover; 0 for points without cells, as stations are.
    raster: rows and columns where the cells are those of a field (y, x), else empty.
    Raises ValueError for coordinates that are no such points.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    area: np.ndarray
    family: str = "points"
    name: str = ""
    coverage: float = 1.0
    raster: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        inputs = {"latitude": self.latitude, "longitude": self.longitude, "area": self.area}
        fields = {name: np.asarray(values, dtype=np.float64) for name, values in inputs.items()}
        shapes = {array.shape for array in fields.values()}
        if len(shapes) > 1 or fields["latitude"].ndim != 1 or not fields["latitude"].size:
            raise ValueError(
                "A set of points needs latitudes, longitudes and areas of one shape (cell,); got shapes "
                f"{', '.join(str(array.shape) for array in fields.values())}."
            )
        if not all(np.isfinite(array).all() for array in fields.values()):
            raise ValueError("Latitudes, longitudes and areas of points must be finite; leave out points without them.")
        if np.abs(fields["latitude"]).max() > 90.001:
            low, high = fields["latitude"].min(), fields["latitude"].max()
            raise ValueError(f"Latitudes must lie within -90..90 degrees; got {low}..{high}.")
        if fields["area"].min() < 0.0 or not fields["area"].sum() > 0.0:
            raise ValueError(f"Areas of cells must not be negative nor all zero; got {fields['area'].min()} and up.")
        if self.raster and int(np.prod(self.raster)) != fields["latitude"].size:
            raise ValueError(f"{fields['latitude'].size} cells do not fill {self.raster} rows and columns.")
        fields["longitude"] = np.mod(fields["longitude"], 360.0)
        for name, array in fields.items():
            object.__setattr__(self, name, array)
        object.__setattr__(self, "raster", tuple(self.raster))

    @property
    def shape(self) -> tuple[int]:
        """The number of cells, (cell,)."""
        return (self.latitude.size,)

    @property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude of every cell in degrees, each (cell,)."""
        return self.latitude, self.longitude

    @cached_property
    def weights(self) -> np.ndarray:
        """The cell areas with mean 1, float64, shape (cell,)."""
        return self.area / self.area.mean()

    @property
    def kind(self) -> str:
        """The family of the grid: `reduced_gaussian`, `healpix`, `limited_area`, `stations`, `points`, ..."""
        return self.family

    @property
    def is_global(self) -> bool:
        """True if the cells cover the whole sphere."""
        return self.coverage > 0.999

    def plain(self) -> dict[str, Any]:
        """Return the grid as numbers, strings and lists of them, for a checkpoint."""
        arrays = {"latitude": self.latitude, "longitude": self.longitude, "area": self.area}
        words = {"family": self.family, "name": self.name, "coverage": self.coverage, "raster": list(self.raster)}
        return {**{name: array.tolist() for name, array in arrays.items()}, **words}

    def __repr__(self) -> str:
        return f"PointGrid({self.name or self.family}, {self.size_text})"

    def __str__(self) -> str:
        return f"{self.family} {self.name}".rstrip() + f" of {self.size_text}"


@dataclass(frozen=True, eq=False)
class LatLonGrid(Grid):
    """Hold the latitudes and longitudes of a grid, and the areas of its cells.

    latitude: degrees north, from north to south, shape (lat,).
    longitude: degrees east in [0, 360), eastward, shape (lon,); a limited area may cross the zero meridian.
    Raises ValueError for coordinates that are no such grid.
    """

    latitude: np.ndarray
    longitude: np.ndarray

    def __post_init__(self) -> None:
        latitude = np.asarray(self.latitude, dtype=np.float64)
        longitude = np.asarray(self.longitude, dtype=np.float64)
        if latitude.ndim != 1 or longitude.ndim != 1 or min(2 * latitude.size, longitude.size) < 2:
            raise ValueError(
                "A latitude-longitude grid needs one-dimensional latitudes and longitudes, at least 2 of each (or one "
                f"row, the equator); got shapes {latitude.shape} and {longitude.shape}."
            )
        if np.abs(latitude).max() > 90.001:
            raise ValueError(f"Latitudes must lie within -90..90 degrees; got {latitude.min()}..{latitude.max()}.")
        if not (np.diff(latitude) < 0).all():
            raise ValueError("Latitudes must run from north to south without repetition; sort the field first.")
        steps = self._eastward_steps(longitude)
        if not (steps > 0).all() or steps.sum() > 359.999:
            raise ValueError("Longitudes must run eastward, once around at most; sort the field first.")
        object.__setattr__(self, "latitude", latitude)
        object.__setattr__(self, "longitude", np.mod(longitude, 360.0))
        if latitude.size == 1 and self.kind != "gaussian":
            raise ValueError(
                f"A grid of one row goes around the equator; got latitude {latitude[0]:g}, longitudes "
                f"{longitude[0]:g}..{longitude[-1]:g}. Give at least 2 rows anywhere else."
            )

    @staticmethod
    def _eastward_steps(longitude: np.ndarray) -> np.ndarray:
        return np.mod(np.diff(longitude), 360.0)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and columns, (lat, lon)."""
        return self.latitude.size, self.longitude.size

    @cached_property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude of every point in degrees, row by row, each (lat * lon,)."""
        return np.repeat(self.latitude, self.longitude.size), np.tile(self.longitude, self.latitude.size)

    @property
    def is_global(self) -> bool:
        """True if the cells cover the whole sphere."""
        return self.kind != "limited_area"

    @cached_property
    def is_cyclic(self) -> bool:
        """True if the last longitude is followed by the first."""
        steps = self._eastward_steps(self.longitude)
        return bool(abs(steps.sum() + steps.mean() - 360.0) < 0.01 * steps.mean())

    @cached_property
    def kind(self) -> str:
        """The kind of the grid: `gaussian`, `lobatto`, `equiangular`, `equiangular_with_poles` or `limited_area`."""
        latitude, nlat = self.latitude, self.latitude.size
        gauss = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(nlat)[0][::-1]))
        if not self.is_cyclic:
            return "limited_area"
        if np.allclose(latitude, gauss, atol=1e-3):
            return "gaussian"
        if np.allclose(latitude, np.linspace(90.0, -90.0, nlat), atol=1e-3):
            return "equiangular_with_poles"
        half = 90.0 / nlat
        if np.allclose(latitude, np.linspace(90.0 - half, -90.0 + half, nlat), atol=1e-3):
            return "equiangular"
        if nlat > 3 and np.allclose(latitude, np.rad2deg(np.arcsin(lobatto_rule(nlat)[0])), atol=1e-3):
            return "lobatto"
        return "limited_area"

    @cached_property
    def latitude_bounds(self) -> np.ndarray:
        """The edges of the rows in degrees, north to south, shape (lat + 1,)."""
        inner = 0.5 * (self.latitude[1:] + self.latitude[:-1])
        if self.kind == "limited_area":
            north = self.latitude[0] + 0.5 * (self.latitude[0] - self.latitude[1])
            south = self.latitude[-1] - 0.5 * (self.latitude[-2] - self.latitude[-1])
        else:
            north, south = 90.0, -90.0
        return np.clip(np.concatenate([[north], inner, [south]]), -90.0, 90.0)

    @cached_property
    def weights(self) -> np.ndarray:
        """The cell areas with mean 1, float64, shape (lat, lon)."""
        if self.kind == "gaussian":
            rows = np.polynomial.legendre.leggauss(self.latitude.size)[1][::-1]
        elif self.kind == "lobatto":
            rows = lobatto_rule(self.latitude.size)[1]
        else:
            edges = np.sin(np.deg2rad(self.latitude_bounds))
            rows = edges[:-1] - edges[1:]
        steps = self._eastward_steps(self.longitude)
        if self.is_cyclic:
            steps = np.append(steps, 360.0 - steps.sum())
            columns = 0.5 * (steps + np.roll(steps, 1))
        else:
            columns = 0.5 * (np.append(steps, steps[-1]) + np.append(steps[0], steps))
        area = np.outer(rows, columns)
        return area / area.mean()

    def plain(self) -> dict:
        """Return the grid as lists of numbers, for a checkpoint."""
        return {"latitude": self.latitude.tolist(), "longitude": self.longitude.tolist()}

    def __repr__(self) -> str:
        return f"LatLonGrid({self.kind}, {self.shape[0]}x{self.shape[1]})"

    def __str__(self) -> str:
        rows, columns = self.shape
        spacing = abs(float(np.mean(np.diff(self.latitude)))) if rows > 1 else 0.0
        return f"{self.kind} {columns}x{rows} (longitude x latitude), {spacing:.3g} degrees of latitude"


def grid_from_plain(plain: Mapping[str, Any]) -> Grid:
    """Return the grid that `plain` described."""
    if "area" not in plain:
        return LatLonGrid(np.array(plain["latitude"]), np.array(plain["longitude"]))
    latitude, longitude, area = (np.array(plain[name]) for name in ("latitude", "longitude", "area"))
    words = {name: plain[name] for name in ("family", "name", "coverage")}
    return PointGrid(latitude, longitude, area, **words, raster=tuple(plain["raster"]))


def lat_lon(grid: Grid) -> LatLonGrid:
    """Return a grid of latitudes and longitudes as such; ValueError for a set of cells."""
    if isinstance(grid, LatLonGrid):
        return grid
    raise ValueError(
        f"This needs rows and columns of latitude and longitude; the data lie on {grid}. Choose a part that takes any "
        "points, such as model=linear with kernel=1, or regrid the data: `emul data regrid grid=64x32_gaussian`."
    )


def unit_vectors(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Return the points of the unit sphere at latitudes and longitudes in degrees, (..., 3)."""
    phi, angle = np.deg2rad(latitude), np.deg2rad(longitude)
    return np.stack([np.cos(phi) * np.cos(angle), np.cos(phi) * np.sin(angle), np.sin(phi)], axis=-1)


def degrees_of(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return latitude and longitude in degrees of directions (..., 3), of any length."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.rad2deg(np.arctan2(z, np.hypot(x, y))), np.mod(np.rad2deg(np.arctan2(y, x)), 360.0)


def degrees_apart(some: tuple[np.ndarray, np.ndarray], others: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the largest difference of latitude or, away from the poles, of longitude between points, in degrees."""
    around = np.abs(some[1] - others[1])
    around = np.minimum(around, 360.0 - around) * (np.abs(some[0]) < 89.999)
    return float(max(np.abs(some[0] - others[0]).max(), around.max()))


def place_text(latitude: float, longitude: float) -> str:
    """Return a point in words: `52.5 N, 13.4 E`."""
    east = longitude if longitude <= 180.0 else longitude - 360.0
    return f"{abs(latitude):g} {'N' if latitude >= 0 else 'S'}, {abs(east):g} {'E' if east >= 0 else 'W'}"


def gaussian_grid(nlat: int, nlon: int | None = None) -> LatLonGrid:
    """Return the Gauss-Legendre grid of `nlat` rows and `nlon` columns (default: twice as many as rows)."""
    latitude = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(nlat)[0][::-1]))
    return LatLonGrid(latitude, _full_circle(nlon or 2 * nlat))


def alias_free_grid(truncation: int) -> LatLonGrid:
    """Return the Gaussian grid with the least even number of rows on which products of two fields do not alias.

    truncation: highest degree of the fields; the grid has at least (3 truncation + 1) / 2 rows.
    """
    rows = -(-(3 * truncation + 1) // 2)
    return gaussian_grid(rows + rows % 2)


def lobatto_grid(nlat: int, nlon: int | None = None) -> LatLonGrid:
    """Return the Gauss-Lobatto grid of `nlat` rows, both poles included, and `nlon` columns (default: 2 (nlat - 1))."""
    latitude = np.rad2deg(np.arcsin(lobatto_rule(nlat)[0]))
    return LatLonGrid(latitude, _full_circle(nlon or 2 * (nlat - 1)))


def lobatto_rule(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of Gauss-Lobatto quadrature on -1..1, descending, each (n,).

    The inner nodes are the zeros of the Jacobi polynomial P(1,1) of degree n - 2, eigenvalues of a tridiagonal matrix
    (Golub & Welsch 1969, doi 10.1090/S0025-5718-69-99647-1). Raises ValueError for n below 2, as both ends are nodes.
    """
    if n < 2:
        raise ValueError(f"A Gauss-Lobatto grid has a row at each pole: expected at least 2 rows; got {n}.")
    k = np.arange(1.0, n - 2)
    off_diagonal = np.sqrt(k * (k + 2.0) / ((2.0 * k + 1.0) * (2.0 * k + 3.0)))
    inner = np.linalg.eigvalsh(np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1))[::-1]
    inner = 0.5 * (inner - inner[::-1])  # symmetric to the last digit
    nodes = np.concatenate([[1.0], inner, [-1.0]])
    last = np.polynomial.legendre.Legendre.basis(n - 1)(nodes)
    return nodes, 2.0 / (n * (n - 1) * last * last)


def equiangular_grid(nlat: int, nlon: int | None = None, poles: bool = False) -> LatLonGrid:
    """Return a grid of equally spaced rows: cell centres inside the sphere or, with `poles`, from pole to pole.

    nlon: default, columns as far apart as rows.
    """
    half = 0.0 if poles else 90.0 / nlat
    return LatLonGrid(np.linspace(90.0 - half, -90.0 + half, nlat), _full_circle(nlon or 2 * (nlat - poles)))


def _full_circle(nlon: int) -> np.ndarray:
    return np.arange(nlon) * (360.0 / nlon)
