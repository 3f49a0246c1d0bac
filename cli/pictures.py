"""Pictures of scores and fields, drawn without a display: heat map of differences, curves by lead, maps, the hero."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emul.charts import ticks
from emul.page import BETTER, WORSE
from emul.scorecard import (
    STEPS,
    Row,
    columns,
    difference_to,
    lead_axis,
    lead_text,
    leads_in,
    number,
    percent,
    step,
    sure_of,
)
from emulators.grid import LatLonGrid

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

COLOURS = {"forecast": "#2563eb", "persistence": "#d97706", "climatology": "#6b7280", "predictability": "#059669"}
COLOURS["saturation"] = "#6ee7b7"
DASHES: dict[str, Any] = {"forecast": "-", "persistence": "--", "climatology": ":", "predictability": "-."}
DASHES["saturation"] = (0, (1, 3))
INK, QUIET = "#1f2933", "#808a96"  # QUIET reads on white and on black
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#c3cad3",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6eaef",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
}


def _figure(width: float, height: float, **kwargs: Any) -> Figure:
    """A figure of its own, on the Agg canvas whatever the machine's backend is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", **kwargs)
    FigureCanvasAgg(figure)
    return figure


def _styled():
    import matplotlib

    return matplotlib.rc_context(STYLE)


def _save(figure: Figure, path: Path, **kwargs: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=kwargs.pop("dpi", 130), **kwargs)
    return path


def scorecard(
    path: Path,
    scores: xr.Dataset,
    baselines: xr.Dataset | None,
    judged: xr.Dataset | None,
    rows: Sequence[Row],
    title: str,
    metric: str = "rmse",
) -> Path:
    """Heat map of differences to each baseline in percent: a row a variable and level, a column a lead; hatched where
    they are not significant."""
    region = str(scores["region"].values[0])
    sources = [] if baselines is None else [str(s) for s in baselines["source"].values]
    leads = columns(scores["lead_time"].values, most=10)
    panels = {s: [difference_to(row, scores, baselines, s, metric, region) for row in rows] for s in sources}
    sure = {s: [sure_of(row, judged, s, metric, region) for row in rows] for s in sources}
    with _styled():
        width = 2.4 + max(1, len(panels)) * (0.62 * len(leads) + 0.4)
        figure = _figure(max(width, 5.5), 1.5 + 0.3 * len(rows))
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        if not panels:
            values = np.array([row.series(scores)[leads] * row.scale(1) for row in rows])
            _heat(figure.subplots(), np.full_like(values, np.nan), _texts(values, number), rows, leads, scores, "RMSE")
            return _save(figure, path)
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (source, found) in zip(axes, panels.items(), strict=True):
            values = np.array([np.full(len(leads), np.nan) if f is None else f[leads] for f in found])
            unsure = np.array([[bool(line) and line[i] is False for i in leads] for line in sure[source]])
            drawn = _heat(axis, values, _texts(values, percent), rows, leads, scores, f"against {source}", unsure)
        bar = figure.colorbar(drawn, ax=axes, shrink=0.8 if len(rows) > 6 else 1.0, pad=0.01, aspect=30)
        bar.set_label(
            f"{metric.upper()}: difference in percent" + ("" if judged is None else "; hatched: not significant")
        )
        bar.set_ticks([0.01 * bound for bound in _bounds() if abs(bound) < 100])
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}".replace("-", "\N{MINUS SIGN}"))
        bar.outline.set_visible(False)
        return _save(figure, path)


def _texts(values: np.ndarray, text) -> list[list[str]]:
    return [[text(value) for value in line] for line in values]


def _heat(axis, values, texts, rows, leads, scores, title, unsure=None):
    """One panel of coloured cells with their numbers; blue is better, orange worse, hatched what is `unsure`."""
    unsure = np.zeros(values.shape, dtype=bool) if unsure is None else unsure
    _hatched(axis, unsure)
    from matplotlib.colors import BoundaryNorm, ListedColormap

    bounds = [0.01 * bound for bound in _bounds()]
    colours = ListedColormap([*reversed(BETTER), "#f4f5f7", *WORSE])
    norm = BoundaryNorm(bounds, len(bounds) - 1, clip=True)
    drawn = axis.pcolormesh(values, cmap=colours, norm=norm, edgecolors="white", linewidth=1.5)
    axis.set_title(title)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set_xticks(np.arange(len(leads)) + 0.5, [lead_text(scores["lead_time"].values[i]) for i in leads])
    axis.set_yticks(np.arange(len(rows)) + 0.5, [row.label for row in rows])
    axis.tick_params(length=0)
    axis.set_ylim(len(rows), 0)
    for i, line in enumerate(texts):
        for j, text in enumerate(line):
            strong = np.isfinite(values[i, j]) and abs(step(values[i, j])) > 4 and not unsure[i, j]
            axis.text(
                j + 0.5,
                i + 0.5,
                text.replace(" ", "\u2009"),
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if strong else INK,
                in_layout=False,
            )
    return drawn


def _bounds() -> list[int]:
    """The steps of colour in percent, from better to worse; what lies beyond the ends has the colour of the ends."""
    return [-100, *(-bound for bound in reversed(STEPS)), *STEPS, 100]


def _hatched(axis: Any, chosen: np.ndarray) -> None:
    """Pale hatched squares over the chosen cells."""
    from matplotlib.patches import Rectangle

    for i, j in np.argwhere(chosen):
        pale = Rectangle((j + 0.02, i + 0.02), 0.96, 0.96, facecolor="#ffffffb8", edgecolor="#aeb8c4")
        pale.set(hatch="////", linewidth=0, zorder=2)
        axis.add_patch(pale)


def curves(
    path: Path,
    scores: xr.Dataset,
    others: Mapping[str, xr.Dataset],
    rows: Sequence[Row],
    title: str,
    metric: str = "rmse",
) -> Path:
    """One small panel a row: the score by lead, with the same score of `others` (name -> Dataset) beside it."""
    x, unit = lead_axis(scores["lead_time"].values)
    across = min(3, len(rows))
    down = -(-len(rows) // across)
    with _styled():
        figure = _figure(3.3 * across + 0.2, 2.25 * down + 0.7)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        axes = figure.subplots(down, across, squeeze=False, sharex=True)
        for axis, row in zip(axes.flat, rows, strict=False):
            _curve(axis, row, scores, others, metric, unit)
        for axis in axes.flat[len(rows) :]:
            axis.set_visible(False)
        for axis in axes[-1]:
            axis.set_xlabel(f"lead time in {unit}")
            axis.set_xticks(ticks(float(x.min()), float(x.max()), 6, unit))
        handles, names = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=len(names), fontsize=9)
        return _save(figure, path)


def _curve(axis, row: Row, scores, others, metric, unit) -> None:
    factor = row.scale(_exponent(scores, metric))
    lines = {}
    for name, dataset in {"forecast": scores, **others}.items():
        if row.variable not in dataset or metric not in dataset["metric"].values:
            continue
        try:
            y = row.series(dataset, metric) * factor
        except KeyError:  # a curve from elsewhere may lack the level or the region
            continue
        if np.isfinite(y).any():
            x = leads_in(unit, dataset["lead_time"].values)
            marker = "o" if len(x) < 3 else None
            axis.plot(x, y, linestyle=DASHES[name], color=COLOURS[name], label=name, marker=marker, ms=4)
            lines[name] = float(np.nanmax(y))
    axis.set_title(f"{row.label} [{row.unit}]" if _exponent(scores, metric) and row.unit else row.label)
    axis.margins(x=0.01)
    fit_errors(axis, metric, [top for name, top in lines.items() if name != "forecast"])


def fit_errors(axis, metric: str, baselines: Sequence[float], room: float = 3.0) -> None:
    """Errors from zero up; one that blows up leaves the page at `room` times the largest error of the baselines."""
    if metric in ("rmse", "mae", "mse"):
        top = axis.get_ylim()[1]
        axis.set_ylim(0, min(top, room * max(baselines)) if baselines else top)


def _exponent(scores: xr.Dataset, metric: str) -> int:
    return int(json.loads(scores.attrs["exponent"])[metric])


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


def _signed(values: np.ndarray) -> bool:
    """True for fields that change sign, such as wind."""
    return bool(np.nanpercentile(values, 10) < 0 < np.nanpercentile(values, 90))


def _limits(values: np.ndarray, centred: bool) -> tuple[float, float]:
    """The range of colours: 1st to 99th percentile, symmetric where centred."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return -1.0, 1.0
    if centred:
        top = float(np.percentile(np.abs(finite), 99)) or 1.0
        return -top, top
    low, high = (float(v) for v in np.percentile(finite, [1, 99]))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


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
