"""Draw scores by lead time as curves."""

from __future__ import annotations

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
