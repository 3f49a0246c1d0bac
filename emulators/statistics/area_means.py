"""Area means of statistics of many fields over many regions, in one pass through memory.

    <s>_R = sum_x w_xR s_x,   w_xR = w_x l_x / sum_{x in R} w_x l_x

w: cell areas of the full grid, then sub-selected; l: land fraction for regions over land, 1 less that for regions over
the ocean, else 1. Boxes include both ends. Names and bounds are those of WeatherBench 2 and WeatherBench-X (Rasp et al.
2024, arXiv 2308.15560), and the Nino regions of the tropical Pacific (Trenberth 1997,
doi 10.1175/1520-0477(1997)078<2771:TDOENO>2.0.CO;2).

The fields are cut along rows (fields) and circles of latitude into blocks small enough for the processor's cache; there
they turn into float64, into statistics and into their share of the means. Along a circle the weights of a box change at
its sides alone: sums between these serve all boxes, and the regions are told apart once little is left to add up.
Missing values show as means that are not finite; only the fields that hold them are looked at again, point by point.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from emulators.grid import Grid
from emulators.scores.interfaces import Product, Products, Statistic
from emulators.world import World

Missing = Literal["truth", "any", "none"]
Statistics = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Mapping[str, Statistic]]
BLOCK = 2**17  # numbers of a field taken at a time on a processor: with what is made of them they stay in its cache
SIDES = 16  # a region whose weights change at more longitudes than these is added up point by point
RUNS = 8  # products are summed as scalar products where there are no more stretches between sides than these
TOLERANCE = 1e-4  # degrees: coordinates stored in single precision still fall on their bounds


@dataclass(frozen=True)
class Region:
    """Define a region: a box, or several, on the sphere.

    latitudes: (south, north) in degrees, one pair a band; empty: every latitude.
    longitudes: (west, east) in degrees, eastward from west to east, may cross 0; None: every longitude.
    land: weight every point with its land fraction. ocean: with its fraction of water.
    """

    name: str
    latitudes: tuple[tuple[float, float], ...] = ()
    longitudes: tuple[float, float] | None = None
    land: bool = False
    ocean: bool = False

    def __post_init__(self) -> None:
        if self.land and self.ocean:
            raise ValueError(f"Region '{self.name}' is asked for over land and over ocean; leave out both for all.")
        for south, north in self.latitudes:
            if not -90.0 <= south <= north <= 90.0:
                raise ValueError(
                    f"Region '{self.name}': expected latitudes (south, north) with -90 <= south <= north <= 90; "
                    f"got ({south:g}, {north:g})."
                )

    def mask(self, grid: Grid) -> np.ndarray:
        """True at the points of the region, of the grid's shape."""
        latitude, longitude = grid.points
        inside = np.full(latitude.shape, not self.latitudes)
        for south, north in self.latitudes:
            inside |= (latitude >= south - TOLERANCE) & (latitude <= north + TOLERANCE)
        if self.longitudes is not None:
            west, east = self.longitudes
            width = 360.0 if east - west >= 360.0 else (east - west) % 360.0
            inside &= (longitude - west + TOLERANCE) % 360.0 <= width + 2 * TOLERANCE
        return inside.reshape(grid.shape)


_BOXES: dict[str, tuple[tuple[tuple[float, float], ...], tuple[float, float] | None]] = {
    "global": ((), None),
    "tropics": (((-20, 20),), None),
    "extra-tropics": (((-90, -20), (20, 90)), None),
    "northern-hemisphere": (((20, 90),), None),
    "southern-hemisphere": (((-90, -20),), None),
    "arctic": (((60, 90),), None),
    "antarctic": (((-90, -60),), None),
    "europe": (((35, 75),), (347.5, 42.5)),
    "north-america": (((25, 60),), (240, 285)),
    "north-atlantic": (((25, 65),), (290, 350)),
    "north-pacific": (((25, 60),), (145, 230)),
    "east-asia": (((25, 60),), (102.5, 150)),
    "ausnz": (((-45, -12.5),), (120, 175)),
    "northern-africa": (((5, 32.5),), (347.5, 37.5)),
    "southern-africa": (((-30, 5),), (12.5, 37.5)),
    "south-america": (((-40, 5),), (285, 315)),
    "west-asia": (((15, 60),), (42.5, 102.5)),
    "south-east-asia": (((-12.5, 25),), (95, 125)),
    "nino-3": (((-5, 5),), (210, 270)),
    "nino-3.4": (((-5, 5),), (190, 240)),
    "nino-4": (((-5, 5),), (160, 210)),
}
REGIONS: dict[str, Region] = {
    name + suffix: Region(name + suffix, latitudes, longitudes, suffix == "_land", suffix == "_ocean")
    for suffix in ("", "_land", "_ocean")
    for name, (latitudes, longitudes) in _BOXES.items()
}


def region(entry: str | Region | Mapping) -> Region:
    """A Region from its name, or from `{name: {latitude: [south, north], longitude: [west, east], land: false}}`;
    `ocean: true` instead of land for the part that is water."""
    if isinstance(entry, Region):
        return entry
    if isinstance(entry, str):
        plain = _plain(entry)
        if plain not in REGIONS:
            close = difflib.get_close_matches(plain, REGIONS, 1)
            hint = f"did you mean '{close[0]}'? There" if close else "there"
            raise ValueError(
                f"No region '{entry}'; {hint} are {', '.join(_BOXES)}, each also with '_land' or '_ocean', or "
                "give a box: {alps: {latitude: [44, 48], longitude: [5, 16]}}."
            )
        return REGIONS[plain]
    if len(entry) != 1:
        raise ValueError(f"A region is a name or one mapping {{name: {{latitude: ..., longitude: ...}}}}; got {entry}.")
    ((name, box),) = entry.items()
    unknown = sorted(set(box) - {"latitude", "longitude", "land", "ocean"})
    if unknown:
        raise ValueError(f"Region '{name}' takes latitude, longitude, land and ocean; got {', '.join(unknown)}.")
    for axis in ("latitude", "longitude"):
        if box.get(axis) is not None and len(box[axis]) != 2:
            raise ValueError(f"Region '{name}': {axis} needs two bounds; got {list(box[axis])}.")
    latitude, longitude = box.get("latitude"), box.get("longitude")
    return Region(
        str(name),
        () if latitude is None else ((float(latitude[0]), float(latitude[1])),),
        None if longitude is None else (float(longitude[0]), float(longitude[1])),
        bool(box.get("land", False)),
        bool(box.get("ocean", False)),
    )


def _plain(name: str) -> str:
    """Return the name of a region in lower case, its words joined by hyphens."""
    words, _, surface = name.strip().lower().replace(" ", "_").rpartition("_")
    return (
        f"{words.replace('_', '-')}_{surface}"
        if surface in ("land", "ocean")
        else "-".join([words, surface]).replace("_", "-").strip("-")
    )


def land_fraction(world: World) -> np.ndarray | None:
    """Share of land of each cell, shape grid.shape, where the world knows it."""
    if "land_sea_mask" not in world.static or world.static_fields is None:
        return None
    return np.asarray(world.static_fields)[world.static.slice("land_sea_mask").start]


@dataclass(frozen=True, eq=False)
class RegionWeights:
    """Hold the weights of regions that have points on a grid.

    matrix: float64, shape (point, region); each column sums to 1, so that `field @ matrix` holds the area means.
    skipped: name of a region without points, and why.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    skipped: dict[str, str]


def region_weights(
    grid: Grid, regions: Sequence[str | Region | Mapping], land_fraction: np.ndarray | None = None
) -> RegionWeights:
    """The weights of `regions` on `grid`; on a limited area `global` is the whole domain.

    land_fraction: share of land of each cell, of the grid's shape, for regions over land or ocean.
    """
    names, columns, skipped = [], [], {}
    for entry in _unique(region(r) for r in regions):
        if (entry.land or entry.ocean) and land_fraction is None:
            skipped[entry.name] = "no land-sea mask at hand"
            continue
        weights = np.where(entry.mask(grid), grid.weights, 0.0)
        if entry.land or entry.ocean:
            land = np.asarray(land_fraction, dtype=np.float64)
            weights = weights * np.nan_to_num(land if entry.land else 1.0 - land)
        if not weights.sum() > 0.0:
            skipped[entry.name] = f"the grid ({grid.size_text}) has no point there"
            continue
        names.append(entry.name)
        columns.append(weights.ravel() / weights.sum())
    if not names:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise ValueError(f"None of the regions asked for has a point on this grid ({reasons or 'none asked for'}).")
    return RegionWeights(tuple(names), np.stack(columns, axis=1), skipped)


def _unique(regions: Iterable[Region]) -> list[Region]:
    by_name: dict[str, Region] = {}
    for entry in regions:
        if by_name.setdefault(entry.name, entry) != entry:
            raise ValueError(f"Two different regions are called '{entry.name}'; give each its own name.")
    return list(by_name.values())


class AreaWeights:
    """Sum fields with the weights of regions, by sums over stretches of the circles of latitude.

    matrix: float64 (point, region), columns of sum 1. circle: points on a circle of latitude, 1 where they lie on none.
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
        sums = np.empty((*shape[:-1], self.matrix.shape[1]))
        if self.boxes.size:
            first, last, _ = points.indices(len(self.matrix))
            run_rows = slice(first // self.circle * len(self.runs), last // self.circle * len(self.runs))
            runs = self._sums_of_runs(values).reshape(*shape[:-1], -1)
            sums[..., self.boxes] = runs @ self._boxes[run_rows]
        if self.others.size:
            sums[..., self.others] = _at_points(values).numpy() @ self._others[points]
        return torch.from_numpy(sums)

    def _sums_of_runs(self, values: Tensor | Product) -> np.ndarray:
        """Sums over the points of each circle between the sides of boxes, (circles of all rows, run)."""
        if not isinstance(values, Product) or len(self.runs) > RUNS or self.circle == 1:
            return np.add.reduceat(_at_points(values).numpy().reshape(-1, self.circle), self.starts, axis=1)
        first, second = (field.numpy().reshape(-1, 1, self.circle) for field in values)
        sums = np.empty((len(first), len(self.runs)))
        for column, run in enumerate(self.runs):  # scalar products, circle by circle
            sums[:, column] = np.matmul(first[..., run], second[..., run].swapaxes(1, 2))[:, 0, 0]
        return sums


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
        chunks = []
        for start in starts:
            chunks.append(_means_of_rows(statistics, fields, slice(start, start + height), weights, width))
    else:
        chunks = _in_threads(
            lambda start: _means_of_rows(statistics, fields, slice(start, start + height), weights, width),
            starts,
            threads,
        )
    means = {name: torch.cat([chunk[name] for chunk in chunks], dim=-2) for name in chunks[0]}
    counted = {name: torch.ones(mean.shape[-2:], dtype=torch.bool) for name, mean in means.items()}
    gone = torch.zeros(rows, dtype=torch.int64)
    finite = torch.ones(rows, dtype=torch.bool, device=fields.target.device)
    for mean in means.values():
        finite &= mean.isfinite().all(dim=-1).view(-1, rows).all(dim=0)
    broken = (~finite).nonzero()[:, 0]
    for spoilt in broken.split(max(1, 2**20 // (points * members))) if len(broken) else ():
        cut = fields.cut(spoilt)
        where = spoilt.cpu()
        gone[where] = _missing_points(cut).cpu()
        for name, values in statistics(*cut).items():
            means[name][..., spoilt, :], valid = _masked(values, cut.target, weights, missing)
            counted[name][where] = valid.cpu()
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
    sums: dict[str, Tensor] = {}
    for start in range(0, fields.target.shape[1], width):
        points = slice(start, start + width)
        for name, values in statistics(*fields.cut(rows, points)).items():
            with np.errstate(invalid="ignore"):  # infinite values are found by the means that they spoil
                block = weights.sums(values, points)
            sums[name] = sums[name] + block if name in sums else block
    return sums


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
    filled = torch.where(points.isfinite() & ~left_out, points, 0.0)
    if isinstance(values, Products):
        share, broken = share[0], broken.any(dim=0)
        mean = torch.where(broken, torch.nan, weights.sums(Products(filled)) / share)
    else:
        mean = torch.where(broken, torch.nan, filled @ matrix / share)
    return mean, (share > 0.0).view(-1, *share.shape[-2:]).all(dim=0)
