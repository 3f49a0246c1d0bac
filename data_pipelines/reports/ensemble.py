"""The section on ensembles of a report: rank histograms, PIT histograms and reliability diagrams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.display.text import lead_text
from data_pipelines.reports.charts import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Chart, shaded_lines
from data_pipelines.reports.page import (
    NOTHING,
    Html,
    Section,
    details,
    join,
    lead_legend,
    line_class,
    quiet,
    row_charts,
    shades,
    tag,
)
from data_pipelines.verification.score_rows import Row, headline_leads

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.verification.score_files import EvaluationResults

LEADS = 3
HISTOGRAMS = {
    "rank_histogram": (
        "Rank histograms",
        "How often the truth has each rank among the members, from below all (left) to above all (right). Flat "
        "(dashed): the truth is statistically like a member. U-shaped: too little spread; dome-shaped: too much; "
        "sloped: biased.",
    ),
    "pit_histogram": (
        "PIT histograms",
        "How often the truth lies in each tenth (or other bin) of the normal distribution with the mean and spread of "
        "the members. To be read as the rank histogram.",
    ),
}
BY_SPREAD = (
    "Spread over skill where the spread is small (left) and where it is large (right), in bins of spread over the "
    "climatology's standard deviation. On the dashed line everywhere: the spread says how large the error will be."
)
RELIABILITY = (
    "Observed frequency of an event (vertical) for each forecast probability (horizontal); on the diagonal the "
    "probabilities are reliable. The size of a dot shows how often the probability was forecast."
)


def ensemble_section(results: EvaluationResults) -> Section:
    """The section on ensembles, empty where nothing was scored that needs members."""
    histograms, rows = results.histograms, results.headline
    if histograms is None:
        return Section("ensemble", "Ensemble", NOTHING)
    leads = headline_leads(histograms["lead_time"].values, most=LEADS)
    times = [lead_text(histograms["lead_time"].values[i]) for i in leads]
    by_lead = histograms.isel(lead_time=leads)
    chosen, body = by_lead.isel(region=0), list[Html]()
    for name, (heading, explained) in HISTOGRAMS.items():
        drawn = _histograms(chosen, rows, name, times)
        if drawn:
            elsewhere = [
                details(f"{heading}, {region}", shown)
                for region in histograms["region"].values[1:]
                if (shown := _histograms(by_lead.sel(region=region), rows, name, times))
            ]
            body += [tag("h3", heading), quiet(explained), drawn, *elsewhere]
    by_spread = row_charts(rows, lambda row: spread_diagram(_values(chosen, row, "spread_skill_by_spread"), times))
    if by_spread:
        body += [tag("h3", "Spread over skill by spread"), quiet(BY_SPREAD), by_spread]
    described = dict(part.split(" = ", 1) for part in str(histograms.attrs["definitions"]).split("; ") if " = " in part)
    kinds = [name for name in sorted(described) if name != "sharpness" and _has_probabilities(histograms, name)]
    diagrams = [row_charts(rows, lambda row, kind=kind: _reliability(chosen, row, kind, times)) for kind in kinds]  # type: ignore[misc]
    if any(diagrams):
        text = "; ".join(f"{name}: {described[name]}" for name in kinds)
        body += [tag("h3", "Reliability"), quiet(f"{RELIABILITY} {text}"), *diagrams]
    legend = lead_legend(shades(len(times)), times)
    return Section("ensemble", "Ensemble", join(legend, *body) if body else NOTHING)


def _histograms(histograms: xr.Dataset, rows: Sequence[Row], name: str, times: Sequence[str]) -> Html:
    """A histogram for each row; empty where none was computed."""
    return row_charts(rows, lambda row: rank_histogram(_values(histograms, row, name), times))


def _has_probabilities(histograms: xr.Dataset, metric: str) -> bool:
    """True for a metric by forecast probability; a variable of the Dataset is `<variable>_<metric>`."""
    return any(
        str(name).endswith(f"_{metric}") and "probability" in field.dims for name, field in histograms.data_vars.items()
    )


def _values(histograms: xr.Dataset, row: Row, metric: str) -> np.ndarray | None:
    """(lead, rank or probability) of a row; None where there are no values."""
    if f"{row.variable}_{metric}" not in histograms:
        return None
    values = row.field(histograms, f"_{metric}").transpose("lead_time", ...).values
    return values if np.isfinite(values).any() else None


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
    for number in range(bins):
        chart.text(chart.x(number + 0.5), HEIGHT - BOTTOM + 13, number + 1)
    opacity = shades(len(times))
    shaded_lines(chart, np.arange(bins) + 0.5, values, opacity, times)
    for (lead, number), ratio in np.ndenumerate(values):
        if np.isfinite(ratio):
            chart.dot("forecast", chart.x(number + 0.5), chart.y(float(ratio)), 2.0, opacity=opacity[lead])
    return chart.svg()


def _reliability(histograms: xr.Dataset, row: Row, metric: str, times: Sequence[str]) -> Html:
    """The reliability diagram of a row."""
    values, used = (_values(histograms, row, name) for name in (metric, "sharpness"))
    return reliability_diagram(values, used, times)


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
