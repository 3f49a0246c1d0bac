"""Draw scores by lead time as curves, and the trials of a sweep as parallel coordinates.

Parallel coordinates: Inselberg 1985, doi 10.1007/BF01898350.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_pipelines.verification.evaluation_results import EvaluationResults
from data_pipelines.verification.score_rows import Row, Score, lead_axis
from emul.display.palette import LINES, LineStyle, further_styles
from emul.pictures.figures import figure_style, label_leads, new_figure, panels, save_figure

if TYPE_CHECKING:
    import xarray as xr


class Curve(NamedTuple):
    """Hold one line of every panel. is_bound: errors far above it are cut off."""

    scores: xr.Dataset
    style: LineStyle
    is_bound: bool = False


def evaluation_curves(results: EvaluationResults) -> dict[str, Curve]:
    """The forecast of an evaluation, its baselines and the limits of predictability."""
    known = {name: one for name, one in results.curves.items() if name in {*LINES, *results.sources}}
    styles = {**further_styles([name for name in known if name not in LINES]), **LINES}
    return {name: Curve(scores, styles[name], name != "forecast") for name, scores in known.items()}


def curves(
    path: Path, lines: Mapping[str, Curve], rows: Sequence[Row], score: Score, title: str = "", room: float = 3.0
) -> Path:
    """One small panel for each row: the score of every line by lead time."""
    leads, unit = lead_axis(next(iter(lines.values())).scores["lead_time"].values)
    columns = min(3, len(rows))
    with figure_style():
        height = 2.25 * -(-len(rows) // columns) + 0.48 + 0.22 * -(-len(lines) // 6)
        figure = new_figure(3.3 * columns + 0.2, height, title)
        axes = panels(figure, len(rows), columns, sharex=True)
        for axis, row in zip(axes, rows, strict=True):
            curve_panel(axis, row, lines, score, unit, room)
        label_leads(figure, leads, unit)
        handles, names = axes[0].get_legend_handles_labels()
        side = "right" if title else "left"
        figure.legend(handles, names, loc=f"outside upper {side}", ncols=min(6, len(lines)), fontsize=8.5)
        return save_figure(figure, path)


def curve_panel(axis: Any, row: Row, lines: Mapping[str, Curve], score: Score, unit: str, room: float = 3.0) -> None:
    """The score of one row by lead time; lines that do not hold it are left out."""
    tops = []
    for name, line in lines.items():
        points = row.curve(line.scores, score, unit)
        if points is not None:
            marker = "o" if len(points[0]) < 3 else None
            width = 2.0 if len(lines) < 6 else 1.5
            axis.plot(*points, label=name, marker=marker, ms=4, linewidth=width, **line.style.for_matplotlib())
            tops += [float(np.nanmax(points[1]))] if line.is_bound else []
    fit_errors(axis, score.metric, tops, room)
    axis.set_title(row.title if score.exponent else row.label)
    axis.margins(x=0.01)


def fit_errors(axis: Any, metric: str, baselines: Sequence[float], room: float = 3.0) -> None:
    """Start errors at zero and cut those that grow beyond `room` times the largest error of the baselines."""
    if metric in ("rmse", "mae", "mse"):
        top = axis.get_ylim()[1]
        axis.set_ylim(0, min(top, room * max(baselines)) if baselines else top)


def draw_trials(path: Path, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], metric: str) -> Path:
    """Draw trials, best first. Numbers are to scale, logarithmic where they span a hundredfold; words in order."""
    from matplotlib import colormaps

    columns = [*keys, metric]
    axes = [_axis([row[name] for row in rows]) for name in columns]
    colours = colormaps["viridis"](np.linspace(0.0, 0.9, len(rows)))
    with figure_style():
        figure = new_figure(1.8 * len(columns) + 1.5, 4)
        panel = figure.subplots()
        for place in range(len(rows) - 1, -1, -1):  # the best on top
            heights = [axis[0][place] for axis in axes]
            style: dict[str, Any] = {"linewidth": 2.5, "zorder": 3} if place == 0 else {"linewidth": 1.0, "alpha": 0.7}
            panel.plot(range(len(columns)), heights, color=colours[place], marker="o", markersize=3, **style)
        for place, (_, labels) in enumerate(axes):
            panel.axvline(place, color="0.8", linewidth=0.8, zorder=0)
            for label, height in labels.items():
                panel.annotate(label, (place, height), (4, 3), textcoords="offset points", fontsize=7, color="0.3")
        panel.set_xticks(range(len(columns)), [name.rpartition(".")[2] for name in columns])
        panel.set_yticks([])
        panel.grid(False)
        panel.set(xlim=(-0.1, len(columns) - 0.55), title=f"best: {rows[0]['trial']}, {metric} {rows[0][metric]:.4f}")
        panel.spines[:].set_visible(False)
        return save_figure(figure, path)


def _axis(values: Sequence[Any]) -> tuple[list[float], dict[str, float]]:
    """Heights of the values from 0 to 1, and the labels with theirs."""
    try:
        numbers = np.array(values, dtype=float)
    except ValueError:
        words = list(dict.fromkeys(map(str, values)))
        labels = {word: (n + 0.5) / len(words) for n, word in enumerate(words)}
        return [labels[str(value)] for value in values], labels
    finite = numbers[np.isfinite(numbers)]
    low, high = float(finite.min()), float(finite.max())
    scaled = np.log(numbers) if low > 0 and high / low >= 100 else numbers
    ends = scaled[np.isfinite(scaled)]
    span = float(np.ptp(ends)) or 1.0
    heights = [float((s - ends.min()) / span) if math.isfinite(s) else 1.0 for s in scaled]
    labels = {f"{number:.4g}": height for number, height in zip(numbers, heights, strict=True)}
    return heights, labels if len(labels) <= 6 else {f"{low:.4g}": 0.0, f"{high:.4g}": 1.0}
