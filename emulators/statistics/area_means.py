"""Area means of statistics of many fields over many regions, in one pass through memory.

    <s>_R = sum_x w_xR s_x,   sum_x w_xR = 1

The fields are cut along rows (fields) and circles of latitude into blocks small enough for the processor's cache; there
they turn into float64, into statistics and into their share of the means. Along a circle the weights of a box change at
its sides alone: sums between these serve all boxes, and the regions are told apart once little is left to add up.
Missing values show as means that are not finite; only the fields that hold them are looked at again, point by point.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from emulators.scores.interfaces import Product, Products, Statistic

Missing = Literal["truth", "any", "none"]
Statistics = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Mapping[str, Statistic]]
BLOCK = 2**17  # numbers of a field taken at a time on a processor: with what is made of them they stay in its cache
SIDES = 16  # a region whose weights change at more longitudes than these is added up point by point
RUNS = 8  # products are summed as scalar products where there are no more stretches between sides than these


class AreaWeights:
    """Sum fields with the weights of regions, by sums over stretches of the circles of latitude.

    matrix: float64 (point, region), columns of sum 1. circle: number of points on a circle of latitude.
    """

    def __init__(self, matrix: np.ndarray, circle: int) -> None:
        by_circle = matrix.reshape(len(matrix) // circle, circle, matrix.shape[1])
        sides = (by_circle != np.roll(by_circle, 1, axis=1)).any(axis=0)  # (longitude, region)
        few = sides.sum(axis=0) <= SIDES
        starts = sides[:, few].any(axis=1)
        starts[0] = True
        self.circle, self.matrix = circle, torch.from_numpy(matrix)
        self.starts = np.flatnonzero(starts)
        self.runs = [slice(*ends) for ends in pairwise((*self.starts.tolist(), circle))]
        self.boxes, self.others = np.flatnonzero(few), np.flatnonzero(~few)
        table = by_circle[:, self.starts][..., few]  # (latitude, run, region)
        flat = table.reshape(table.shape[0] * table.shape[1], self.boxes.size)
        self._boxes = np.asfortranarray(flat)  # so its products are several times faster
        self._others = np.asfortranarray(matrix[:, self.others])

    def to(self, device: torch.device) -> AreaWeights:
        """These weights, with their matrix moved to `device`."""
        self.matrix = self.matrix.to(device)
        return self

    def sums(self, values: Statistic, points: slice = slice(None)) -> Tensor:
        """Sums of `values` (..., row, point) with the weights of each region, (..., row, region).

        points: which of the grid's; whole circles.
        """
        if isinstance(values, Products):
            rows = values.fields.transpose(0, 1)  # (row, member, point)
            pairs = [torch.bmm(rows * weights, rows.mT) for weights in self.matrix[points].unbind(dim=1)]
            return torch.stack(pairs, dim=-1).movedim(0, -2)
        if self.matrix.device.type != "cpu":
            return _at_points(values) @ self.matrix[points]
        shape = (values.first if isinstance(values, Product) else values).shape
        found = np.empty((*shape[:-1], self.matrix.shape[1]))
        if self.boxes.size:
            first, last, _ = points.indices(len(self.matrix))
            part = slice(first // self.circle * len(self.runs), last // self.circle * len(self.runs))
            runs = self._sums_of_runs(values).reshape(*shape[:-1], -1)
            found[..., self.boxes] = runs @ self._boxes[part]
        if self.others.size:
            found[..., self.others] = _at_points(values).numpy() @ self._others[points]
        return torch.from_numpy(found)

    def _sums_of_runs(self, values: Tensor | Product) -> np.ndarray:
        """Sums over the points of each circle between the sides of boxes, (circles of all rows, run)."""
        if not isinstance(values, Product) or len(self.runs) > RUNS:
            return np.add.reduceat(_at_points(values).numpy().reshape(-1, self.circle), self.starts, axis=1)
        first, second = (field.numpy().reshape(-1, 1, self.circle) for field in values)
        found = np.empty((len(first), len(self.runs)))
        for column, run in enumerate(self.runs):  # scalar products, circle by circle
            found[:, column] = np.matmul(first[..., run], second[..., run].swapaxes(1, 2))[:, 0, 0]
        return found


class PointFields(NamedTuple):
    """Hold the fields of statistics: prediction ([member,] row, point), target and climatology (row, point)."""

    prediction: Tensor
    target: Tensor
    climatology: Mapping[str, Tensor]

    def cut(self, rows: slice | Tensor, points: slice = slice(None)) -> PointFields:
        """A block of them, in float64."""
        prediction = self.prediction[..., rows, points].double()
        climatology = {name: field[rows, points].double() for name, field in self.climatology.items()}
        return PointFields(prediction, self.target[rows, points].double(), climatology)


class Means(NamedTuple):
    """Hold area means. mean: of each statistic, (..., row, region). counted: True where a point counts, (row, region).

    missing: points of each row where truth or forecast is missing, (row,).
    """

    mean: dict[str, Tensor]
    counted: dict[str, Tensor]
    missing: Tensor


def area_means(statistics: Statistics, fields: PointFields, weights: AreaWeights, missing: Missing = "truth") -> Means:
    """The means of `statistics` over each region. weights: on the device of the fields.

    missing: NaN points are left out where the target has none (`truth`), where the statistic is NaN (`any`), or never.
    """
    rows, points = fields.target.shape
    cpu = fields.target.device.type == "cpu"
    _keep_freed_memory()
    members = fields.prediction.shape[0] if fields.prediction.ndim == 3 else 1
    block = max(1, (BLOCK if cpu else 2**24) // members)
    width = min(points, max(1, block // weights.circle) * weights.circle) if cpu else points
    height = max(1, block // width)
    starts = range(0, rows, height)
    threads = torch.get_num_threads() if cpu else 1
    if threads < 2 or len(starts) < 2:
        parts = []
        for start in starts:
            parts.append(_means_of_rows(statistics, fields, slice(start, start + height), weights, width))
    else:
        parts = _in_threads(
            lambda start: _means_of_rows(statistics, fields, slice(start, start + height), weights, width),
            starts,
            threads,
        )
    means = {name: torch.cat([part[name] for part in parts], dim=-2) for name in parts[0]}
    counted = {name: torch.ones(mean.shape[-2:], dtype=torch.bool) for name, mean in means.items()}
    gone = torch.zeros(rows, dtype=torch.int64)
    finite = torch.ones(rows, dtype=torch.bool, device=fields.target.device)
    for mean in means.values():
        finite &= mean.isfinite().all(dim=-1).view(-1, rows).all(dim=0)
    broken = (~finite).nonzero()[:, 0]
    for some in broken.split(max(1, 2**20 // (points * members))) if len(broken) else ():
        cut = fields.cut(some)
        where = some.cpu()
        gone[where] = _missing_points(cut).cpu()
        for name, values in statistics(*cut).items():
            means[name][..., some, :], found = _masked(values, cut.target, weights, missing)
            counted[name][where] = found.cpu()
    return Means(means, counted, gone)


def _in_threads(function: Callable[[int], dict[str, Tensor]], starts: range, threads: int) -> list[dict[str, Tensor]]:
    """`function` of each start. Blocks are too small to be shared among threads, so each thread takes its own."""
    try:
        return list(_pool(threads, os.getpid()).map(function, starts))
    finally:
        torch.set_num_threads(threads)  # what the threads of the pool set is theirs, and that of later threads


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay, those of this process: a fork has none of its parent's."""
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))


@cache
def _keep_freed_memory() -> None:
    """The C library keeps what is freed, rather than ask the system, page by page, for every block again.

    glibc hands back what exceeds twice the largest block freed so far; this one, never touched, is larger than ours.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


def _means_of_rows(
    statistics: Statistics, fields: PointFields, rows: slice, weights: AreaWeights, width: int
) -> dict[str, Tensor]:
    """Means of the statistics of some rows, a block of points after another, (..., row, region)."""
    found: dict[str, Tensor] = {}
    for start in range(0, fields.target.shape[1], width):
        points = slice(start, start + width)
        for name, values in statistics(*fields.cut(rows, points)).items():
            with np.errstate(invalid="ignore"):  # infinite values are found by the means that they spoil
                part = weights.sums(values, points)
            found[name] = found[name] + part if name in found else part
    return found


def _at_points(values: Tensor | Product) -> Tensor:
    return values.at_points() if isinstance(values, Product) else values


def _missing_points(fields: PointFields) -> Tensor:
    prediction = fields.prediction.isnan()
    return (fields.target.isnan() | (prediction.any(0) if prediction.ndim == 3 else prediction)).sum(dim=1)


def _masked(values: Statistic, target: Tensor, weights: AreaWeights, missing: Missing) -> tuple[Tensor, Tensor]:
    """Mean of `values` over each region without the points left out, and whether it had a point that counts."""
    matrix = weights.matrix
    points = values.fields if isinstance(values, Products) else _at_points(values)
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
        mean = torch.where(broken, torch.nan, weights.sums(Products(kept)) / share)
    else:
        mean = torch.where(broken, torch.nan, kept @ matrix / share)
    return mean, (share > 0.0).view(-1, *share.shape[-2:]).all(dim=0)
