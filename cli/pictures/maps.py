"""Draw fields as maps, and the picture that opens a README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.inspection.map_sampling import is_whole_sphere
from data_pipelines.verification.evaluation_results import EvaluationResults
from data_pipelines.verification.score_rows import Row, lead_axis
from emul.pictures.curves import curve_panel, evaluation_curves
from emul.pictures.figures import (
    INK,
    QUIET,
    colour_bar,
    field_limits,
    figure_style,
    label_leads,
    new_figure,
    panels,
    save_figure,
)
from emulators.grid import LatLonGrid


def field_maps(
    path: Path,
    grid: LatLonGrid,
    fields: Mapping[str, np.ndarray],
    row: Row,
    difference: str | None = None,
    coast: np.ndarray | None = None,
) -> Path:
    """Maps side by side of fields (lat, lon) in stored units, on one scale; `difference` on its own, around zero.

    coast: land fraction whose half is drawn as a line.
    """
    plain = {name: field for name, field in fields.items() if name != difference}
    with figure_style():
        figure = new_figure(3.5 * len(fields), 2.5 if grid.is_cyclic else 3.1)
        places = {name: (1, len(fields), n) for n, name in enumerate(fields, start=1)}
        groups = [plain, {name: fields[name] for name in fields if name == difference}]
        for group, centred in zip(groups, (None, True), strict=True):
            if group:
                _draw_maps(figure, grid, group, places, row, centred, coast)
        return save_figure(figure, path, transparent=True)


def _draw_maps(
    figure: Any,
    grid: LatLonGrid,
    fields: Mapping[str, np.ndarray],
    places: Mapping[str, tuple[int, int, int]],
    row: Row,
    centred: bool | None,
    coast: np.ndarray | None,
) -> None:
    """Maps at their places with the colour bar that they share, below them."""
    low, high, colours = field_limits([field * row.factor for field in fields.values()], centred)
    axes = []
    for name, field in fields.items():
        axis = _map_axis(figure, places[name], grid)
        drawn = _draw_cells(axis, grid, field * row.factor, cmap=colours, vmin=low, vmax=high)
        _draw_coast(axis, grid, coast)
        axis.set_title(name, loc="center", color=QUIET)
        axes.append(axis)
    size = {"shrink": 0.55, "aspect": 36} if len(axes) > 1 else {"shrink": 0.8, "aspect": 24}
    style = {"orientation": "horizontal", "pad": 0.03, "extend": "both", **size}
    colour_bar(figure, drawn, axes, row.title, QUIET, **style)


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


def _draw_cells(axis: Any, grid: LatLonGrid, values: np.ndarray, **style: Any) -> Any:
    longitude, latitude = _edges(axis, grid)
    drawn = axis.pcolormesh(longitude, latitude, values, rasterized=True, **style)
    if axis.name == "mollweide" and longitude[0] < -np.pi:  # the half cell west of the map shows at its eastern edge
        axis.pcolormesh(longitude[:2] + 2 * np.pi, latitude, values[:, :1], rasterized=True, **style)
    return drawn


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
    """Two fields (forecast and truth) above each other on one scale, RMSE of up to four rows beside them."""
    leads, unit = lead_axis(results.leads)
    lines, rows = evaluation_curves(results), results.headline[:4]
    low, high, colours = field_limits([field * row.factor for field in fields.values()])
    with figure_style():
        figure = new_figure(12.0, 5.2)
        halves: Any = figure.subfigures(1, 2, width_ratios=[1.05, 1.2])
        left, right = halves
        for place, (name, field) in enumerate(fields.items(), start=1):
            axis = _map_axis(left, (2, 1, place), grid)
            drawn = _draw_cells(axis, grid, field * row.factor, cmap=colours, vmin=low, vmax=high)
            _draw_coast(axis, grid, coast)
            axis.set_title(name, loc="center")
        colour_bar(left, drawn, left.axes, row.title, INK, shrink=0.7, aspect=34, pad=0.02)
        axes = panels(right, 4, 2, sharex=True)
        for axis, one in zip(axes, rows, strict=False):
            curve_panel(axis, one, lines, results.score("rmse"), unit)
        for axis in axes[len(rows) :]:
            axis.set_visible(False)
        label_leads(right, leads, unit)
        handles, names = axes[0].get_legend_handles_labels()
        right.legend(handles, names, loc="outside upper center", ncols=len(names))
        return save_figure(figure, path, dpi=150)
