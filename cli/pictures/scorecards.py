"""Draw score cards as heat maps, of one evaluation or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.verification.score_rows import Row, headline_leads, relative_difference, significance
from emul.display.palette import BETTER, WORSE
from emul.display.text import STEPS, colour_step, lead_text, number, percent
from emul.pictures.figures import INK, _figure, _save, _styled

if TYPE_CHECKING:
    import xarray as xr


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
    leads = headline_leads(scores["lead_time"].values, most=10)
    panels = {s: [relative_difference(row, scores, baselines, s, metric, region) for row in rows] for s in sources}
    sure = {s: [significance(row, judged, s, metric, region) for row in rows] for s in sources}
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
            strong = np.isfinite(values[i, j]) and abs(colour_step(values[i, j])) > 4 and not unsure[i, j]
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


ACROSS = 4  # score cards in a row


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
    leads = headline_leads(against["lead_time"].values, most=8)
    across = min(ACROSS, len(runs))
    down = -(-len(runs) // across)
    with _styled():
        figure = _figure(1.9 + across * (0.5 * len(leads) + 0.35), 0.7 + down * (0.55 + 0.27 * len(rows)))
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        axes = figure.subplots(down, across, squeeze=False, sharey=True)
        for axis, (name, scores) in zip(axes.flat, runs.items(), strict=False):
            found = [relative_difference(row, scores, against, source, metric, region) for row in rows]
            sure = [significance(row, judged, name, metric, region) for row in rows]
            values = np.array([np.full(len(leads), np.nan) if one is None else one[leads] for one in found])
            unsure = np.array([[bool(line) and line[i] is False for i in leads] for line in sure])
            texts = [[percent(value)[:-2] for value in line] for line in values]
            _heat(axis, values, texts, rows, leads, scores, name, unsure)
        for axis in axes.flat[len(runs) :]:
            axis.set_visible(False)
        return _save(figure, path)
