"""Pictures of scores and fields, drawn without a display: heat map of differences, curves by lead, maps, the hero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.verification.score_rows import Row, lead_axis
from emul.display.palette import COLOURS
from emul.display.text import lead_text
from emul.display.ticks import ticks
from emul.pictures.curves import DASHES, _curve
from emul.pictures.figures import QUIET, _figure, _limits, _save, _signed, _styled
from emulators.grid import LatLonGrid

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


COLOURS["saturation"] = "#6ee7b7"
DASHES["saturation"] = (0, (1, 3))


def field_maps(
    path: Path,
    grid: LatLonGrid,
    fields: Mapping[str, np.ndarray],
    row: Row,
    difference: str | None = None,
    coast: np.ndarray | None = None,
) -> Path:
    """Maps side by side, shape (lat, lon) each, stored units: fields on one scale, `difference` on its own around zero.

    coast: land fraction whose half is drawn as a line.
    """
    names = list(fields)
    plain = (
        np.concatenate([fields[n].ravel() for n in names if n != difference]) * row.factor
        if set(names) - {difference}
        else None
    )
    with _styled():
        figure = _figure(3.5 * len(names), 2.5 if grid.is_cyclic else 3.1)
        drawn: dict[str, Any] = {}
        for number_, name in enumerate(names):
            axis = _map_axis(figure, (1, len(names), number_ + 1), grid)
            values = fields[name] * row.factor
            limits = (
                _limits(values, centred=True)
                if name == difference or plain is None
                else _limits(plain, centred=_signed(plain))
            )
            colours = "RdBu_r" if limits[0] == -limits[1] else "viridis"
            mesh = _mesh(axis, grid, values, cmap=colours, vmin=limits[0], vmax=limits[1])
            if coast is not None:
                _coast(axis, grid, coast)
            axis.set_title(name, loc="center", color=QUIET)
            drawn[name] = (axis, mesh)
        shared = [n for n in names if n != difference]
        for group in (shared, [difference] if difference in names else []):
            if group:
                bar = figure.colorbar(
                    drawn[group[0]][1],
                    ax=[drawn[n][0] for n in group],
                    orientation="horizontal",
                    shrink=0.55 if len(group) > 1 else 0.8,
                    aspect=36 if len(group) > 1 else 24,
                    pad=0.03,
                    extend="both",
                )
                bar.set_label(f"{row.label} [{row.unit}]" if row.unit else row.label, color=QUIET)
                bar.ax.tick_params(colors=QUIET, length=2)
                bar.outline.set_visible(False)
        return _save(figure, path, transparent=True)


def _map_axis(figure: Figure, place: tuple[int, int, int], grid: LatLonGrid) -> Any:
    """An equal-area map (Mollweide) of the sphere, or true proportions at the middle of a limited area."""
    if grid.is_cyclic and np.ptp(grid.latitude) > 90:
        axis = figure.add_subplot(*place, projection="mollweide")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines["geo"].set_edgecolor(QUIET)
        axis.spines["geo"].set_linewidth(0.6)
    else:
        axis = figure.add_subplot(*place)
        middle = float(np.deg2rad(grid.latitude.mean()))
        axis.set_aspect(1.0 / max(np.cos(middle), 0.1))
        axis.tick_params(colors=QUIET, labelsize=7)
        axis.spines[:].set_visible(True)
    axis.grid(False)
    return axis


def _edges(grid: LatLonGrid) -> tuple[np.ndarray, np.ndarray]:
    """Cell edges in degrees, longitudes unwrapped eastward from the first."""
    steps = np.mod(np.diff(grid.longitude), 360.0)
    centres = grid.longitude[0] + np.concatenate([[0.0], np.cumsum(steps)])
    inner = 0.5 * (centres[1:] + centres[:-1])
    edges = np.concatenate([[centres[0] - 0.5 * steps[0]], inner, [centres[-1] + 0.5 * steps[-1]]])
    return edges, grid.latitude_bounds


def _mesh(axis: Any, grid: LatLonGrid, values: np.ndarray, **style: Any) -> Any:
    longitude, latitude = _edges(grid)
    if axis.name != "mollweide":
        return axis.pcolormesh(longitude, latitude, values, rasterized=True, **style)
    longitude = np.deg2rad(longitude - 180.0)
    latitude = np.deg2rad(latitude)
    drawn = axis.pcolormesh(longitude, latitude, values, rasterized=True, **style)
    if longitude[0] < -np.pi:  # the half cell that hangs over the western edge shows at the eastern one
        axis.pcolormesh(longitude[:2] + 2 * np.pi, latitude, values[:, :1], rasterized=True, **style)
    return drawn


def _coast(axis: Any, grid: LatLonGrid, land: np.ndarray) -> None:
    longitude, latitude = _edges(grid)
    longitude, latitude = 0.5 * (longitude[1:] + longitude[:-1]), 0.5 * (latitude[1:] + latitude[:-1])
    if axis.name == "mollweide":
        longitude, latitude = np.deg2rad(longitude - 180.0), np.deg2rad(latitude)
    axis.contour(longitude, latitude, land, levels=[0.5], colors="#404a54", linewidths=0.6)


def hero(
    path: Path,
    grid: LatLonGrid,
    forecast: np.ndarray,
    truth: np.ndarray,
    row: Row,
    lead: np.timedelta64,
    scores: xr.Dataset,
    others: Mapping[str, xr.Dataset],
    chosen: Sequence[Row],
    coast: np.ndarray | None = None,
) -> Path:
    """The picture of the README: forecast above truth on the left, curves against the baselines on the right."""
    x, unit = lead_axis(scores["lead_time"].values)
    with _styled():
        figure = _figure(12.0, 5.2)
        parts: Any = figure.subfigures(1, 2, width_ratios=[1.05, 1.2])
        left, right = parts
        both = np.concatenate([forecast.ravel(), truth.ravel()]) * row.factor
        low, high = _limits(both, centred=_signed(both))
        for place, name, values in ((1, f"emulator, {lead_text(lead)} ahead", forecast), (2, "truth", truth)):
            axis = _map_axis(left, (2, 1, place), grid)
            mesh = _mesh(
                axis, grid, values * row.factor, cmap="RdBu_r" if low == -high else "viridis", vmin=low, vmax=high
            )
            if coast is not None:
                _coast(axis, grid, coast)
            axis.set_title(name, loc="center")
        bar = left.colorbar(mesh, ax=left.axes, shrink=0.7, aspect=34, pad=0.02)
        bar.set_label(f"{row.label} [{row.unit}]" if row.unit else row.label)
        bar.outline.set_visible(False)
        chosen = list(chosen)[:4]
        axes = right.subplots(2, 2, squeeze=False, sharex=True)
        for axis, item in zip(axes.flat, chosen, strict=False):
            _curve(axis, item, scores, others, "rmse", unit)
        for axis in axes.flat[len(chosen) :]:
            axis.set_visible(False)
        for axis in axes[-1]:
            axis.set_xlabel(f"lead time in {unit}")
            axis.set_xticks(ticks(float(x.min()), float(x.max()), 6, unit))
        handles, names = axes.flat[0].get_legend_handles_labels()
        right.legend(handles, names, loc="outside upper center", ncols=len(names))
        return _save(figure, path, dpi=150)
