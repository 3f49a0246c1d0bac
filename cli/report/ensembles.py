"""Ensembles in a report: rank histograms and reliability diagrams of the first rows, at a few leads."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.verification.score_rows import Row, headline_leads
from emul.display.text import lead_text

if TYPE_CHECKING:
    import xarray as xr


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 190, 36, 10, 8, 26
LEADS = 3
RANKS = (
    "How often the truth has each rank among the members, from below all (left) to above all (right). Flat (dashed): "
    "the truth could be one of them. A valley: too little spread; a hill: too much; a slope: a bias."
)
RELIABILITY = (
    "How often an event came about (upright) where the ensemble gave it a probability (across); on the diagonal "
    "probabilities mean what they say. The size of a dot shows how often the probability was given."
)


def section(histograms: xr.Dataset, first: Sequence[Row]) -> str:
    """The part of the report; histograms: of `Scorecard.histograms`."""
    region = str(histograms["region"].values[0])
    leads = headline_leads(histograms["lead_time"].values, most=LEADS)
    shades = np.linspace(0.4, 1.0, len(leads)) if len(leads) > 1 else np.ones(1)
    times = [lead_text(histograms["lead_time"].values[i]) for i in leads]
    ranks = _charts(histograms, first, "rank_histogram", region, leads, lambda values, _: _bars(values, shades, times))
    kinds = sorted(_metrics(histograms, "probability") - {"sharpness"})
    diagrams = "".join(
        _charts(histograms, first, kind, region, leads, lambda values, used: _diagram(values, used, shades, times))
        for kind in kinds
    )
    if not ranks and not diagrams:
        return ""
    legend = "".join(
        f'<span><i class=forecast style="opacity:{shade:.2f}"></i>{time}</span>'
        for shade, time in zip(shades, times, strict=True)
    )
    shown = f"<h2 id=ensemble>Ensemble</h2><div class=legend>{legend}</div>"
    if ranks:
        shown += f"<h3>Rank histograms</h3><p class=quiet>{RANKS}</p><div class=charts>{ranks}</div>"
    if diagrams:
        told = f"{RELIABILITY} {escape(_definition(histograms, kinds))}"
        shown += f"<h3>Reliability</h3><p class=quiet>{told}</p><div class=charts>{diagrams}</div>"
    return shown


def _metrics(histograms: xr.Dataset, dim: str) -> set[str]:
    """The metrics whose values have an axis `dim`; a data variable is `<variable>_<metric>`."""
    told = [part.partition(" = ")[0] for part in str(histograms.attrs["definitions"]).split("; ")]
    return {
        name
        for name in told
        if any(str(n).endswith(f"_{name}") and dim in histograms[n].dims for n in histograms.data_vars)
    }


def _definition(histograms: xr.Dataset, kinds: Sequence[str]) -> str:
    parts = [part.partition(" = ") for part in str(histograms.attrs["definitions"]).split("; ")]
    return "; ".join(f"{name}: {text}" for name, _, text in parts if name in kinds)


def _charts(histograms: xr.Dataset, first: Sequence[Row], metric: str, region: str, leads: Sequence[int], draw) -> str:
    """A figure a row that has the metric."""
    figures = []
    for row in first:
        values = _values(histograms, row, metric, region, leads)
        if values is None:
            continue
        used = _values(histograms, row, "sharpness", region, leads)
        figures.append(f"<figure><figcaption>{escape(row.label)}</figcaption>{draw(values, used)}</figure>")
    return "".join(figures)


def _values(histograms: xr.Dataset, row: Row, metric: str, region: str, leads: Sequence[int]) -> np.ndarray | None:
    """(lead, rank or probability) of a row; None where there is none."""
    name = f"{row.variable}_{metric}"
    if name not in histograms:
        return None
    field = histograms[name].sel(region=region).isel(lead_time=list(leads))
    field = field if row.level is None else field.sel(level=row.level)
    values = field.transpose("lead_time", ...).values
    return values if np.isfinite(values).any() else None


def _frame(what: str, below: Sequence[tuple[float, str]], beside: Sequence[tuple[float, str]]) -> list[str]:
    """The opening of a chart with texts at places (0..1) along both axes."""
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(what)}">']
    for share, text in beside:
        y = _down(share)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>')
    for share, text in below:
        parts.append(f'<text x="{_across(share):.1f}" y="{HEIGHT - 9}" text-anchor="middle">{text}</text>')
    return parts


def _across(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _down(share: float) -> float:
    return TOP + (1.0 - share) * (HEIGHT - TOP - BOTTOM)


def _bars(values: np.ndarray, shades: np.ndarray, times: Sequence[str]) -> str:
    """A rank histogram: within each rank a bar a lead."""
    count = values.shape[1]
    top = max(1.6 / count, 1.08 * float(np.nanmax(values)))
    below = [((rank + 0.5) / count, str(rank)) for rank in range(0, count, max(1, -(-count // 8)))]
    parts = _frame("rank histogram", below, [(0.0, "0"), (1.0 / count / top, f"1/{count}")])
    width = (WIDTH - LEFT - RIGHT) / count
    for n, (line, shade, time) in enumerate(zip(values, shades, times, strict=True)):
        for rank, share in enumerate(line):
            if np.isfinite(share):
                x, each = LEFT + width * (rank + 0.1), 0.8 * width / len(values)
                y = _down(min(share / top, 1.0))
                parts.append(
                    f'<rect class="forecast" style="opacity:{shade:.2f}" x="{x + n * each:.2f}" y="{y:.1f}" '
                    f'width="{each:.2f}" height="{_down(0.0) - y:.1f}">'
                    f"<title>{time}, rank {rank}: {share:.3f}</title></rect>"
                )
    level = _down(1.0 / count / top)
    parts.append(f'<line class="mark" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>')
    return "".join([*parts, "</svg>"])


def _diagram(values: np.ndarray, used: np.ndarray | None, shades: np.ndarray, times: Sequence[str]) -> str:
    """A reliability diagram: a line a lead, dots by how often a probability was given."""
    ends = [(share, f"{share:g}") for share in (0.0, 0.5, 1.0)]
    parts = _frame("reliability diagram", ends, ends)
    parts.append(
        f'<line class="mark" x1="{_across(0):.1f}" y1="{_down(0):.1f}" x2="{_across(1):.1f}" y2="{_down(1):.1f}"/>'
    )
    probability = np.linspace(0.0, 1.0, values.shape[1])
    for n, (line, shade, time) in enumerate(zip(values, shades, times, strict=True)):
        places = [(_across(p), _down(f), k) for k, (p, f) in enumerate(zip(probability, line, strict=True)) if f == f]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
        parts.append(
            f'<polyline class="forecast" style="opacity:{shade:.2f}" points="{path}"><title>{time}</title></polyline>'
        )
        for x, y, k in places:
            size = 2.0 if used is None else 1.2 + 6.0 * float(np.sqrt(used[n, k]))
            parts.append(
                f'<circle class="forecast" style="opacity:{shade:.2f}" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>'
            )
    return "".join([*parts, "</svg>"])
