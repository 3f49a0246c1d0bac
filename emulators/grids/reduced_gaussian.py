"""Reduced Gaussian grids: rows at the Gaussian latitudes, with fewer points towards the poles.

    octahedral O<n>   row k from a pole has 4 k + 16 points, 4 n (n + 9) in all (Malardel et al. 2016,
                      https://www.ecmwf.int/en/elibrary/80003-new-grid-ifs)
    classic N<n>      points a row as the European centre lists them (Hortal & Simmons 1991,
                      doi 10.1175/1520-0493(1991)119<1057:UORGGI>2.0.CO;2), in classic_rows.json

A cell is a stretch of a row, whose edges lie where the sums of the Gauss-Legendre weights put them: areas are the
weights of the quadrature, which is exact up to degree 2 n - 1 along latitude and, along a row, for as many wavenumbers
as it has points.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np

from emulators.grid import Grid, PointGrid
from emulators.sphere.polygons import Cells, boxes

EXAMPLES = ("O4", "N32")
FORMS = "O32 (octahedral), N48 (classic)"


def named(name: str) -> PointGrid | None:
    """Return the grid called O<n> or N<n>; None for other names, ValueError where the rows of N<n> are not known."""
    if name[:1] not in ("O", "N") or not name[1:].isdigit() or int(name[1:]) < 1:
        return None
    count = int(name[1:])
    if name[0] == "O":
        half = 4 * np.arange(1, count + 1) + 16
    elif str(count) in (classic := classic_rows()):
        half = np.array(classic[str(count)])
    else:
        raise ValueError(f"The rows of {name} are not known; known are N{', N'.join(classic)}, and every octahedral O.")
    return from_rows(np.concatenate([half, half[::-1]]), name)


@cache
def classic_rows() -> dict[str, list[int]]:
    """Return the points of each row of the northern half by n of N<n>."""
    return json.loads(Path(__file__).with_name("classic_rows.json").read_text(encoding="utf-8"))


def from_rows(points: np.ndarray, name: str = "") -> PointGrid:
    """Return the grid with so many points a row, from north to south, the first of each on the zero meridian."""
    sine, weight = np.polynomial.legendre.leggauss(len(points))
    latitude, weight = np.rad2deg(np.arcsin(sine[::-1])), weight[::-1]
    longitude = np.concatenate([360.0 * np.arange(n) / n for n in points])
    return PointGrid(np.repeat(latitude, points), longitude, np.repeat(weight / points, points), FAMILY, name)


FAMILY = "reduced_gaussian"


def recognised(latitude: np.ndarray, longitude: np.ndarray) -> PointGrid | None:
    """Return the grid of these points if they are all points of a reduced Gaussian grid, row by row."""
    starts = np.flatnonzero(np.append(True, np.abs(np.diff(latitude)) > 1e-4))
    if not 2 <= len(starts) <= 4096 or len(starts) == latitude.size:
        return None
    points = np.diff(np.append(starts, latitude.size))
    half = points[: len(points) // 2].tolist()
    octahedral = points[0] == 20 and len(points) % 2 == 0 and set(np.diff(half).tolist()) <= {4}
    names = [f"O{len(half)}"] if octahedral else [f"N{n}" for n, rows in classic_rows().items() if rows == half]
    grid = from_rows(points, names[0] if names else "")
    actual = PointGrid(latitude, longitude, grid.area)
    return grid if grid.same_as(actual, 2e-3) else None


def rows(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of the rows as sines, north to south, (row + 1,), and the points of each row, (row,)."""
    latitude = grid.points[0]
    starts = np.flatnonzero(np.append(True, np.diff(latitude) != 0.0))
    points = np.diff(np.append(starts, latitude.size))
    weight = np.polynomial.legendre.leggauss(len(points))[1][::-1]
    edges = np.clip(1.0 - np.concatenate([[0.0], np.cumsum(weight)]), -1.0, 1.0)
    edges[-1] = -1.0
    return edges, points


def cells(grid: Grid) -> Cells:
    """Return the cells, stretches of the rows."""
    sine, points = rows(grid)
    edge, half = np.rad2deg(np.arcsin(sine)), np.repeat(180.0 / points, points)
    north, south = (np.repeat(latitudes, points) for latitudes in (edge[:-1], edge[1:]))
    return boxes(north, south, grid.points[1] - half, grid.points[1] + half)
