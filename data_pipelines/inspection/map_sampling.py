"""Sample fields of a grid at the pixels of a map: equal-area (Mollweide) for the sphere, plain degrees for a part.

    x = 2 / pi  longitude cos(theta),   y = sin(theta),   2 theta + sin(2 theta) = pi sin(latitude)

with the 180th meridian in the middle; x in units of half the height (Snyder 1987, doi 10.3133/pp1395, p. 251).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emulators.grid import LatLonGrid


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
