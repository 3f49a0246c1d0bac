"""The style of all matplotlib figures, and writing them to files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


INK, QUIET = "#1f2933", "#808a96"  # QUIET reads on white and on black
STYLE = {
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
    "lines.linewidth": 2.0,
}


def _figure(width: float, height: float, **kwargs: Any) -> Figure:
    """A figure of its own, on the Agg canvas whatever the machine's backend is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", **kwargs)
    FigureCanvasAgg(figure)
    return figure


def _styled():
    import matplotlib

    return matplotlib.rc_context(STYLE)


def _save(figure: Figure, path: Path, **kwargs: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=kwargs.pop("dpi", 130), **kwargs)
    return path


def _exponent(scores: xr.Dataset, metric: str) -> int:
    return int(json.loads(scores.attrs["exponent"])[metric])


def _signed(values: np.ndarray) -> bool:
    """True for fields that change sign, such as wind."""
    return bool(np.nanpercentile(values, 10) < 0 < np.nanpercentile(values, 90))


def _limits(values: np.ndarray, centred: bool) -> tuple[float, float]:
    """The range of colours: 1st to 99th percentile, symmetric where centred."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return -1.0, 1.0
    if centred:
        top = float(np.percentile(np.abs(finite), 99)) or 1.0
        return -top, top
    low, high = (float(v) for v in np.percentile(finite, [1, 99]))
    return (low, high) if high > low else (low - 0.5, high + 0.5)
