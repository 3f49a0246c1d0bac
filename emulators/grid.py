"""Grids: the points of a field on the sphere, and the area of each.

The weight of a point is the area of its cell divided by the mean cell area,

    w_ij = (sin(phi_{i-1/2}) - sin(phi_{i+1/2})) * dlambda_j / mean

with bounds midway between neighbours and at the poles (WeatherBench 2: Rasp et al. 2024, arXiv 2308.15560).
On a Gaussian or Lobatto grid the cells are those whose areas are the weights of the quadrature, so that area means
are exact for every field that the grid resolves. A grid that covers part of the sphere ends half a cell beyond its
edge rows.
The Gaussian grid of one row is the equator: the circle on which one-dimensional worlds live.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

TOLERANCE = 1e-3  # degrees, to which points of two grids are the same; single precision has 3e-5 at 360


@dataclass(frozen=True, eq=False)
class LatLonGrid:
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

    def same_as(self, other: LatLonGrid, tolerance: float = TOLERANCE) -> bool:
        """Return True if both grids hold the same points to `tolerance` degrees."""
        if self.shape != other.shape:
            return False
        around = np.abs(self.longitude - other.longitude)
        away = max(np.abs(self.latitude - other.latitude).max(), np.minimum(around, 360.0 - around).max())
        return bool(away <= tolerance)

    def __repr__(self) -> str:
        return f"LatLonGrid({self.kind}, {self.shape[0]}x{self.shape[1]})"


def place_text(grid: LatLonGrid, row: int, column: int) -> str:
    """Return a point in words: `52.5 N, 13.4 E`."""
    latitude, longitude = float(grid.latitude[row]), float(grid.longitude[column])
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
    beside = np.sqrt(k * (k + 2.0) / ((2.0 * k + 1.0) * (2.0 * k + 3.0)))
    inner = np.linalg.eigvalsh(np.diag(beside, 1) + np.diag(beside, -1))[::-1]
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
