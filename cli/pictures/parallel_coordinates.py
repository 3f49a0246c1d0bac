"""Parallel coordinates of a sweep: an axis for each key that varies, the metric last, a line for each trial.

Inselberg 1985, doi 10.1007/BF01898350.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emul.pictures.figures import figure_style, new_figure, save_figure


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
