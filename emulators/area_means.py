"""Area means of statistics of many fields over many regions, in one pass through memory.

    <s>_R = sum_x w_xR s_x,   sum_x w_xR = 1

The fields are cut along rows (fields) and points into blocks small enough for the processor's cache; there they turn
into float64, into statistics and into their share of the means, a product with the block's rows of the region matrix.
Missing values show as means that are not finite; only the fields that hold them are looked at again, point by point.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from emulators.metric import Products

Missing = Literal["truth", "any", "none"]
Statistics = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Mapping[str, Tensor | Products]]
BLOCK = 2**14  # numbers of a field taken at a time on a processor: with what is made of them they stay in its cache
WIDTH = 2**11  # points taken at a time


class Fields(NamedTuple):
    """What statistics are taken of: prediction ([member,] row, point); target and climatology (row, point)."""

    prediction: Tensor
    target: Tensor
    climatology: Mapping[str, Tensor]

    def cut(self, rows: slice | Tensor, points: slice = slice(None)) -> Fields:
        """A block of them, in float64."""
        prediction = self.prediction[..., rows, points].double()
        climatology = {name: field[rows, points].double() for name, field in self.climatology.items()}
        return Fields(prediction, self.target[rows, points].double(), climatology)


class Means(NamedTuple):
    """mean: of each statistic, (..., row, region). counted: where it had a point that counts, (row, region).

    missing: points of each row where truth or forecast is missing, (row,).
    """

    mean: dict[str, Tensor]
    counted: dict[str, Tensor]
    missing: Tensor


def area_means(statistics: Statistics, fields: Fields, matrix: Tensor, missing: Missing = "truth") -> Means:
    """The means of `statistics` over each region. matrix: float64 (point, region), on the device of the fields.

    missing: NaN points are left out where the target has none (`truth`), where the statistic is NaN (`any`), or never.
    """
    rows, points = fields.target.shape
    cpu = fields.target.device.type == "cpu"
    members = fields.prediction.shape[0] if fields.prediction.ndim == 3 else 1
    block = max(1, (BLOCK if cpu else 2**24) // members)
    width = min(points, WIDTH) if cpu else points
    height = max(1, block // width)
    parts = _mapped(
        lambda start: _means_of_rows(statistics, fields, slice(start, start + height), matrix, width),
        range(0, rows, height),
        torch.get_num_threads() if cpu else 1,
    )
    means = {name: torch.cat([part[name] for part in parts], dim=-2) for name in parts[0]}
    counted = {name: torch.ones(mean.shape[-2:], dtype=torch.bool) for name, mean in means.items()}
    gone = torch.zeros(rows, dtype=torch.int64)
    finite = torch.ones(rows, dtype=torch.bool, device=matrix.device)
    for mean in means.values():
        finite &= mean.isfinite().all(dim=-1).view(-1, rows).all(dim=0)
    broken = (~finite).nonzero()[:, 0]
    for some in broken.split(max(1, 2**20 // (points * members))) if len(broken) else ():
        cut = fields.cut(some)
        where = some.cpu()
        gone[where] = _missing_points(cut).cpu()
        for name, values in statistics(*cut).items():
            means[name][..., some, :], found = _masked(values, cut.target, matrix, missing)
            counted[name][where] = found.cpu()
    return Means(means, counted, gone)


def _mapped(function: Callable[[int], dict[str, Tensor]], starts: range, threads: int) -> list[dict[str, Tensor]]:
    """`function` of each start. Blocks are too small to be shared among threads, so each thread takes its own."""
    if threads < 2 or len(starts) < 2:
        return [function(start) for start in starts]
    try:
        return list(_pool(threads, os.getpid()).map(function, starts))
    finally:
        torch.set_num_threads(threads)  # what the threads of the pool set is theirs, and that of later threads


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay, those of this process: a fork has none of its parent's."""
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))


def _means_of_rows(
    statistics: Statistics, fields: Fields, rows: slice, matrix: Tensor, width: int
) -> dict[str, Tensor]:
    """Means of the statistics of some rows, a block of points after another, (..., row, region)."""
    found: dict[str, Tensor] = {}
    for start in range(0, fields.target.shape[1], width):
        points = slice(start, start + width)
        for name, values in statistics(*fields.cut(rows, points)).items():
            with np.errstate(invalid="ignore"):  # infinite values are found by the means that they spoil
                part = _weighted(values, matrix[points])
            found[name] = found[name] + part if name in found else part
    return found


def _weighted(values: Tensor | Products, matrix: Tensor) -> Tensor:
    """Sums of `values` (..., row, point) with the weights of each region, (..., row, region)."""
    if not isinstance(values, Products):
        return _product(values.flatten(0, -2), matrix).view(*values.shape[:-1], matrix.shape[1])
    rows = values.fields.transpose(0, 1)  # (row, member, point)
    pairs = [torch.bmm(rows * weights, rows.mT) for weights in matrix.unbind(dim=1)]
    return torch.stack(pairs, dim=-1).movedim(0, -2)


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """rows @ matrix; numpy's is several times faster where the matrix is as narrow as a list of regions."""
    if rows.device.type != "cpu":
        return rows @ matrix
    return torch.from_numpy(rows.numpy() @ matrix.numpy())


def _missing_points(fields: Fields) -> Tensor:
    prediction = fields.prediction.isnan()
    return (fields.target.isnan() | (prediction.any(0) if prediction.ndim == 3 else prediction)).sum(dim=1)


def _masked(values: Tensor | Products, target: Tensor, matrix: Tensor, missing: Missing) -> tuple[Tensor, Tensor]:
    """Mean of `values` over each region without the points left out, and whether it had a point that counts."""
    points = values.fields if isinstance(values, Products) else values
    left_out = torch.zeros_like(points, dtype=torch.bool)
    if missing != "none":
        left_out = (target if missing == "truth" else points).isnan().expand_as(points)
    if isinstance(values, Products):
        left_out = left_out.any(dim=0).expand_as(points)
    share = (~left_out).to(matrix) @ matrix
    broken = (~points.isfinite() & ~left_out).to(matrix) @ matrix > 0.0
    kept = torch.where(points.isfinite() & ~left_out, points, 0.0)
    if isinstance(values, Products):
        share, broken = share[0], broken.any(dim=0)
        mean = torch.where(broken, torch.nan, _weighted(Products(kept), matrix) / share)
    else:
        mean = torch.where(broken, torch.nan, kept @ matrix / share)
    return mean, (share > 0.0).view(-1, *share.shape[-2:]).all(dim=0)
