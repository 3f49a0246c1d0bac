"""Cubed sphere, equiangular: six faces of n x n cells between great circles (Ronchi et al. 1996,
doi 10.1006/jcph.1996.0047).

On the face of the x axis a cell has the angles alpha, beta: its direction is (1, tan(alpha), tan(beta)). Areas are
exact; by symmetry the points integrate spherical harmonics up to degree 3 exactly, higher ones to about 1 / n^2.
"""

from __future__ import annotations

import numpy as np

from emulators.grid import Grid, PointGrid, degrees_of
from emulators.sphere.polygons import Cells, whole_cells

EXAMPLES = ("cubed_sphere:6",)
FORMS = "cubed_sphere:16"
FAMILY = "cubed_sphere"
FACES = np.array(  # the axes that 1, tan(alpha) and tan(beta) go along: four around the equator, north, south
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 1]], [[0, 0, 1], [0, 1, 0], [-1, 0, 0]], [[0, 0, -1], [0, 1, 0], [1, 0, 0]],
    ],
    dtype=np.float64,
)  # fmt: skip


def named(name: str) -> PointGrid | None:
    """Return the grid called cubed_sphere:<n>, face by face, rows of alpha one after the other."""
    word, _, count = name.partition(":")
    if word != FAMILY or not count.isdigit() or int(count) < 1:
        return None
    n = int(count)
    middle = (np.arange(n) + 0.5) / n
    return PointGrid(*degrees_of(_directions(middle).reshape(-1, 3)), _cells(n).areas, FAMILY, f"{FAMILY}:{n}")


def cells(grid: Grid) -> Cells:
    """Return the cells."""
    return _cells(round((grid.size / 6) ** 0.5))


def _cells(n: int) -> Cells:
    edges = _directions(np.arange(n + 1) / n)
    around = [edges[:, :-1, :-1], edges[:, 1:, :-1], edges[:, 1:, 1:], edges[:, :-1, 1:]]
    return whole_cells(np.stack(around, axis=3).reshape(-1, 4, 3))


def _directions(shares: np.ndarray) -> np.ndarray:
    """Return unit vectors at shares 0 to 1 of the faces' angles, (face, beta, alpha, 3)."""
    slope = np.tan(0.5 * np.pi * (shares - 0.5))
    beta, alpha = np.meshgrid(slope, slope, indexing="ij")
    plane = np.stack([np.ones_like(alpha), alpha, beta], axis=-1)
    directions = np.einsum("yxk,fkd->fyxd", plane, FACES)
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)
