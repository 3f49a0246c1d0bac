"""Neighbourhoods on the sphere: means and maxima over discs, and means over pairs of near points.

    mean_i = sum_{j in N_i} a_j x_j / sum_{j in N_i} a_j,    max_i = max_{j in N_i} x_j,    N_i = {j: d(i, j) <= r}

d is the distance along a great circle, a the area of cells, r the radius of the discs. Each point is the centre of a
disc and belongs to it, so that discs overlap and scores of them are averaged over area as scores of points are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.spatial import cKDTree
from torch import Tensor

from emulators.constants import EARTH_RADIUS
from emulators.grid import Grid

LARGEST = 10_000.0  # km: a quarter of the way around the Earth
BLOCK = 2**22  # numbers that are gathered at a time


class Neighbourhood:
    """Hold which points of a grid lie within `radius` km of each. ValueError for a radius that is none.

    indices: neighbours of all points, one after the other, (pair,). starts: where those of each point begin, (point,).
    centres: the point whose neighbour it is, (pair,). shares: of the neighbour in the area of the disc, (pair,).
    """

    def __init__(self, grid: Grid, radius: float) -> None:
        if not 0.0 < radius <= LARGEST:
            raise ValueError(f"Expected a radius above 0 and up to {LARGEST:g} km; got {radius:g}.")
        latitude, longitude = (np.deg2rad(degrees) for degrees in grid.points)
        ring = np.cos(latitude)
        points = np.stack([ring * np.cos(longitude), ring * np.sin(longitude), np.sin(latitude)], axis=1)
        chord = 2.0 * np.sin(0.5e3 * radius / EARTH_RADIUS) * (1.0 + 1e-9)  # points at the radius itself belong to it
        near = cKDTree(points).query_ball_point(points, chord, return_sorted=True)
        counts = np.array([len(neighbours) for neighbours in near])
        self.indices, self.centres = np.concatenate(near).astype(np.int64), np.repeat(np.arange(grid.size), counts)
        self.starts = np.concatenate([[0], counts.cumsum()[:-1]])
        area = grid.weights.ravel()[self.indices]
        self.shares = area / np.add.reduceat(area, self.starts)[self.centres]
        table = self.shares, self.indices, np.append(self.starts, self.indices.size)
        self._means = csr_array(table, shape=(grid.size, grid.size))

    def mean(self, field: Tensor) -> Tensor:
        """Return the means over discs of (..., point), of the same shape; NaN where a point of the disc is."""
        return self._by_rows(field, lambda rows: (self._means @ rows.T).T, self.starts.size)

    def maximum(self, field: Tensor) -> Tensor:
        """Return the maxima over discs of (..., point), of the same shape; NaN where a point of the disc is."""

        def largest(rows: np.ndarray) -> np.ndarray:
            return np.maximum.reduceat(rows.T[self.indices], self.starts, axis=0).T

        return self._by_rows(field, largest, self.indices.size)

    def pair_mean(self, score: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, target: Tensor) -> Tensor:
        """Return the means over discs of a score of differences, neighbour less centre, (row, point).

        prediction: (member, row, point); target: (row, point). score: of (member, pair) and (pair,), (pair,).
        """
        indices, centres = torch.from_numpy(self.indices), torch.from_numpy(self.centres)
        means = []
        for row in range(len(target)):
            ours, true = prediction[:, row].double().cpu(), target[row].double().cpu()
            value = score(ours[:, indices] - ours[:, centres], true[indices] - true[centres])
            means.append(np.add.reduceat(value.numpy() * self.shares, self.starts))
        return torch.from_numpy(np.stack(means)).to(target)

    def _by_rows(self, field: Tensor, pooled: Callable[[np.ndarray], np.ndarray], width: int) -> Tensor:
        flat = field.reshape(-1, field.shape[-1]).cpu().numpy()
        parts = [pooled(rows) for rows in _blocks(flat, max(1, BLOCK // width))]
        return torch.from_numpy(np.concatenate(parts)).reshape(field.shape).to(field)


def _blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


@lru_cache(maxsize=8)
def neighbourhood(grid: Grid, radius: float) -> Neighbourhood:
    """Return the neighbourhoods of a grid, made once."""
    return Neighbourhood(grid, radius)
