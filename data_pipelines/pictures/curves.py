"""Draw scores by lead time and trainings as curves, trials of a sweep as parallel coordinates, scaling studies, and
scores of projections by the members that are averaged.

Parallel coordinates: Inselberg 1985, doi 10.1007/BF01898350.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_pipelines.display.palette import LINES, PALETTE, LineStyle, further_styles, run_styles
from data_pipelines.files.atomic import atomic_file, remove_left
from data_pipelines.pictures.figures import (
    QUIET,
    TITLE_LINE,
    explain,
    figure_style,
    label_leads,
    new_figure,
    panels,
    save_figure,
)
from data_pipelines.verification.score_rows import Row, Score, lead_axis
from emulators.projections.scores import INTERVAL
from emulators.scaling.annealing import AnnealingLaw, LossCurve
from emulators.scaling.laws import LAWS, Runs

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.projections.projecting import Projected
    from data_pipelines.verification.score_files import EvaluationResults


class Curve(NamedTuple):
    """Hold one line of every panel. is_bound: errors far above it are cut off."""

    scores: xr.Dataset
    style: LineStyle
    is_bound: bool = False


def evaluation_curves(results: EvaluationResults) -> dict[str, Curve]:
    """The forecast of an evaluation, its baselines and the limits of predictability."""
    plotted = {name: curve for name, curve in results.curves.items() if name in {*LINES, *results.sources}}
    styles = {**further_styles([name for name in plotted if name not in LINES]), **LINES}
    return {name: Curve(scores, styles[name], name != "forecast") for name, scores in plotted.items()}


def curves(
    path: Path, lines: Mapping[str, Curve], rows: Sequence[Row], score: Score, title: str = "", room: float = 3.0
) -> Path:
    """One small panel for each row: the score of every line by lead time."""
    leads, unit = lead_axis(next(iter(lines.values())).scores["lead_time"].values)
    columns = min(3, len(rows))
    with figure_style():
        width = 3.3 * columns + 0.2
        beside = max(1, int(width / (0.7 + 0.08 * max(map(len, lines)))))  # names of the legend
        height = 2.25 * -(-len(rows) // columns) + 0.48 + 0.2 * -(-len(lines) // beside)
        figure = new_figure(width, height + (TITLE_LINE if title else 0.0), title)
        axes = panels(figure, len(rows), columns, sharex=True)
        for axis, row in zip(axes, rows, strict=True):
            curve_panel(axis, row, lines, score, unit, room)
        label_leads(figure, leads, unit)
        by_label = {str(line.get_label()): line for axis in axes for line in axis.lines}
        place: Any = "outside lower left"
        figure.legend(by_label.values(), by_label, loc=place, ncols=beside, fontsize=8.5)
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


INK = "#22577a"


def draw_training(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss and validation score by step, on logarithmic axes, from the rows of a metrics.csv."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), ("loss", "score"), strict=True):
        points = np.array([(row["step"], row[name]) for row in rows if np.isfinite(row.get(name, np.nan))])
        if points.size:
            axis.plot(*points.T, color=INK, marker="o" if name == "score" else None, markersize=3, linewidth=1)
            axis.set_yscale("log")
        axis.set(xlabel="step", title=name)
        axis.spines[["top", "right"]].set_visible(False)
    remove_left(path)
    with atomic_file(path) as unfinished:
        FigureCanvasAgg(figure).print_png(unfinished)


OUTER = "#64748b"  # what is predicted or beyond the runs


def colours_of(values: Sequence[float]) -> dict[float, Any]:
    """A colour for each value, from dark to light as it grows."""
    from matplotlib import colormaps

    distinct = sorted(set(values))
    return dict(zip(distinct, colormaps["viridis"](np.linspace(0.0, 0.85, len(distinct))), strict=True))


def draw_curves(path: Path, curves: Mapping[int, Mapping[str, LossCurve]], laws: Mapping[str, Any]) -> Path:
    """The training losses of every width, and the law of annealing through them."""
    with figure_style():
        figure = new_figure(7.2, 4.2)
        axis = figure.subplots()
        colours = colours_of([*curves])
        for width, runs in curves.items():
            fitted = laws.get(str(width))
            values = {name: ends[0] for name, ends in fitted["parameters"].items()} if fitted else {}
            law = AnnealingLaw(**values, error=fitted["error"]) if fitted else None
            for number, curve in enumerate(runs.values()):
                label = f"width {width}" if number == 0 else None
                axis.plot(curve.steps, curve.loss, ".", ms=3, color=colours[width], alpha=0.6, label=label)
                if law is not None:
                    steps = np.arange(int(curve.steps[0]), len(curve.rates) + 1)
                    axis.plot(steps, law.loss(curve.rates)[steps - 1], color=colours[width], linewidth=1.0)
        axis.set(xscale="log", yscale="log", xlabel="optimiser steps", ylabel="training loss")
        axis.set_title("Loss curves (points) and the law of annealing (lines)")
        axis.legend(fontsize=8)
        return save_figure(figure, path)


def draw_isoflop(path: Path, curves: Sequence[Mapping[str, Any]], frontier: Mapping[str, Any], metric: str) -> Path:
    """The losses by size at equal operations, their parabolas and minima, and the best sizes of the law."""
    with figure_style():
        figure = new_figure(7.2, 4.2)
        axis = figure.subplots()
        colours = colours_of([curve["compute"] for curve in curves])
        for curve in curves:
            sizes, losses = np.array(curve["sizes"]), np.array(curve["losses"])
            colour = colours[curve["compute"]]
            axis.plot(sizes, losses, "o", color=colour, label=f"{curve['compute']:.2g}")
            if curve["curvature"] > 0:
                x = np.geomspace(sizes.min(), sizes.max(), 50)
                shape = np.exp(np.log(curve["loss"]) + curve["curvature"] * np.log(x / curve["size"]) ** 2)
                axis.plot(x, shape, color=colour, linewidth=1.2)
            if curve["inside"]:
                axis.plot(curve["size"], curve["loss"], "v", color=colour, ms=8)
        low, high = axis.get_xlim()
        sizes, losses = np.array(frontier["size"][0]), np.array(frontier["loss"][0])
        inside = (sizes > low) & (sizes < high)
        axis.plot(sizes[inside], losses[inside], "--", color=OUTER, label="law", linewidth=1.2)
        axis.set(xscale="log", yscale="log", xlabel="size N", ylabel=metric)
        axis.set_title("Equal operations: runs, parabolas, their minima (triangles)")
        axis.legend(fontsize=8, title="operations", title_fontsize=8)
        return save_figure(figure, path)


def draw_frontier(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    laws: Mapping[str, Any],
    metric: str,
    held_out: Mapping[str, Any] | None,
    prediction: tuple[float, Sequence[float]],
) -> Path:
    """The score of every run by operations with the frontier of the law, and the best size and data by operations.

    prediction: operations of the held-out run, and its value, lower and upper end.
    """
    frontier = laws["frontier"]
    compute = np.array(frontier["compute"])
    with figure_style():
        figure = new_figure(9.6, 3.9)
        first, second = figure.subplots(1, 2)
        colours = colours_of([row["width"] for row in rows])
        for width, colour in colours.items():
            here = sorted((row["operations"], row[metric]) for row in rows if row["width"] == width)
            first.plot(*np.array(here).T, "o-", ms=4, linewidth=1.0, color=colour, label=f"width {width:g}")
        _band(first, compute, frontier["loss"], OUTER, f"frontier of {laws['split']}, 90 %")
        at, (value, low, high) = prediction
        spread = np.abs(np.array([[value - low], [high - value]]))
        first.errorbar([at], [value], spread, fmt="s", color=PALETTE[1], capsize=4, label="predicted")
        if held_out is not None:
            first.plot(at, held_out[metric], "*", ms=11, color="black", label="held-out run")
        first.set(xscale="log", yscale="log", xlabel="operations", ylabel=metric, title="Frontier")
        first.legend(fontsize=7)
        _band(second, compute, frontier["size"], PALETTE[0], "size N")
        _band(second, compute, frontier["data"], PALETTE[3], "data D")
        second.axvline(laws["largest"], color=OUTER, linewidth=1.0, linestyle=":")
        second.set(xscale="log", yscale="log", xlabel="operations", title="Best size and data; dotted: largest run")
        second.legend(fontsize=8)
        return save_figure(figure, path)


def _band(axis: Any, x: np.ndarray, values: Sequence[Sequence[float]], colour: str, label: str) -> None:
    middle, low, high = (np.array(series) for series in values)
    axis.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axis.plot(x, middle, color=colour, label=label)


def draw_residuals(path: Path, rows: Sequence[Mapping[str, Any]], drawn: Mapping[str, Any], metric: str) -> Path:
    """How far each run lies from a law, in percent, by size and by data. drawn: the law, its method and its values."""
    size, data, loss, compute, passes = (
        np.array([row[name] for row in rows], dtype=float) for name in ("size", "data", metric, "operations", "passes")
    )
    runs = Runs(size, data, loss, compute, data / passes)
    rest = 100 * np.expm1(np.log(runs.loss) - LAWS[drawn["law"]].log_loss(np.array(drawn["values"]), runs))
    with figure_style():
        figure = new_figure(9.6, 3.0)
        for axis, x, label, column in zip(
            figure.subplots(1, 2, sharey=True), (size, data), ("size N", "data D"), (data, size), strict=True
        ):
            colours = colours_of(column.tolist())
            axis.scatter(x, rest, c=[colours[value] for value in column], s=18)
            axis.axhline(0.0, color=OUTER, linewidth=1.0)
            axis.set(xscale="log", xlabel=label)
        figure.axes[0].set(ylabel="run minus law, %", title=f"Residuals of {drawn['law']} {drawn['method']}")
        return save_figure(figure, path)


def draw_rates(
    path: Path,
    scores: Mapping[str, Mapping[int, Mapping[float, float]]],
    found: Mapping[str, Any],
    widths: Sequence[int],
    metric: str,
) -> Path:
    """Scores over factors of the learning rate by width, and sizes of activations over width, a row a parametrisation.

    scores: by parametrisation, width and factor. found: best factors, sizes and slopes by parametrisation.
    """
    with figure_style():
        figure = new_figure(9.6, 3.2 * len(scores))
        grid = figure.subplots(len(scores), 2, squeeze=False, sharex="col")
        colours = colours_of(widths)
        for (first, second), (kind, by_width) in zip(grid, scores.items(), strict=True):
            part = found[kind]
            for width, by_factor in by_width.items():
                points = np.array(sorted((f, score) for f, score in by_factor.items() if f > 0 and np.isfinite(score)))
                if points.size:
                    first.plot(*points.T, "o-", ms=3, linewidth=1.0, color=colours[width], label=f"width {width}")
                    first.axvline(part["best"][str(width)][0], color=colours[width], linewidth=0.8, linestyle=":")
            first.set(xscale="log", ylabel=metric, title=f"{kind}: best rates move by {part['moves']:.2g}")
            for name, sizes in part["sizes"].items():
                label = f"{name}  {part['slopes'][name]:+.2f}"
                second.plot(widths, sizes, "o-", ms=3, linewidth=1.0, label=label)
            second.set(xscale="log", yscale="log", title="Sizes of activations, and their slopes")
            second.legend(fontsize=7)
        grid[0, 0].legend(fontsize=7)
        grid[-1, 0].set(xlabel="learning rate over that of the study")
        grid[-1, 1].set(xlabel="width")
        return save_figure(figure, path)


def member_picture(path: Path, results: Sequence[Projected]) -> Path:
    """Draw a panel for each variable and scenario: total score by members averaged, with intervals of the draws."""
    columns = min(3, len(results))
    with figure_style():
        figure = new_figure(max(7.6, 3.8 * columns), 2.9 * -(-len(results) // columns) + 0.6)
        axes = panels(figure, len(results), columns)
        for axis, result in zip(axes, results, strict=True):
            study, drawn = result.study, [*result.study.counts[:-1]]
            for name, style in run_styles(list(study.totals)).items():
                low, middle, high = np.transpose(
                    [np.percentile(study.totals[name][count], (INTERVAL[0], 50.0, INTERVAL[1])) for count in drawn]
                    or np.zeros((0, 3))
                )
                axis.plot(drawn, middle, label=name.replace("_", " "), **style.for_matplotlib())
                axis.fill_between(drawn, low, high, color=style.colour, alpha=0.15, linewidth=0)
                everything = float(study.totals[name][study.counts[-1]][0])
                axis.plot([study.counts[-1]], [everything], marker="o", ms=5, color=style.colour)
            floor = [study.floor[count] for count in study.counts]
            axis.plot(study.counts, floor, color=QUIET, linestyle=":", label="forced response, spatial part")
            axis.set(
                title=f"{result.variable}, {result.scenario.name}", xlabel="members averaged", ylabel="total NRMSE"
            )
            axis.set_ylim(bottom=0.0)
        place: Any = "outside upper left"
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc=place, ncols=4, fontsize=8)
        share = f"{INTERVAL[1] - INTERVAL[0]:.0f} %"
        sentence = f"Lines: median of the draws of members, shaded where {share} of them lie; points: all members."
        explain(figure, [f"{sentence} Where shaded ranges overlap, which emulator wins can be luck."])
        return save_figure(figure, path)
