"""Draw fields as maps, and the picture that opens a README.

Data without a land mask take the coasts of the Earth: `land.npz` holds one bit a point every 0.25 degrees, 1 on land,
rows from 89.875 N southward and from 0.125 E eastward: the polygons of land of Natural Earth at 1:110 million
(https://www.naturalearthdata.com, public domain).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.inspection.picture_fields import is_whole_sphere
from data_pipelines.pictures.curves import curve_panel, evaluation_curves
from data_pipelines.pictures.figures import (
    QUIET,
    Scale,
    colour_bar,
    field_scale,
    figure_style,
    label_leads,
    new_figure,
    panels,
    save_figure,
)
from data_pipelines.verification.score_rows import Row, lead_axis
from emulators.grid import Grid, LatLonGrid

if TYPE_CHECKING:
    from data_pipelines.verification.score_files import EvaluationResults


def map_scales(panels: Sequence[Mapping[str, np.ndarray]], row: Row, difference: str | None) -> dict[str, Scale]:
    """A scale for each name of fields, shared by all pictures; that of `difference` is its own, around zero."""
    groups = [[name for name in panels[0] if (name == difference) is apart] for apart in (False, True)]
    scales: dict[str, Scale] = {}
    for names, centred in zip(groups, (None, True), strict=True):
        if names:
            fields = (fields[name] * row.factor for fields in panels for name in names)
            scales |= dict.fromkeys(names, field_scale(fields, centred))
    return scales


def field_maps(
    path: Path,
    grid: LatLonGrid,
    fields: Mapping[str, np.ndarray],
    row: Row,
    scales: Mapping[str, Scale],
    title: str,
    coast: np.ndarray | None = None,
    columns: int = 3,
) -> Path:
    """Maps of fields (lat, lon) in stored units, side by side and below each other; a colour bar for each scale.

    coast: land fraction whose half is drawn as a line.
    """
    columns = min(columns, len(fields))
    lines = -(-len(fields) // columns)
    with figure_style():
        figure = new_figure(3.5 * columns, (1.9 if grid.is_cyclic else 2.6) * lines + 0.9, title)
        places = {name: (lines, columns, n) for n, name in enumerate(fields, start=1)}
        for scale in dict.fromkeys(scales[name] for name in fields):
            group = {name: field for name, field in fields.items() if scales[name] == scale}
            _draw_maps(figure, grid, group, places, row, scale, coast)
        return save_figure(figure, path)


def _draw_maps(
    figure: Any,
    grid: LatLonGrid,
    fields: Mapping[str, np.ndarray],
    places: Mapping[str, tuple[int, int, int]],
    row: Row,
    scale: Scale,
    coast: np.ndarray | None,
) -> None:
    """Maps at their places with the colour bar that they share, below them."""
    axes = []
    for name, field in fields.items():
        axis = _map_axis(figure, places[name], grid)
        mesh = _draw_cells(axis, grid, field * row.factor, scale)
        _draw_coast(axis, grid, coast)
        axis.set_title(name, loc="center")
        axes.append(axis)
    size = {"shrink": 0.55, "aspect": 36} if len(axes) > 1 else {"shrink": 0.8, "aspect": 24}
    style: dict[str, Any] = {"orientation": "horizontal", "pad": 0.03, "extend": "both", **size}
    colour_bar(figure, mesh, axes, row.title, **style)


def _map_axis(figure: Any, place: tuple[int, int, int], grid: LatLonGrid) -> Any:
    """An equal-area map (Mollweide) of the sphere, or true proportions at the middle of a limited area."""
    if is_whole_sphere(grid):
        axis = figure.add_subplot(*place, projection="mollweide")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines["geo"].set(edgecolor=QUIET, linewidth=0.6)
    else:
        axis = figure.add_subplot(*place)
        axis.set_aspect(1.0 / max(np.cos(np.deg2rad(grid.latitude.mean())), 0.1))
        axis.tick_params(colors=QUIET, labelsize=7)
        axis.spines[:].set_visible(True)
    axis.grid(False)
    return axis


def _edges(axis: Any, grid: LatLonGrid) -> tuple[np.ndarray, np.ndarray]:
    """Cell edges in the coordinates of the axis, longitudes growing eastward from the first."""
    steps = np.mod(np.diff(grid.longitude), 360.0)
    centres = grid.longitude[0] + np.concatenate([[0.0], np.cumsum(steps)])
    inner = 0.5 * (centres[1:] + centres[:-1])
    longitude = np.concatenate([[centres[0] - 0.5 * steps[0]], inner, [centres[-1] + 0.5 * steps[-1]]])
    if axis.name == "mollweide":
        return np.deg2rad(longitude - 180.0), np.deg2rad(grid.latitude_bounds)
    return longitude, grid.latitude_bounds


def _draw_cells(axis: Any, grid: LatLonGrid, values: np.ndarray, scale: Scale) -> Any:
    longitude, latitude = _edges(axis, grid)
    style: dict[str, Any] = {"cmap": scale.colours, "vmin": scale.low, "vmax": scale.high}
    mesh = axis.pcolormesh(longitude, latitude, values, rasterized=True, **style)
    if axis.name == "mollweide" and longitude[0] < -np.pi:  # the half cell west of the map shows at its eastern edge
        axis.pcolormesh(longitude[:2] + 2 * np.pi, latitude, values[:, :1], rasterized=True, **style)
    return mesh


def _draw_coast(axis: Any, grid: LatLonGrid, land: np.ndarray | None) -> None:
    if land is not None:
        longitude, latitude = (0.5 * (edges[1:] + edges[:-1]) for edges in _edges(axis, grid))
        axis.contour(longitude, latitude, land, levels=[0.5], colors="#404a54", linewidths=0.6)


def hero(
    path: Path,
    grid: LatLonGrid,
    fields: Mapping[str, np.ndarray],
    row: Row,
    results: EvaluationResults,
    coast: np.ndarray | None = None,
) -> Path:
    """Two fields (forecast and truth) above each other on one scale, a score of up to four rows beside them."""
    leads, unit = lead_axis(results.leads)
    lines, rows = evaluation_curves(results), results.headline[:4]
    scale = field_scale(field * row.factor for field in fields.values())
    with figure_style():
        figure = new_figure(12.0, 5.2)
        halves: Any = figure.subfigures(1, 2, width_ratios=[1.05, 1.2])
        left, right = halves
        for place, (name, field) in enumerate(fields.items(), start=1):
            axis = _map_axis(left, (2, 1, place), grid)
            mesh = _draw_cells(axis, grid, field * row.factor, scale)
            _draw_coast(axis, grid, coast)
            axis.set_title(name, loc="center")
        colour_bar(left, mesh, left.axes, row.title, shrink=0.7, aspect=34, pad=0.02)
        axes = panels(right, 4, 2, sharex=True)
        for axis, score_row in zip(axes, rows, strict=False):
            curve_panel(axis, score_row, lines, results.score(results.shown_metrics[0]), unit)
        for axis in axes[len(rows) :]:
            axis.set_visible(False)
        label_leads(right, leads, unit)
        handles, names = axes[0].get_legend_handles_labels()
        right.legend(handles, names, loc="outside upper center", ncols=len(names))
        return save_figure(figure, path, dpi=150)


STEP = 0.25  # degrees between points


@cache
def land_points() -> np.ndarray:
    """Return the points, bool (720, 1440)."""
    with np.load(Path(__file__).with_name("land.npz")) as stored:
        return np.unpackbits(stored["land"], axis=1).astype(bool)


def land_fraction(grid: Grid) -> np.ndarray:
    """Return the share of land at each point of a grid: that of the points around it, a cell wide; of a set of cells
    whether the point is on land."""
    land = land_points().astype(np.float64)
    if not isinstance(grid, LatLonGrid):
        latitude, longitude = grid.points
        rows, columns = ((90.0 - latitude) / STEP).astype(int), (longitude / STEP).astype(int)
        return land[rows.clip(0, land.shape[0] - 1), columns % land.shape[1]]
    north, south = grid.latitude_bounds[:-1], grid.latitude_bounds[1:]
    width = 360.0 / grid.shape[1] if grid.is_cyclic else float(np.median(np.diff(grid.longitude) % 360.0))
    strips_of = [_between(90.0 - a, 90.0 - b) for a, b in zip(north, south, strict=True)]
    around = [_between(x - 0.5 * width, x + 0.5 * width) % land.shape[1] for x in grid.longitude]
    strips = np.stack([land[row].mean(axis=0) for row in strips_of])
    return np.stack([strips[:, column].mean(axis=1) for column in around], axis=1)


def _between(start: float, end: float) -> np.ndarray:
    """Positions of the points from `start` to `end` degrees, at least the nearest one."""
    first, last = round(start / STEP), round(end / STEP)
    return np.arange(first, last) if last > first else np.array([int(0.5 * (start + end) / STEP)])
