"""Sparse weights between any two grids: conservative by the areas that cells share, barycentric, nearest, by distance.

    F_I = sum_i W_Ii f_i,    conservative: W_Ii = (area of cell i within cell I) / (area of cell I)

Cells are polygons on the sphere (`emulators.sphere.polygons`); stretches of rows overlap in closed form. Between grids
of the whole sphere the areas are scaled by factors of their rows and columns (Deming & Stephan 1940,
doi 10.1214/aoms/1177731829) until they add up to the weights of both grids: constants stay, and the global mean as
either grid weighs it is kept to rounding, although polygons have other areas than Gaussian weights by up to 1e-3.

Bilinear is linear within the triangles of the source's points, or within its rows and columns. Inverse distance weighs
the nearest points with 1 / distance^2.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.spatial import ConvexHull, KDTree

from emulators.grid import Grid, LatLonGrid, unit_vectors
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
    is_wide = width > 1e-11
    middle, width = middle[is_wide], width[is_wide]
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


def bilinear_weights(source: Grid, target: Grid) -> csr_array:
    """Return linear weights of the corners of the triangle, or of the rows and columns, around each target point."""
    if isinstance(source, LatLonGrid):
        return _between_rows(source, *target.points)
    points, targets = unit_vectors(*source.points), unit_vectors(*target.points)
    if len(points) < 4:
        raise ValueError(f"{source} form no triangles; take method=nearest or inverse_distance.")
    hull = ConvexHull(points)
    outward = hull.equations[:, 3] < -1e-12 if source.is_global else hull.equations[:, 3] < -1e-9
    faces = hull.simplices[outward]
    centres = points[faces].sum(1)
    tree, weights = KDTree(centres / np.linalg.norm(centres, axis=1, keepdims=True)), np.zeros((len(targets), 3))
    corners, remaining = np.zeros((len(targets), 3), dtype=np.int64), np.arange(len(targets))
    for neighbours in (8, 64, 512, len(faces)):
        if not remaining.size:
            break
        candidates = tree.query(targets[remaining], k=min(neighbours, len(faces)))[1].reshape(remaining.size, -1)
        for column in range(candidates.shape[1]):
            face = faces[candidates[:, column]]
            share = np.linalg.solve(points[face].transpose(0, 2, 1), targets[remaining][..., None])[..., 0]
            inside = (share >= -1e-10).all(axis=1)
            weights[remaining[inside]] = share[inside].clip(0.0) / share[inside].clip(0.0).sum(1, keepdims=True)
            corners[remaining[inside]] = face[inside]
            remaining, candidates = remaining[~inside], candidates[~inside]
            if not remaining.size:
                break
    return _matrix(weights, corners, source.size)


def _between_rows(source: LatLonGrid, latitude: np.ndarray, longitude: np.ndarray) -> csr_array:
    """Return the weights of rows and columns around points; beyond the outermost rows those of these rows."""
    nlat, nlon = source.shape
    row = np.interp(-latitude, -source.latitude, np.arange(nlat))
    east = np.mod(source.longitude - source.longitude[0], 360.0)
    nodes = np.append(east, 360.0) if source.is_cyclic else east
    offset = np.mod(longitude - source.longitude[0], 360.0)
    column = np.interp(offset, nodes, np.arange(nodes.size))
    top, left = np.floor(row).astype(np.int64), np.floor(column).astype(np.int64)
    weights, places = [], []
    for i, down in ((top, 1.0 - (row - top)), (np.minimum(top + 1, nlat - 1), row - top)):
        for j, right in ((left, 1.0 - (column - left)), (left + 1, column - left)):
            weights.append(down * right)
            places.append(i * nlon + np.where(j >= nlon, 0 if source.is_cyclic else nlon - 1, j))
    outside = np.zeros(len(latitude), dtype=bool)
    if not source.is_global:
        north, south = source.latitude_bounds[[0, -1]]
        half = 0.0 if source.is_cyclic else 0.5 * float(np.diff(east).mean())
        beyond = (offset > east[-1] + half) & (offset < 360.0 - half)
        outside = (latitude > north) | (latitude < south) | (beyond & (not source.is_cyclic))
    return _matrix(np.stack(weights, 1) * ~outside[:, None], np.stack(places, 1), source.size)


def nearest_weights(source: Grid, target: Grid, neighbours: int = 1) -> csr_array:
    """Return the weight 1 of the nearest point, or 1 / distance^2 of several; none beyond a limited area."""
    points = unit_vectors(*source.points)
    tree, count = KDTree(points), min(neighbours, source.size)
    distance, place = (array.reshape(target.size, -1) for array in tree.query(unit_vectors(*target.points), k=count))
    weights = 1.0 / np.maximum(distance, 1e-9) ** 2
    weights[distance[:, 0] < 1e-9, 1:] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    if not source.is_global and source.kind != "stations" and source.size > 1:
        spacing = tree.query(points, k=2)[0][:, 1]
        weights[distance[:, 0] > 1.5 * np.quantile(spacing, 0.9)] = 0.0
    return _matrix(weights, place, source.size)


def _matrix(weights: np.ndarray, places: np.ndarray, size: int) -> csr_array:
    """Return weights (target, few) of source points as a sparse matrix, without zeros."""
    rows = np.repeat(np.arange(len(weights)), weights.shape[1])
    matrix = csr_array(coo_array((weights.reshape(-1), (rows, places.reshape(-1))), shape=(len(weights), size)))
    matrix.eliminate_zeros()
    return matrix
