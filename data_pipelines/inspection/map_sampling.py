"""Sample fields of a grid at the pixels of an equal-area map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emulators.grid import LatLonGrid

WIDTH = 440  # pixels of a map


class Sampling(NamedTuple):
    """How a map is drawn from a grid: the four points around each pixel with their weights; where there is map."""

    points: np.ndarray
    weight: np.ndarray
    inside: np.ndarray

    def of(self, field: np.ndarray) -> np.ndarray:
        """Values at the pixels, shape (y, x)."""
        return (field.ravel()[self.points] * self.weight).sum(axis=0)


def sampling(grid: LatLonGrid, width: int = WIDTH) -> Sampling:
    """An equal-area map (Mollweide, the 180th meridian in its middle) of the sphere, or plain degrees of a part of it;
    bilinear between the points of the grid."""
    if grid.is_cyclic and np.ptp(grid.latitude) > 90:
        y, x = np.mgrid[1 : -1 : width // 2 * 1j, -1 : 1 : width * 1j]
        inside = x**2 + y**2 <= 1.0
        theta = np.arcsin(y)
        latitude = np.degrees(np.arcsin(np.clip((2 * theta + np.sin(2 * theta)) / np.pi, -1, 1)))
        longitude = 180.0 + 180.0 * np.clip(x / np.maximum(np.cos(theta), 1e-9), -1, 1)
    else:
        east = grid.longitude[0] + np.concatenate([[0.0], np.cumsum(np.mod(np.diff(grid.longitude), 360.0))])
        shape = np.ptp(grid.latitude) / np.ptp(east) / max(np.cos(np.deg2rad(grid.latitude.mean())), 0.1)
        latitude, longitude = np.meshgrid(
            np.linspace(grid.latitude[0], grid.latitude[-1], max(8, min(int(width * shape), 2 * width))),
            np.linspace(east[0], east[-1], width),
            indexing="ij",
        )
        inside = np.ones(latitude.shape, dtype=bool)
    return bilinear(grid, latitude, longitude, inside)


def bilinear(grid: LatLonGrid, latitude: np.ndarray, longitude: np.ndarray, inside: np.ndarray) -> Sampling:
    """The four points around each place."""
    rows = np.interp(-latitude, -grid.latitude, np.arange(grid.shape[0]))
    steps = np.mod(longitude - grid.longitude[0], 360.0)
    east = np.concatenate([[0.0], np.cumsum(np.mod(np.diff(grid.longitude), 360.0))])
    if grid.is_cyclic:
        columns = np.interp(steps, np.append(east, 360.0), np.arange(grid.shape[1] + 1))
    else:
        columns = np.interp(steps, east, np.arange(grid.shape[1]))
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    last = grid.shape[0] - 1
    index, weight = [], []
    for i, a in ((top, 1 - down), (np.minimum(top + 1, last), down)):
        for j, b in ((left % grid.shape[1], 1 - right), ((left + 1) % grid.shape[1], right)):
            index.append(i * grid.shape[1] + j)
            weight.append(a * b)
    return Sampling(np.stack(index), np.stack(weight), inside)


def coast_pixels(land: np.ndarray | None, where: Sampling) -> np.ndarray:
    """True at the pixels of coasts, where the land fraction passes one half."""
    edge = np.zeros(where.inside.shape, dtype=bool)
    if land is not None:
        ground = where.of(land) > 0.5
        edge[:, 1:] |= ground[:, 1:] != ground[:, :-1]
        edge[1:] |= ground[1:] != ground[:-1]
    return edge & where.inside
