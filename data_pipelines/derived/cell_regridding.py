"""Sparse weights from any grid to any other: conservative, barycentric, nearest, inverse distance.

    F_I = sum_i W_Ii f_i

The weights are those of `emulators.grids.weights`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array, load_npz
from torch import Tensor

from data_pipelines.files.archives import refusing_damage
from data_pipelines.files.atomic import atomic_file
from emulators.grid import Grid
from emulators.grids.weights import bilinear_weights, conservative_weights, nearest_weights

SPARSE_METHODS = ("conservative", "bilinear", "nearest", "inverse_distance")
SIDE_SLIVER = 1e-3  # a share of a cell so small may come from sides that are taken for arcs
NEIGHBOURS = 4


class CellRegridding:
    """Regrid fields (..., *source.shape) to (..., *target.shape) in float64; NaN is a missing value.

    method: one of SPARSE_METHODS. file: sparse weights that are read from there, or put there once they are made; ValueError
    if it holds those of other grids or another method. A cell of which nothing is known is missing; means are over what
    is known of it.
    """

    def __init__(self, source: Grid, target: Grid, method: str = "conservative", file: Path | None = None) -> None:
        if method not in SPARSE_METHODS:
            raise ValueError(f"Between these grids method is one of {', '.join(SPARSE_METHODS)}; got '{method}'.")
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
        least = SIDE_SLIVER if self.method == "conservative" else 1.0 - 1e-9
        with np.errstate(invalid="ignore", divide="ignore"):
            result = np.where(share > least, total / share, np.nan)
        return torch.from_numpy(result.T.reshape(*values.shape[:-1], *self.target.shape))


def _makers() -> dict:
    return {
        "conservative": conservative_weights,
        "bilinear": bilinear_weights,
        "nearest": nearest_weights,
        "inverse_distance": lambda source, target: nearest_weights(source, target, NEIGHBOURS),
    }


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
