"""Grids by name, the cells of any grid, and the grid of points that come without a name."""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from emulators.grid import Grid, LatLonGrid, PointGrid, equiangular_grid, gaussian_grid, lobatto_grid, unit_vectors
from emulators.grids.limited_area import from_arrays
from emulators.sphere.polygons import Cells, boxes, voronoi_cells

NAME = re.compile(r"(\d+)x(\d+)_(equiangular|gaussian|lobatto)(_with_poles)?(_conservative)?")
LAT_LON = "64x32_equiangular, 240x121_equiangular_with_poles, 64x32_gaussian, 64x33_lobatto, F32"


@cache
def families() -> dict[str, ModuleType]:
    """Return the modules of grids by family; a file of this folder with `FAMILY` is one.

    Each has `named`, the grid of a name, and `cells`; where points without a name can be known, also `recognised`.
    """
    files = [info.name for info in pkgutil.iter_modules([str(Path(__file__).parent)])]
    modules = [importlib.import_module(f"{__name__.rpartition('.')[0]}.{name}") for name in files]
    return {module.FAMILY: module for module in modules if "FAMILY" in vars(module)}


def named_grid(name: str) -> Grid:
    """Return the grid of a name, such as 64x32_gaussian, F32, O32, N48, healpix:8 or icosahedral:4.

    Raises ValueError for a name that no family of grids knows.
    """
    match = NAME.fullmatch(name)
    if match and (match[3] == "equiangular" or not match[4]):
        columns, rows = int(match[1]), int(match[2])
        if match[3] == "equiangular":
            return equiangular_grid(rows, columns, poles=bool(match[4]))
        return (gaussian_grid if match[3] == "gaussian" else lobatto_grid)(rows, columns)
    if name[:1] == "F" and name[1:].isdigit() and int(name[1:]):
        return gaussian_grid(2 * int(name[1:]))
    for module in families().values():
        grid = module.named(name)
        if isinstance(grid, PointGrid):
            return grid
    forms = "; ".join(module.FORMS for module in families().values())
    raise ValueError(f"No grid '{name}': longitudes x latitudes and a kind, {LAT_LON}; or a set of cells: {forms}.")


def cells_of(grid: Grid) -> Cells:
    """Return the polygons of the cells of a grid; ValueError where they are not known."""
    if isinstance(grid, LatLonGrid):
        return _rows_and_columns(grid)
    module = families().get(grid.kind)
    if module is not None:
        return module.cells(grid)
    if not grid.is_global:
        raise ValueError(f"The cells of {grid} are not known; take method=nearest or inverse_distance.")
    return voronoi_cells(unit_vectors(*grid.points))


def recognised(latitude: np.ndarray, longitude: np.ndarray, raster: tuple[int, ...] = ()) -> PointGrid:
    """Return the grid of points in degrees, each (cell,): one that has a name, a limited area (y, x), or what they are.

    raster: rows and columns of the points, if they are those of a field (y, x). Points without a name that surround the
    sphere have the cells nearest to them; others have equal weights, and count as stations.
    """
    if raster:
        return from_arrays(latitude.reshape(raster), longitude.reshape(raster))
    for family in families().values():
        if "recognised" in vars(family) and (grid := family.recognised(latitude, longitude)) is not None:
            return grid
    points = unit_vectors(latitude, longitude)
    if len(np.unique(np.round(points, 9), axis=0)) == len(points) >= 12:
        voronoi = voronoi_cells(points)
        area = voronoi.areas
        if abs(area.sum() - 4.0 * np.pi) < 1e-6 and area.max() < 0.2 * np.pi:
            return PointGrid(latitude, longitude, area)
    return PointGrid(latitude, longitude, np.ones(latitude.size), "stations", "", 0.0)


def row_edges(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return, where the cells are stretches of whole rows of latitude, the edges of these as sines from north to south,
    (row + 1,), the cells of each row, and the western edge of its first in degrees, (row,); else None."""
    if isinstance(grid, LatLonGrid):
        steps = np.diff(grid.longitude)
        if not grid.is_global or (steps.size and np.ptp(steps) > 1e-6):
            return None
        edges = 1.0 - 2.0 * np.concatenate([[0.0], np.cumsum(grid.weights.sum(axis=1))]) / grid.weights.sum()
        edges[-1] = -1.0
        count = np.full(grid.shape[0], grid.shape[1])
        return edges, count, grid.longitude[0] - 180.0 / count
    if grid.kind != "reduced_gaussian":
        return None
    edges, count = families()[grid.kind].rows(grid)
    return edges, count, grid.points[1][np.cumsum(count) - count] - 180.0 / count


def _rows_and_columns(grid: LatLonGrid) -> Cells:
    whole = row_edges(grid)
    rows = grid.latitude_bounds if whole is None else np.rad2deg(np.arcsin(np.clip(whole[0], -1.0, 1.0)))
    steps = np.mod(np.diff(grid.longitude), 360.0)
    before, after = np.append(steps[0], steps), np.append(steps, steps[-1])
    if grid.is_cyclic:
        before[0] = after[-1] = 360.0 - steps.sum()
    west, east = grid.longitude - 0.5 * before, grid.longitude + 0.5 * after
    north, south = (np.repeat(latitudes, grid.shape[1]) for latitudes in (rows[:-1], rows[1:]))
    return boxes(north, south, np.tile(west, grid.shape[0]), np.tile(east, grid.shape[0]))
