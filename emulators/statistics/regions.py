"""Regions: named parts of the sphere, and the weights with which the mean over each is taken.

    <s>_R = sum_{ij in R} w_ij l_ij s_ij / sum_{ij in R} w_ij l_ij

w: cell areas of the full grid, then sub-selected; l: land fraction for regions over land, 1 less that for regions over
the ocean, else 1. Boxes include both ends. Names and bounds are those of WeatherBench 2 and WeatherBench-X (Rasp et al.
2024, arXiv 2308.15560), and the Nino regions of the tropical Pacific (Trenberth 1997,
doi 10.1175/1520-0477(1997)078<2771:TDOENO>2.0.CO;2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emulators.grid import LatLonGrid
from emulators.world import World

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

    def mask(self, grid: LatLonGrid) -> np.ndarray:
        """True at the points of the region, shape (lat, lon)."""
        rows = np.full(grid.latitude.shape, not self.latitudes)
        for south, north in self.latitudes:
            rows |= (grid.latitude >= south - TOLERANCE) & (grid.latitude <= north + TOLERANCE)
        columns = np.ones(grid.longitude.shape, dtype=bool)
        if self.longitudes is not None:
            west, east = self.longitudes
            width = 360.0 if east - west >= 360.0 else (east - west) % 360.0
            columns = (grid.longitude - west + TOLERANCE) % 360.0 <= width + 2 * TOLERANCE
        return np.outer(rows, columns)


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
            raise ValueError(
                f"No region '{entry}'; there are {', '.join(_BOXES)}, each also with '_land' or '_ocean', or give a "
                "box: {alps: {latitude: [44, 48], longitude: [5, 16]}}."
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
    words, _, part = name.strip().lower().replace(" ", "_").rpartition("_")
    return (
        f"{words.replace('_', '-')}_{part}"
        if part in ("land", "ocean")
        else "-".join([words, part]).replace("_", "-").strip("-")
    )


def land_fraction(world: World) -> np.ndarray | None:
    """Share of land of each cell, shape grid.shape, where the world knows it."""
    if "land_sea_mask" not in world.static or world.static_fields is None:
        return None
    return np.asarray(world.static_fields)[world.static.slice("land_sea_mask").start]


@dataclass(frozen=True, eq=False)
class RegionWeights:
    """Hold the weights of regions that have points on a grid.

    matrix: float64, shape (lat * lon, region); each column sums to 1, so that `field @ matrix` holds the area means.
    skipped: name of a region without points, and why.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    skipped: dict[str, str]


def region_weights(
    grid: LatLonGrid, regions: Sequence[str | Region | Mapping], land_fraction: np.ndarray | None = None
) -> RegionWeights:
    """The weights of `regions` on `grid`; on a limited area `global` is the whole domain.

    land_fraction: share of land of each cell, shape (lat, lon), for regions over land or ocean.
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
            skipped[entry.name] = f"no point of it on the grid ({grid.shape[0]}x{grid.shape[1]})"
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
