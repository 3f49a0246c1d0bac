"""Learning curves: the numbers of a training's metrics.csv, and a picture of loss and validation score by step."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.files.atomic import atomic_file

INK = "#22577a"


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.csv, empty cells left out; a line that a kill cut short is passed over."""
    if not path.exists():
        return []
    found = []
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            try:
                numbers = {name: float(value) for name, value in row.items() if value}
                found.append({**numbers, "step": int(numbers["step"])})
            except (KeyError, TypeError, ValueError):
                continue
    return found


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Two panels, the loss on a logarithmic axis; written beside and moved into place."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), ("loss", "score"), strict=True):
        points = np.array([(row["step"], row[name]) for row in rows if np.isfinite(row.get(name, np.nan))])
        if points.size:
            axis.plot(*points.T, color=INK, marker="o" if name == "score" else None, markersize=3, linewidth=1)
            axis.set_yscale("log")
        axis.set(xlabel="step", title=name)
        axis.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as unfinished:
        FigureCanvasAgg(figure).print_png(unfinished)
