"""Parallel coordinates of a sweep: an axis a key that varies, the metric last, a line a trial (Inselberg 1985)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.files.atomic import atomic_file


def draw(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], metric: str, path: Path) -> None:
    """rows: best first. Numbers are to scale, logarithmic where they span a hundredfold; words in order."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = [*keys, metric]
    axes = {name: _axis([row[name] for row in rows]) for name in columns}
    figure = Figure(figsize=(1.8 * len(columns) + 1.5, 4), layout="constrained")
    panel = figure.subplots()
    colours = colormaps["viridis"](np.linspace(0.0, 0.9, len(rows)))
    for place in range(len(rows) - 1, -1, -1):  # the best on top
        heights = [axes[name][0][place] for name in columns]
        style: dict[str, Any] = {"linewidth": 2.5, "zorder": 3} if place == 0 else {"linewidth": 1.0, "alpha": 0.7}
        panel.plot(range(len(columns)), heights, color=colours[place], marker="o", markersize=3, **style)
    for place, name in enumerate(columns):
        panel.axvline(place, color="0.8", linewidth=0.8, zorder=0)
        for height, label in axes[name][1]:
            panel.annotate(label, (place, height), (4, 3), textcoords="offset points", fontsize=7, color="0.3")
    panel.set_xticks(range(len(columns)), [name.rpartition(".")[2] for name in columns])
    panel.set_yticks([])
    panel.set(xlim=(-0.1, len(columns) - 0.55), title=f"best: {rows[0]['trial']}, {metric} {rows[0][metric]:.4f}")
    panel.spines[:].set_visible(False)
    with atomic_file(path) as unfinished:
        FigureCanvasAgg(figure).print_png(unfinished)


def _axis(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights from 0 to 1, and what to write at which height."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        words = list(dict.fromkeys(map(str, values)))
        high = {word: (n + 0.5) / len(words) for n, word in enumerate(words)}
        return [high[str(value)] for value in values], [(height, word) for word, height in high.items()]
    finite = [number for number in numbers if math.isfinite(number)]
    low, top = min(finite), max(finite)
    if low > 0 and top / low >= 100:
        scaled = [math.log(number) if number > 0 else math.nan for number in numbers]
    else:
        scaled = numbers
    ends = [s for s in scaled if math.isfinite(s)]
    span = (max(ends) - min(ends)) or 1.0
    heights = [(s - min(ends)) / span if math.isfinite(s) else 1.0 for s in scaled]
    marks = {f"{number:.4g}": height for number, height in zip(numbers, heights, strict=True)}
    shown = list(marks.items()) if len(marks) <= 6 else [(f"{low:.4g}", 0.0), (f"{top:.4g}", 1.0)]
    return heights, [(height, label) for label, height in shown]
