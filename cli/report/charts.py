"""Line charts as SVG text: they take their colours from the page, so that one report serves dark and light."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from html import escape

import numpy as np

from emul.display.text import number
from emul.display.ticks import powers_of_ten, ticks

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 180, 46, 10, 10, 26


def line_chart(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    what: str,
    unit: str,
    mark: float | None = None,
    *,
    powers: bool = False,
    titles: Mapping[str, str] | None = None,
    bands: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    feet: Mapping[str, np.ndarray] | None = None,
) -> str:
    """An SVG of named lines (x, y), drawn with the CSS class of their name.

    what: told to screen readers. unit: of x, below the axis. mark: a value that is drawn as a level line. powers: y is
    the power of ten. titles: what a line is called, if not by its class. bands: (lower, upper) at the x of the line of
    that name. feet: where a bar of that class runs along the axis, True or False at the x of the first line.
    """
    drawn = {name: (x[np.isfinite(y)], y[np.isfinite(y)]) for name, (x, y) in lines.items() if np.isfinite(y).any()}
    if not drawn:
        return ""
    x_all, y_all = (np.concatenate([line[i] for line in drawn.values()]) for i in (0, 1))
    edges = [edge for band in (bands or {}).values() for edge in band]
    y_all = np.concatenate([y_all, *(edge[np.isfinite(edge)] for edge in edges)])
    low, high = (math.floor(y_all.min()), math.ceil(y_all.max() + 1e-9)) if powers else _range(y_all, mark)
    if "forecast" in drawn and len(drawn) > 1 and low >= 0.0 and not powers:  # a forecast that blows up leaves the page
        page = 3.0 * max(float(y.max()) for name, (_, y) in drawn.items() if name != "forecast")
        high = min(high, page) if page > low else high
    x_low, x_high = (float(x_all.min()), float(x_all.max())) if np.ptp(x_all) else (x_all[0] - 0.5, x_all[0] + 0.5)

    def across(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(what)}">']
    for y in powers_of_ten(low, high) if powers else ticks(low, high, 4):
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down(y):.1f}" y2="{down(y):.1f}"/>')
        parts.append(
            f'<text x="{LEFT - 5}" y="{down(y) + 3.5:.1f}" text-anchor="end">{_power(y) if powers else _tick(y)}</text>'
        )
    if mark is not None and low <= mark <= high:
        parts.append(
            f'<line class="mark" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down(mark):.1f}" y2="{down(mark):.1f}"/>'
        )
    for x in ticks(x_low, x_high, 5, unit):
        parts.append(f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 13}" text-anchor="middle">{_tick(x)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 2}" text-anchor="end">{escape(unit)}</text>')
    parts += [_band(n, lines[n][0], *edge, across, lambda y: down(max(y, low))) for n, edge in (bands or {}).items()]
    parts += _feet(feet or {}, next(iter(lines.values()))[0], across)
    for name, (x, y) in drawn.items():
        points = [(across(float(a)), down(min(float(b), high))) for a, b in zip(x, y, strict=True)]
        ends = (f"{10 ** float(end):.2g}" if powers else number(float(end)) for end in (y[0], y[-1]))
        told = f"<title>{escape((titles or {}).get(name, name))}: {' to '.join(ends)}</title>"
        if len(points) > 1:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            parts.append(f'<polyline class="{escape(name)}" points="{path}">{told}</polyline>')
        else:
            parts.append(
                f'<circle class="{escape(name)}" r="3.5" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}">'
                f"{told}</circle>"
            )
    return "".join([*parts, "</svg>"])


def _band(
    name: str,
    x: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    across: Callable[[float], float],
    down: Callable[[float], float],
) -> str:
    """The area between two lines."""
    there = np.isfinite(lower) & np.isfinite(upper)
    x, lower, upper = x[there], lower[there], upper[there]
    around = [*zip(x, upper, strict=True), *zip(x[::-1], lower[::-1], strict=True)]
    path = " ".join(f"{across(float(a)):.1f},{down(float(b)):.1f}" for a, b in around)
    return f'<polygon class="band {escape(name)}" points="{path}"/>'


def _feet(feet: Mapping[str, np.ndarray], x: np.ndarray, across: Callable[[float], float]) -> list[str]:
    """Bars along the axis where the flags are set, one above the other."""
    half = 0.5 * float(np.diff(x).min()) if len(x) > 1 else 0.5
    parts = []
    for number_, (name, flags) in enumerate(feet.items()):
        y = HEIGHT - BOTTOM - 3 - 4 * number_
        for start, end in _runs(np.asarray(flags, dtype=bool)):
            left, right = max(across(float(x[start]) - half), LEFT), min(across(float(x[end]) + half), WIDTH - RIGHT)
            parts.append(f'<line class="foot {escape(name)}" x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}"/>')
    return parts


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(start), int(end) - 1) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _range(values: np.ndarray, mark: float | None) -> tuple[float, float]:
    """The axis: from zero where nothing is negative and the values spread from it, else a little beyond the ends."""
    low, high = float(values.min()), float(values.max())
    if mark is not None:
        low, high = min(low, mark), max(high, mark)
    if low >= 0.0 and low < 0.6 * high and mark in (None, 0.0):
        low = 0.0
    room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return (low if low == 0.0 else low - room), high + room


def _power(exponent: float) -> str:
    return f'10<tspan dy="-4" font-size="8">{exponent:g}</tspan>'.replace(">-", ">\N{MINUS SIGN}")


def _tick(value: float) -> str:
    text = f"{value:g}" if 1e-3 <= abs(value) < 1e5 or not value else f"{value:.0e}"
    return text.replace("-", "\N{MINUS SIGN}")
