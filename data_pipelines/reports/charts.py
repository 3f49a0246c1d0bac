"""Draw charts as SVG, which takes its colours from the page: one report serves dark and light."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_pipelines.display.text import MINUS, number, powers_of_ten, tick_text, ticks
from data_pipelines.reports.page import NOTHING, Html, join, line_class, shades, tag

WIDTH, HEIGHT = 320, 180
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26  # margins
Range = tuple[float, float]
Line = tuple[np.ndarray, np.ndarray]


class Chart:
    """Collect the elements of a chart with linear or logarithmic axes.

    label: read by screen readers. x, y: ranges of the axes. top: margin above, for ticks there.
    """

    def __init__(
        self, label: str, x: Range, y: Range, *, log_x: bool = False, log_y: bool = False, top: int = TOP
    ) -> None:
        self.label, self.x_range, self.y_range, self.log_x, self.log_y, self.top = label, x, y, log_x, log_y, top
        self.elements: list[Html] = []

    def x(self, value: float) -> float:
        """Horizontal place of a value."""
        return LEFT + _share(value, self.x_range, self.log_x) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Vertical place of a value; beyond the axis, that of its end."""
        value = min(max(value, self.y_range[0]), self.y_range[1])
        return self.top + (1.0 - _share(value, self.y_range, self.log_y)) * (HEIGHT - self.top - BOTTOM)

    def add(self, name: str, /, *children: object, **attributes: object) -> None:
        """Add an SVG element."""
        self.elements.append(tag(name, *children, **attributes))

    def text(self, x: float, y: float, text: object, anchor: str | None = "middle") -> None:
        """Add a text."""
        self.add("text", text, x=x, y=y, text_anchor=anchor)

    def level_line(self, value: float, kind: str = "rule") -> None:
        """Add a level line across the chart; kind: `rule` or `mark`."""
        self.add("line", class_=kind, x1=LEFT, x2=WIDTH - RIGHT, y1=self.y(value), y2=self.y(value))

    def y_ticks(self, values: Iterable[float], texts: Mapping[float, str] | None = None) -> None:
        """Add rules with their values; texts: where these are written otherwise."""
        for value in values:
            self.level_line(value)
            text = power_text(value) if self.log_y else (texts or {}).get(value, tick_text(value))
            self.text(LEFT - 5, self.y(value) + 3.5, text, "end")

    def x_ticks(self, values: Iterable[float], unit: str = "") -> None:
        """Add values below the chart, and their unit."""
        for value in values:
            self.text(self.x(value), HEIGHT - BOTTOM + 13, tick_text(value))
        if unit:
            self.text(WIDTH - RIGHT, HEIGHT - 2, unit, "end")

    def line(self, name: str, x: np.ndarray, y: np.ndarray, title: str = "", opacity: float | None = None) -> None:
        """Add a line in the style of `name`, or a dot for a single point. title: shown by a pointer over it."""
        visible = np.isfinite(y) & ((y >= self.y_range[0]) if self.log_y else True)
        points = [(self.x(float(a)), self.y(float(b))) for a, b in zip(x[visible], y[visible], strict=True)]
        kind, note = line_class(name), tag("title", title or name)
        if len(points) == 1:
            self.dot(name, *points[0], 3.5, title or name, opacity)
        else:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            self.add("polyline", note, class_=kind, points=path, opacity=opacity)

    def dot(self, name: str, x: float, y: float, radius: float, title: str = "", opacity: float | None = None) -> None:
        """Add a dot at a place of the drawing."""
        note = (tag("title", title),) if title else ()
        self.add("circle", *note, class_=f"fill {line_class(name)}", r=radius, cx=x, cy=y, opacity=opacity)

    def band(self, name: str, x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
        """Add the area between two lines."""
        visible = np.isfinite(lower) & np.isfinite(upper)
        x, lower, upper = x[visible], lower[visible], upper[visible]
        around = [*zip(x, upper, strict=True), *zip(x[::-1], lower[::-1], strict=True)]
        path = " ".join(f"{self.x(float(a)):.1f},{self.y(float(b)):.1f}" for a, b in around)
        self.add("polygon", class_=f"band fill {line_class(name)}", points=path)

    def flags(self, flags: Mapping[str, np.ndarray], x: np.ndarray) -> None:
        """Add bars along the axis where the flags of each name are True at `x`, one above the other."""
        half = 0.5 * float(np.diff(x).min()) if len(x) > 1 else 0.5
        for place, (name, values) in enumerate(flags.items()):
            y = HEIGHT - BOTTOM - 3 - 4 * place
            edges = np.flatnonzero(np.diff(np.concatenate([[False], values, [False]]).astype(int)))
            for start, end in zip(edges[::2], edges[1::2] - 1, strict=True):
                left = max(self.x(float(x[start]) - half), LEFT)
                right = min(self.x(float(x[end]) + half), WIDTH - RIGHT)
                self.add("line", class_=f"foot {line_class(name)}", x1=float(left), x2=float(right), y1=y, y2=y)

    def svg(self) -> Html:
        """The chart."""
        return tag("svg", *self.elements, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=self.label)


def _share(value: float, ends: Range, logarithmic: bool) -> float:
    if logarithmic:
        value, ends = math.log10(value), (math.log10(ends[0]), math.log10(ends[1]))
    return (value - ends[0]) / (ends[1] - ends[0])


def power_text(value: float) -> Html:
    """A power of ten with its exponent raised."""
    exponent = f"{math.log10(value):.0f}".replace("-", MINUS)
    return join("10", tag("tspan", exponent, dy="-4", font_size="8"))


def line_chart(
    label: str,
    lines: Mapping[str, Line],
    unit: str,
    *,
    mark: float | None = None,
    log_y: bool = False,
    bands: Mapping[str, Line] | None = None,
    flags: Mapping[str, np.ndarray] | None = None,
) -> Html:
    """A chart of named lines (x, y); empty where no value is finite.

    unit: of x. mark: a value drawn as a level line. bands: (lower, upper) at the x of the line of that name. flags: by
    name, where a bar runs along the axis, at the x of the first line. A line `forecast` that grows beyond three times
    the others is cut off.
    """
    if log_y:
        lines = {name: (x, np.where(y > 0, y, np.nan)) for name, (x, y) in lines.items()}
    finite = {name: (x[np.isfinite(y)], y[np.isfinite(y)]) for name, (x, y) in lines.items() if np.isfinite(y).any()}
    if not finite:
        return NOTHING
    bands = bands or {}
    edges = np.concatenate([edge for band in bands.values() for edge in band] or [np.empty(0)])
    edges = edges[np.isfinite(edges) & (edges > 0)] if log_y else edges[np.isfinite(edges)]
    values = np.concatenate([edges, *(y for _, y in finite.values())])
    ends = np.concatenate([x for x, _ in finite.values()])
    x_range = (float(ends.min()), float(ends.max())) if np.ptp(ends) else (ends[0] - 0.5, ends[0] + 0.5)
    low, high = _whole_powers(values) if log_y else _padded(values, mark)
    if "forecast" in finite and len(finite) > 1 and low >= 0.0 and not log_y:
        limit = 3.0 * max(float(y.max()) for name, (_, y) in finite.items() if name != "forecast")
        high = min(high, limit) if limit > low else high
    chart = Chart(label, x_range, (low, high), log_y=log_y)
    chart.y_ticks(powers_of_ten(low, high) if log_y else ticks(low, high, 4))
    if mark is not None and low <= mark <= high:
        chart.level_line(mark, "mark")
    chart.x_ticks(ticks(x_range[0], x_range[1], 5, unit), unit)
    for name, band in bands.items():
        chart.band(name, lines[name][0], *band)
    chart.flags(flags or {}, next(iter(lines.values()))[0])
    for name, (x, y) in finite.items():
        chart.line(name, x, y, f"{name}: {number(float(y[0]))} to {number(float(y[-1]))}")
    return chart.svg()


def _whole_powers(values: np.ndarray) -> Range:
    low, high = math.floor(math.log10(values.min())), math.ceil(math.log10(values.max()) + 1e-9)
    return 10.0**low, 10.0**high


def _padded(values: np.ndarray, mark: float | None) -> Range:
    """From zero where nothing is negative and the values spread from it, else a little beyond the ends."""
    low, high = float(values.min()), float(values.max())
    if mark is not None:
        low, high = min(low, mark), max(high, mark)
    if low >= 0.0 and low < 0.6 * high and mark in (None, 0.0):
        low = 0.0
    room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return (low if low == 0.0 else low - room), high + room


def shaded_lines(
    chart: Chart, x: np.ndarray, lines: Iterable[np.ndarray], shades: Sequence[float], titles: Sequence[str]
) -> None:
    """Add a line of the forecast for each lead time, the longer the stronger; lines: (lead, x)."""
    for line, shade, title in zip(lines, shades, titles, strict=True):
        chart.line("forecast", x, line, title, shade)


def rank_histogram(values: np.ndarray | None, times: Sequence[str]) -> Html:
    """For each rank a bar for each lead time."""
    if values is None:
        return NOTHING
    leads, count = values.shape
    even = 1.0 / count
    chart = Chart("rank histogram", (0.0, count), (0.0, max(1.6 * even, 1.08 * float(np.nanmax(values)))))
    chart.y_ticks([0.0, even], {0.0: "0", even: f"1/{count}"})
    for rank in range(0, count, max(1, -(-count // 8))):
        chart.text(chart.x(rank + 0.5), HEIGHT - BOTTOM + 13, rank)
    width = 0.8 * (WIDTH - LEFT - RIGHT) / count / leads
    for (lead, rank), share in np.ndenumerate(values):
        if np.isfinite(share):
            y = chart.y(float(share))
            title = tag("title", f"{times[lead]}, rank {rank}: {share:.3f}")
            place = {"x": chart.x(rank + 0.1) + lead * width, "y": y, "width": width, "height": chart.y(0.0) - y}
            kind = f"fill {line_class('forecast')}"
            chart.add("rect", title, class_=kind, opacity=shades(leads)[lead], **place)
    chart.level_line(even, "mark")
    return chart.svg()


def spread_diagram(values: np.ndarray | None, times: Sequence[str]) -> Html:
    """A line over the bins of spread for each lead time, with dots, as a bin may have empty neighbours."""
    if values is None:
        return NOTHING
    bins = values.shape[1]
    chart = Chart("spread over skill by spread", (0.0, bins), (0.0, max(2.0, 1.05 * float(np.nanmax(values)))))
    chart.y_ticks([0.0, 1.0])
    chart.level_line(1.0, "mark")
    for place in range(bins):
        chart.text(chart.x(place + 0.5), HEIGHT - BOTTOM + 13, place + 1)
    opacity = shades(len(times))
    shaded_lines(chart, np.arange(bins) + 0.5, values, opacity, times)
    for (lead, place), ratio in np.ndenumerate(values):
        if np.isfinite(ratio):
            chart.dot("forecast", chart.x(place + 0.5), chart.y(float(ratio)), 2.0, opacity=opacity[lead])
    return chart.svg()


def reliability_diagram(values: np.ndarray | None, used: np.ndarray | None, times: Sequence[str]) -> Html:
    """A line for each lead time of observed frequency by probability, dots by how often that was forecast.

    values, used: (lead, probability).
    """
    if values is None:
        return NOTHING
    chart, ends = Chart("reliability diagram", (0.0, 1.0), (0.0, 1.0)), (0.0, 0.5, 1.0)
    chart.y_ticks(ends)
    chart.x_ticks(ends)
    chart.add("line", class_="mark", x1=chart.x(0), y1=chart.y(0), x2=chart.x(1), y2=chart.y(1))
    probability, opacity = np.linspace(0.0, 1.0, values.shape[1]), shades(len(times))
    shaded_lines(chart, probability, values, opacity, times)
    for (lead, k), frequency in np.ndenumerate(values):
        if np.isfinite(frequency):
            radius = 2.0 if used is None else 1.2 + 6.0 * float(np.sqrt(used[lead, k]))
            place = chart.x(float(probability[k])), chart.y(float(frequency))
            chart.dot("forecast", *place, radius, opacity=opacity[lead])
    return chart.svg()
