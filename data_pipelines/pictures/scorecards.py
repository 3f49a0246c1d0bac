"""Draw score cards as heat maps, of one evaluation or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.display.palette import BETTER, WORSE, text_on
from data_pipelines.display.text import (
    MINUS,
    STEPS,
    lead_text,
    metric_title,
    number,
    percent,
    verdict_lines,
)
from data_pipelines.pictures.figures import colour_bar, explain, figure_style, new_figure, panels, save_figure
from data_pipelines.verification.score_rows import Row, headline_leads

if TYPE_CHECKING:
    from data_pipelines.verification.score_files import EvaluationResults

BOUNDS = [0.01 * bound for bound in (-100, *(-step for step in reversed(STEPS)), *STEPS, 100)]  # of the colours

HATCHES = {"no": "////", "few": "...."}  # by verdict


def scorecard(path: Path, results: EvaluationResults, rows: Sequence[Row], title: str, metric: str = "rmse") -> Path:
    """Heat map of the differences to each baseline in percent, a row by variable and level, a column by lead time.

    Hatched where they are not significant, dotted where the initial times are too few to say. The scores themselves
    where there is no baseline.
    """
    leads = headline_leads(results.leads, most=10)
    with figure_style():
        width = 2.4 + max(1, len(results.sources)) * (0.62 * len(leads) + 0.4)
        figure = new_figure(max(width, 5.5), 1.5 + 0.3 * len(rows), title)
        if not results.sources:
            values = np.array([results.values(row, metric)[leads] for row in rows])
            blank = np.full(values.shape, np.nan)
            times = [lead_text(results.leads[i]) for i in leads]
            _heat_map(figure.subplots(), blank, {}, _texts(values, number), rows, times, metric_title(metric))
            return save_figure(figure, path)
        axes = panels(figure, len(results.sources), len(results.sources), sharey=True)
        for axis, source in zip(axes, results.sources, strict=True):
            mesh = _differences(axis, results, source, rows, leads, metric, None, f"against {source}")
        notes = verdict_lines(results, metric)
        notes = ["Hatched: not significant. Dotted: too few initial times to say.", *notes] if notes else []
        explain(figure, notes)
        label = f"{metric_title(metric)}: difference in percent"
        bar = colour_bar(figure, mesh, axes, label, shrink=0.8 if len(rows) > 6 else 1.0, pad=0.01, aspect=30)
        bar.set_ticks(BOUNDS[1:-1])
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}".replace("-", MINUS))
        return save_figure(figure, path)


def run_scorecards(
    path: Path, runs: Sequence[EvaluationResults], rows: Sequence[Row], metric: str, region: str, title: str
) -> Path:
    """A score card for each run: differences in percent to its one baseline, hatched as in `scorecard`."""
    leads = headline_leads(runs[0].leads, most=8)
    columns = min(4, len(runs))
    with figure_style():
        height = 0.7 + -(-len(runs) // columns) * (0.55 + 0.27 * len(rows))
        figure = new_figure(1.9 + columns * (0.5 * len(leads) + 0.35), height, title)
        for axis, run in zip(panels(figure, len(runs), columns, sharey=True), runs, strict=True):
            _differences(axis, run, run.sources[0], rows, leads, metric, region, run.shown_name, percent_sign=False)
        return save_figure(figure, path)


def _differences(
    axis: Any,
    results: EvaluationResults,
    source: str,
    rows: Sequence[Row],
    leads: Sequence[int],
    metric: str,
    region: str | None,
    title: str,
    percent_sign: bool = True,
) -> Any:
    """One panel: differences to `source` with their verdicts."""
    where = (source, metric, region)
    changes = [results.relative_difference(row, *where) for row in rows]
    values = np.array([np.full(len(leads), np.nan) if line is None else line[leads] for line in changes])
    verdicts = [results.verdicts(row, *where) for row in rows]
    unsure = {kind: np.array([[line[i] == kind for i in leads] for line in verdicts]) for kind in HATCHES}
    texts = _texts(values, percent if percent_sign else lambda value: percent(value).removesuffix(" %"))
    return _heat_map(axis, values, unsure, texts, rows, [lead_text(results.leads[i]) for i in leads], title)


def _texts(values: np.ndarray, text: Any) -> list[list[str]]:
    return [[text(value) for value in line] for line in values]


def _heat_map(
    axis: Any,
    values: np.ndarray,
    unsure: Mapping[str, np.ndarray],
    texts: Sequence[Sequence[str]],
    rows: Sequence[Row],
    times: Sequence[str],
    title: str,
) -> Any:
    """Cells with their texts; blue is better, orange worse. unsure: by key of HATCHES, the cells that are hatched."""
    from matplotlib.colors import BoundaryNorm, ListedColormap, to_hex
    from matplotlib.patches import Rectangle

    hatched = np.zeros(values.shape, dtype=bool)
    for kind, cells in unsure.items():
        hatched |= cells
        for i, j in np.argwhere(cells):
            cell = Rectangle((j, i), 1.0, 1.0, facecolor="#f4f5f7", edgecolor="#c3cad3")
            cell.set(hatch=HATCHES[kind], linewidth=0, zorder=0.5)  # below the white edges of the cells
            axis.add_patch(cell)
    visible = np.where(hatched, np.nan, values)
    colours = ListedColormap([*reversed(BETTER), "#f4f5f7", *WORSE])
    norm = BoundaryNorm(BOUNDS, len(BOUNDS) - 1, clip=True)
    mesh = axis.pcolormesh(visible, cmap=colours, norm=norm, edgecolors="white", linewidth=1.5, zorder=1)
    axis.set_title(title)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set_xticks(np.arange(len(times)) + 0.5, times)
    axis.set_yticks(np.arange(len(rows)) + 0.5, [row.label for row in rows])
    axis.tick_params(length=0)
    axis.set_ylim(len(rows), 0)
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.5, "in_layout": False}
    for (i, j), value in np.ndenumerate(values):
        text = texts[i][j].replace(" ", "\N{THIN SPACE}")
        ground = to_hex(colours(norm(value)) if np.isfinite(visible[i, j]) else "white")
        axis.text(j + 0.5, i + 0.5, text, color=text_on(ground), **style)
    return mesh
