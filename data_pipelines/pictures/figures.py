"""Make, style and save matplotlib figures."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_pipelines.display.text import ticks
from data_pipelines.files.atomic import atomic_file, remove_left

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


INK, QUIET = "#1f2933", "#5b6876"
TITLE_CHARACTER, TITLE_LINE = 0.094, 0.2  # inches of a title
NOTE_CHARACTER, NOTE_LINE = 0.066, 0.14  # inches of a sentence below
STYLE: dict[Any, Any] = {
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
    "legend.handlelength": 3.4,  # holds every dash once
    "lines.linewidth": 2.0,
}


def figure_style() -> AbstractContextManager[None]:
    """The style of all figures, for a `with` statement."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """A figure of width x height inches on the Agg canvas, whatever backend the machine has; long titles are wrapped
    and make it higher."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        lines = wrap(title, int(width / TITLE_CHARACTER))
        figure.set_figheight(height + TITLE_LINE * (len(lines) - 1))
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def explain(figure: Figure, sentences: Iterable[str]) -> None:
    """Write sentences below a figure, wrapped to its width; they make it higher."""
    width, height = figure.get_size_inches()
    lines = [line for sentence in sentences for line in wrap(sentence, int(width / NOTE_CHARACTER))]
    if lines:
        figure.set_figheight(height + NOTE_LINE * len(lines))
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8)


def save_figure(figure: Figure, path: Path, dpi: int = 130, **options: Any) -> Path:
    """Write a figure to `path`, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left(path)
    with atomic_file(path) as unfinished:
        figure.savefig(unfinished, dpi=dpi, format=path.suffix[1:], **options)
    return path


def panels(figure: Any, count: int, columns: int, *, sharex: bool = False, sharey: bool = False) -> list[Axes]:
    """`count` axes in rows of `columns`, the rest of the last row hidden."""
    axes = figure.subplots(-(-count // columns), columns, squeeze=False, sharex=sharex, sharey=sharey)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return list(axes.flat[:count])


def label_leads(figure: Any, leads: np.ndarray, unit: str) -> None:
    """Label the lead-time axis below the last row of panels; leads: in `unit`."""
    for axis in figure.axes:
        if axis.get_subplotspec().is_last_row():
            axis.set_xlabel(f"lead time in {unit}")
            axis.set_xticks(ticks(float(leads.min()), float(leads.max()), 6, unit))


def colour_bar(figure: Any, drawn: Any, axes: Any, label: str, colour: str = INK, **options: Any) -> Any:
    """A colour bar without a frame."""
    bar = figure.colorbar(drawn, ax=axes, **options)
    bar.set_label(label, color=colour)
    bar.ax.tick_params(colors=colour, length=2)
    bar.outline.set_visible(False)
    return bar


def colour_limits(values: np.ndarray, centred: bool | None = None) -> tuple[float, float]:
    """The range of colours: 1st to 99th percentile, symmetric where centred; None: where the field changes sign."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return -1.0, 1.0
    if centred is None:
        centred = bool(np.percentile(finite, 10) < 0 < np.percentile(finite, 90))
    if centred:
        top = float(np.percentile(np.abs(finite), 99)) or 1.0
        return -top, top
    low, high = (float(v) for v in np.percentile(finite, [1, 99]))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


class Scale(NamedTuple):
    """Name the ends of a range of colours and its colour map."""

    low: float
    high: float
    colours: str


def field_scale(fields: Iterable[np.ndarray], centred: bool | None = None) -> Scale:
    """The scale that several fields share."""
    low, high = colour_limits(np.concatenate([field.ravel() for field in fields]), centred)
    return Scale(low, high, "RdBu_r" if low == -high else "viridis")
