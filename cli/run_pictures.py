"""Pictures of several runs: their score cards side by side, and their curves in one panel a variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emul.charts import ticks
from emul.page import PALETTE
from emul.pictures import _exponent, _figure, _heat, _save, _styled, fit_errors
from emul.scorecard import Row, columns, difference_to, lead_axis, leads_in, percent, sure_of

if TYPE_CHECKING:
    import xarray as xr

STROKES = ("-", "--", ":", "-.")
ACROSS = 4  # score cards in a row
BESIDE = {"persistence": ("#9aa5b1", "--"), "climatology": ("#9aa5b1", ":")}


def run_scorecards(
    path: Path,
    runs: Mapping[str, xr.Dataset],
    against: xr.Dataset,
    judged: xr.Dataset | None,
    rows: Sequence[Row],
    metric: str,
    region: str,
    title: str,
) -> Path:
    """A score card a run, differences in percent to the one source of `against`; hatched: not significant."""
    source = str(against["source"].values[0])
    leads = columns(against["lead_time"].values, most=8)
    across = min(ACROSS, len(runs))
    down = -(-len(runs) // across)
    with _styled():
        figure = _figure(1.9 + across * (0.5 * len(leads) + 0.35), 0.7 + down * (0.55 + 0.27 * len(rows)))
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        axes = figure.subplots(down, across, squeeze=False, sharey=True)
        for axis, (name, scores) in zip(axes.flat, runs.items(), strict=False):
            found = [difference_to(row, scores, against, source, metric, region) for row in rows]
            sure = [sure_of(row, judged, name, metric, region) for row in rows]
            values = np.array([np.full(len(leads), np.nan) if one is None else one[leads] for one in found])
            unsure = np.array([[bool(line) and line[i] is False for i in leads] for line in sure])
            texts = [[percent(value)[:-2] for value in line] for line in values]
            _heat(axis, values, texts, rows, leads, scores, name, unsure)
        for axis in axes.flat[len(runs) :]:
            axis.set_visible(False)
        return _save(figure, path)


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
                    places = leads_in(unit, dataset["lead_time"].values)
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
