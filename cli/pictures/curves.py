"""Draw scores by lead time as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.verification.score_rows import Row, lead_axis, leads_in_unit
from emul.display.palette import COLOURS, PALETTE
from emul.display.ticks import ticks
from emul.pictures.figures import _exponent, _figure, _save, _styled

if TYPE_CHECKING:
    import xarray as xr


DASHES: dict[str, Any] = {"forecast": "-", "persistence": "--", "climatology": ":", "predictability": "-."}


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
            x = leads_in_unit(unit, dataset["lead_time"].values)
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


STROKES = ("-", "--", ":", "-.")
BESIDE = {"persistence": ("#9aa5b1", "--"), "climatology": ("#9aa5b1", ":")}


def run_curves(
    path: Path,
    runs: Mapping[str, xr.Dataset],
    beside: Mapping[str, xr.Dataset],
    rows: Sequence[Row],
    metric: str,
    region: str,
) -> Path:
    """One small panel a row: the score of every run by lead, baselines in grey."""
    first = next(iter(runs.values()))
    x, unit = lead_axis(first["lead_time"].values)
    across = min(3, len(rows))
    down = -(-len(rows) // across)
    styles = {name: (PALETTE[n % len(PALETTE)], STROKES[n // len(PALETTE) % 4]) for n, name in enumerate(runs)}
    styles |= {name: style for name, style in BESIDE.items() if name in beside}
    with _styled():
        figure = _figure(3.3 * across + 0.2, 2.25 * down + 0.5 + 0.22 * -(-len(styles) // 6))
        axes = figure.subplots(down, across, squeeze=False, sharex=True)
        for axis, row in zip(axes.flat, rows, strict=False):
            tops = []
            for name, (colour, stroke) in styles.items():
                dataset = runs[name] if name in runs else beside[name]
                if row.variable in dataset and metric in dataset["metric"].values:
                    y = row.series(dataset, metric, region) * row.scale(_exponent(first, metric))
                    places = leads_in_unit(unit, dataset["lead_time"].values)
                    axis.plot(places, y, color=colour, linestyle=stroke, label=name, linewidth=1.5)
                    tops += [float(np.nanmax(y))] if name in beside and np.isfinite(y).any() else []
            fit_errors(axis, metric, tops, room=1.5)
            axis.set_title(f"{row.label} [{row.unit}]" if row.unit else row.label)
            axis.margins(x=0.01)
        for axis in axes.flat[len(rows) :]:
            axis.set_visible(False)
        for axis in axes[-1]:
            axis.set_xlabel(f"lead time in {unit}")
            axis.set_xticks(ticks(float(x.min()), float(x.max()), 6, unit))
        handles, names = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=6, fontsize=8.5)
        return _save(figure, path)
