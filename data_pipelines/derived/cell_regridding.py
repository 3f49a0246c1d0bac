"""Sparse weights from any grid to any other: conservative, barycentric, nearest, inverse distance.

    F_I = sum_i W_Ii f_i

Conservative weights are those of `emulators.grids.conservative`. Bilinear is linear within the triangles of the
source's points, or within its rows and columns. Inverse distance weighs the four nearest points with 1 / distance^2.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array, load_npz
from scipy.spatial import ConvexHull, KDTree
from torch import Tensor

from data_pipelines.files.archives import refusing_damage
from data_pipelines.files.atomic import atomic_file
from emulators.grid import Grid, LatLonGrid, unit_vectors
from emulators.grids.conservative import conservative_weights

METHODS = ("conservative", "bilinear", "nearest", "inverse_distance")
SLIVER = 1e-3  # a share of a cell so small may come from sides that are taken for arcs
NEIGHBOURS = 4


class CellRegridding:
    """Regrid fields (..., *source.shape) to (..., *target.shape) in float64; NaN is a missing value.

    method: one of METHODS. file: sparse weights that are read from there, or put there once they are made; ValueError
    if it holds those of other grids or another method. A cell of which nothing is known is missing; means are over what
    is known of it.
    """

    def __init__(self, source: Grid, target: Grid, method: str = "conservative", file: Path | None = None) -> None:
        if method not in METHODS:
            raise ValueError(f"Between these grids method is one of {', '.join(METHODS)}; got '{method}'.")
        self.source, self.target, self.method = source, target, method
        matrix = _stored(file, source, target, method) if file is not None and file.exists() else None
        if matrix is None:
            matrix = _makers()[method](source, target)
            if file is not None:
                _store(file, matrix, source, target, method)
        self.matrix = matrix.tocsr()
        self._share = np.asarray(self.matrix.sum(axis=1)).reshape(-1)

    def __call__(self, field: Tensor) -> Tensor:
        """Return the field on the target."""
        rank = len(self.source.shape)
        values = field.double().numpy().reshape(*field.shape[: field.ndim - rank], -1)
        flat = values.reshape(-1, values.shape[-1]).T
        valid = np.isfinite(flat)
        complete = valid.all()
        total = self.matrix @ (flat if complete else np.where(valid, flat, 0.0))
        share = self._share[:, None] if complete else self.matrix @ valid.astype(np.float64)
        least = SLIVER if self.method == "conservative" else 1.0 - 1e-9
        with np.errstate(invalid="ignore", divide="ignore"):
            result = np.where(share > least, total / share, np.nan)
        return torch.from_numpy(result.T.reshape(*values.shape[:-1], *self.target.shape))


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


def _makers() -> dict:
    return {
        "conservative": conservative_weights,
        "bilinear": bilinear_weights,
        "nearest": nearest_weights,
        "inverse_distance": lambda source, target: nearest_weights(source, target, NEIGHBOURS),
    }


def _matrix(weights: np.ndarray, places: np.ndarray, size: int) -> csr_array:
    """Return weights (target, few) of source points as a sparse matrix, without zeros."""
    rows = np.repeat(np.arange(len(weights)), weights.shape[1])
    matrix = csr_array(coo_array((weights.reshape(-1), (rows, places.reshape(-1))), shape=(len(weights), size)))
    matrix.eliminate_zeros()
    return matrix


def _label(source: Grid, target: Grid, method: str) -> str:
    """Return what weights depend on, in a few letters."""
    checksum = hashlib.sha256(method.encode())
    for grid in (source, target):
        for values in (*grid.points, grid.weights.reshape(-1)):
            checksum.update(np.round(values, 6).tobytes())
    return checksum.hexdigest()[:16]


def _stored(file: Path, source: Grid, target: Grid, method: str) -> csr_array:
    with refusing_damage(file), np.load(file) as archive:
        label = str(archive["label"]) if "label" in archive else ""
        matrix = csr_array(load_npz(file))
    if label != _label(source, target, method):
        raise ValueError(
            f"{file} holds other weights than those of {source} to {target}, {method}; remove it, or name another "
            "file: weights=..."
        )
    return matrix


def _store(file: Path, matrix: csr_array, source: Grid, target: Grid, method: str) -> None:
    with atomic_file(file) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            format=np.array(b"csr"), _is_array=True, shape=matrix.shape, data=matrix.data, indices=matrix.indices,
            indptr=matrix.indptr, label=_label(source, target, method),
        )  # fmt: skip
