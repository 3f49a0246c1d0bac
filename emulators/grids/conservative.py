"""Weights between any two grids that keep what is regridded, by the areas that their cells share.

    F_I = sum_i W_Ii f_i,    W_Ii = (area of cell i within cell I) / (area of cell I)

Cells are polygons on the sphere (`emulators.sphere.polygons`); stretches of rows overlap in closed form. Between grids
of the whole sphere the areas are scaled by factors of their rows and columns (Deming & Stephan 1940,
doi 10.1214/aoms/1177731829) until they add up to the weights of both grids: constants stay, and the global mean as
either grid weighs it is kept to rounding, although polygons have other areas than Gaussian weights by up to 1e-3.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array

from emulators.grid import Grid
from emulators.grids.catalogue import cells_of, row_edges
from emulators.sphere.polygons import overlaps

ROUNDS = 1000  # of scaling; some tens are enough between grids of the kinds known here


def conservative_weights(source: Grid, target: Grid) -> csr_array:
    """Return the share of each cell of the target that lies within each cell of the source, (target, source)."""
    rows = row_edges(source), row_edges(target)
    shared = overlaps(cells_of(source), cells_of(target)) if None in rows else _row_overlaps(*rows)  # type: ignore[arg-type]
    if source.is_global and target.is_global:
        return _scaled(shared, source.weights.reshape(-1), target.weights.reshape(-1))
    area = cells_of(target).areas
    return (shared / area[:, None]).tocsr()


def _row_overlaps(source: tuple[np.ndarray, ...], target: tuple[np.ndarray, ...]) -> csr_array:
    """Return the areas that stretches of rows share; each grid: edges as sines, cells a row, western edges."""
    parts = []
    firsts = [np.cumsum(count) - count for _, count, _ in (source, target)]
    for row in range(len(target[1])):
        top, bottom = target[0][row], target[0][row + 1]
        begin = max(0, int(np.searchsorted(-source[0], -top, side="right")) - 1)
        for source_row in range(begin, len(source[1])):
            height = min(top, source[0][source_row]) - max(bottom, source[0][source_row + 1])
            if source[0][source_row] <= bottom:
                break
            if height > 0.0:
                ends = (float(grid[k][n]) for grid, n in ((source, source_row), (target, row)) for k in (1, 2))
                source_cells, target_cells, width = _stretches(*ends)
                parts.append(
                    (firsts[1][row] + target_cells, firsts[0][source_row] + source_cells, np.deg2rad(width) * height)
                )
    triples = [np.concatenate([part[k] for part in parts]) for k in range(3)]
    return csr_array(
        coo_array((triples[2], (triples[0], triples[1])), shape=(int(target[1].sum()), int(source[1].sum())))
    )


def _stretches(count: float, west: float, other: float, start: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the cells of two rows around the circle that overlap, and by how many degrees."""
    steps = 360.0 / count, 360.0 / other
    shift = (west - start) % 360.0
    edges = np.concatenate([np.arange(other) * steps[1], (shift + np.arange(count) * steps[0]) % 360.0, [360.0]])
    edges = np.unique(edges)
    middle, width = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    kept = width > 1e-11
    middle, width = middle[kept], width[kept]
    cells = np.floor(((middle - shift) % 360.0) / steps[0]).astype(np.int64) % int(count)
    return cells, np.floor(middle / steps[1]).astype(np.int64) % int(other), width


def _scaled(shared: csr_array, source: np.ndarray, target: np.ndarray) -> csr_array:
    """Return shares whose weighted sums over both grids are exact."""
    shared, (source, target) = shared.tocsr(), (source / source.sum(), target / target.sum())
    left, right = np.ones(len(target)), np.ones(len(source))
    across = shared.T.tocsr()
    for _ in range(ROUNDS):
        left = target / (shared @ right)
        sums = right * (across @ left)
        if np.abs(sums / source - 1.0).max() < 1e-14:
            break
        right *= source / sums
    left = target / (shared @ right)
    scaled = shared.multiply(left[:, None]).multiply(right[None]).tocsr()
    return csr_array(scaled.multiply(1.0 / target[:, None]))
