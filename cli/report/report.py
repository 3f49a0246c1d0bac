"""Write the report of an evaluation: one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.verification.evaluation_results import EvaluationResults
from data_pipelines.verification.score_rows import (
    FREE,
    Row,
    crossing,
    doubling_time,
    headline_leads,
    lead_axis,
    relative_spread,
    squared_errors,
)
from emul.display.palette import LINES, further_styles
from emul.display.text import DASH, lead_text, metric_title, number
from emul.report.budgets import budget_section
from emul.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Chart, line_chart, shaded_lines
from emul.report.html import NOTHING, Html, join, tag
from emul.report.page import (
    Section,
    charts,
    colour_key,
    definitions,
    details,
    difference_line,
    document,
    figure,
    lead_legend,
    legend,
    line_class,
    quiet,
    row_charts,
    row_name,
    score_caption,
    shades,
    significance_note,
    table,
)
from emul.report.spectra import spectra_section

if TYPE_CHECKING:
    import xarray as xr


FLAGS = "Bars below a chart mark lead times at which the forecast differs significantly from that baseline."
LIMITS = (
    "Predictability is the error of an identical twin with slightly different initial conditions: the limit of a "
    "forecast that knows the whole state, also what it does not predict, such as the heat that land stores. Saturation "
    "is the difference between two independent states of the same season."
)


@dataclass(frozen=True)
class ReportContext:
    """Hold what a report shows besides scores.

    facts: tiles at the top. provenance: the list at the end. notes: what a reader must know. maps: captions and PNG
    files. case: the page of one case, in the same folder.
    """

    facts: Mapping[str, str]
    provenance: Mapping[str, str]
    notes: Sequence[str] = ()
    maps: Sequence[tuple[str, Path]] = field(default_factory=list)
    case: Path | None = None


def write_report(path: Path, results: EvaluationResults, context: ReportContext) -> Path:
    """Write the report to `path`."""
    link = NOTHING
    if context.case is not None:
        link = tag("p", tag("a", "One case by lead time", href=context.case.name), class_="only-screen")
    sections = [
        _score_card(results),
        _curves(results),
        _regions(results),
        growth_section(results),
        ensemble_section(results),
        spectra_section(results),
        budget_section(results),
        Section("maps", "Maps", _maps(context.maps)),
        Section("provenance", "Provenance", _provenance(results, context.provenance)),
    ]
    names = dict.fromkeys([*results.curves, *results.further_budgets])
    return document(
        path,
        results.shown_name,
        f"Scores by lead time and region. Headline region: {results.regions[0]}.",
        [section for section in sections if section.body],
        notes=context.notes,
        facts=context.facts,
        lead=link,
        styles=further_styles([name for name in names if name not in LINES]),
    )


def _score_card(results: EvaluationResults) -> Section:
    """The leading metrics at the usual lead times with the difference to each baseline."""
    title = "Score card"
    if not results.shown_metrics:
        return Section("score-card", title, NOTHING)
    key = colour_key(results.differences is not None) if results.sources else ""
    tables = [_metric_table(results, metric) for metric in results.shown_metrics]
    note = significance_note([results], results.shown_metrics, results.regions[0])
    return Section("score-card", title, join(key, *tables, note))


def _metric_table(results: EvaluationResults, metric: str) -> Html:
    """One metric at the usual lead times, and what its lines are."""
    leads, initials = headline_leads(results.leads), _initials(results.sources)
    lines = [(row_name(row), _cells(results, row, leads, results.regions[0], metric)) for row in results.headline]
    explained: list[object] = [f"{metric_title(metric)} by lead time."]
    for place, (source, initial) in enumerate(initials.items()):
        before = " and " if place else " Below each, the difference in percent to "
        explained += [before, tag("b", initial), f" {source.replace('_', ' ')}"]
    explained += ["."] if initials else []
    return join(quiet(*explained), table([metric_title(metric), *(lead_text(results.leads[i]) for i in leads)], lines))


def _initials(sources: Sequence[str]) -> dict[str, str]:
    """The shortest beginnings that distinguish the sources."""
    size = next(n for n in range(1, 99) if len({source[:n] for source in sources}) == len(sources))
    return {source: source[:size].capitalize() for source in sources}


def _cells(results: EvaluationResults, row: Row, leads: Sequence[int], region: str, metric: str) -> list[Html]:
    """A metric at each of the lead times, and a coloured line for each baseline."""
    values = results.values(row, metric, region)
    cells = {lead: [number(values[lead])] for lead in leads}
    for source, initial in _initials(results.sources).items():
        change = results.relative_difference(row, source, metric, region)
        verdicts = results.verdicts(row, source, metric, region)
        if change is not None:
            for lead in leads:
                cells[lead].append(difference_line(change[lead], verdicts[lead], initial))
    return [join(*parts) for parts in cells.values()]


def _curves(results: EvaluationResults) -> Section:
    """The first metric of the headline by lead time, then every score of every variable, folded."""
    metrics = results.metrics
    first = charts(_chart(results, row, metrics[0]) for row in results.headline)
    folded = []
    for variable in dict.fromkeys(row.variable for row in results.rows):
        rows = [row for row in results.rows if row.variable == variable]
        every = charts(_chart(results, row, metric) for row in rows for metric in metrics)
        folded.append(details(f"{variable.replace('_', ' ')}: every score", every))
    score, unit = results.score(metrics[0]), lead_axis(results.leads)[1]
    drawn = [n for n, data in results.curves.items() if any(row.curve(data, score, unit) for row in results.headline)]
    explained = quiet(LIMITS) if "saturation" in drawn else ""
    flags = quiet(FLAGS) if results.differences is not None else ""
    return Section("lead-time", "By lead time", join(explained, flags, legend(drawn), first, *folded))


def _chart(results: EvaluationResults, row: Row, metric: str) -> Html:
    """One chart with its caption; empty where there is nothing to draw."""
    score, unit = results.score(metric), lead_axis(results.leads)[1]
    lines = {name: row.curve(dataset, score, unit) for name, dataset in results.curves.items()}
    drawn = {name: line for name, line in lines.items() if line is not None}
    flags = {s: np.array([one == "yes" for one in results.verdicts(row, s, metric)]) for s in results.sources}
    chart = line_chart(
        f"{metric} of {row.label} by lead time",
        drawn,
        unit,
        mark=0.0 if metric == "bias" else None,
        flags={source: values for source, values in flags.items() if values.any() and "forecast" in drawn},
    )
    caption, small = score_caption(row, metric, score.exponent)
    return figure(caption, chart, small)


def _regions(results: EvaluationResults) -> Section:
    """The first metric and the difference to the first baseline in every region at one lead time."""
    regions, leads = results.regions, headline_leads(results.leads)
    lead = leads[len(leads) // 2]
    title = f"By region, {lead_text(results.leads[lead])} ahead"
    if len(regions) < 2 or not results.shown_metrics:
        return Section("regions", title, NOTHING)
    metric = results.shown_metrics[0]
    source = results.sources[:1]
    first = results if not source else _with_one_baseline(results, source[0])
    lines = [
        (row_name(row), [_cells(first, row, [lead], region, metric)[0] for region in regions]) for row in first.headline
    ]
    against = quiet(f"Differences to {source[0]}.") if source else ""
    return Section("regions", title, join(against, table([metric_title(metric), *regions], lines)))


def _with_one_baseline(results: EvaluationResults, source: str) -> EvaluationResults:
    assert results.baselines is not None
    return replace(results, baselines=results.baselines.sel(source=[source]))


def _maps(maps: Sequence[tuple[str, Path]]) -> Html:
    shown = []
    for caption, path in maps:
        data = base64.b64encode(path.read_bytes()).decode()
        image = tag("img", alt=caption, src=f"data:image/png;base64,{data}")
        kind = "two" if path.stem.endswith("_errors") else "three"
        shown.append(tag("figure", tag("figcaption", caption), image, class_=kind))
    return tag("div", *shown, class_="maps") if shown else NOTHING


def _provenance(results: EvaluationResults, provenance: Mapping[str, str]) -> Html:
    described = (part.partition(" = ") for part in results.scores.attrs["definitions"].split("; "))
    metrics = {metric_title(name): text for name, _, text in described}
    judged = results.differences
    how = {} if judged is None else {"significance": judged.attrs["significance"]}
    return definitions({**provenance, **how, **metrics})


BAND = (10, 50, 90)  # percentiles over initial times
EXPLAINED = (
    "RMSE of each initial time: the median, and the range of the central 80 %. A straight line on the logarithmic axis "
    "is exponential growth; it ends where the errors approach those of the climatology."
)


def growth_section(results: EvaluationResults) -> Section:
    """The section on error growth, empty for fewer than three lead times."""
    title, by_init = "Error growth", results.by_init
    if by_init is None or "squared_error" not in by_init["statistic"].values or by_init.sizes["lead_time"] < 3:
        return Section("growth", title, NOTHING)
    region = str(by_init["region"].values[0])
    x, unit = lead_axis(by_init["lead_time"].values)
    figures, lines = [], []
    for row in results.headline:
        squares = squared_errors(by_init, row, region)
        if squares is None:
            continue
        rmse = results.score("rmse", region) if "rmse" in results.metrics else None
        others = {
            name: curve
            for name, dataset in results.curves.items()
            if rmse and name != "forecast" and (curve := row.curve(dataset, rmse, unit)) is not None
        }
        errors = np.sqrt(squares) * row.factor
        figures.append(_growth_chart(row, x, errors, others, unit))
        mean = np.sqrt(np.nanmean(squares, axis=0)) * row.factor
        lines.append((row.label, [*_times(x, mean, others.get("climatology"), unit), _spread(errors[:, -1])]))
    if not figures:
        return Section("growth", title, NOTHING)
    below = (
        f"Doubling: from the first lead time to {100 * FREE:.0f} % of the climatology's error. Spread: standard "
        "deviation of the RMSE over initial times divided by its mean, at the last lead time."
    )
    head = ["", "doubling", "reaches the climatology", "spread over initial times"]
    return Section("growth", title, join(quiet(EXPLAINED), charts(figures), quiet(below), table(head, lines)))


def _growth_chart(
    row: Row, x: np.ndarray, errors: np.ndarray, others: dict[str, tuple[np.ndarray, np.ndarray]], unit: str
) -> Html:
    lower, median, upper = np.nanpercentile(errors, BAND, axis=0)
    lines = {"forecast": (x, median), **{name: line for name, line in others.items() if name != "persistence"}}
    bands = {"forecast": (lower, upper)}
    chart = line_chart(f"growth of the RMSE of {row.label}", lines, unit, log_y=True, bands=bands)
    caption, small = score_caption(row, "rmse", 1)
    return figure(caption, chart, small)


def _times(
    x: np.ndarray, mean: np.ndarray, climatology: tuple[np.ndarray, np.ndarray] | None, unit: str
) -> tuple[str, str]:
    """Doubling time, and the lead time at which the climatology's error is reached."""
    saturation = float(np.nanmax(mean) if climatology is None else np.nanmean(climatology[1]))
    doubling = doubling_time(x, mean, saturation)
    doubles = DASH if np.isnan(doubling) else f"{number(doubling)} {unit}"
    if climatology is None:
        return doubles, DASH
    lead = crossing(x, mean, np.interp(x, *climatology))
    if np.isinf(lead):
        return doubles, f"> {x[-1]:g} {unit}" if lead > 0 else f"< {x[0]:g} {unit}"
    return doubles, f"{number(lead)} {unit}"


def _spread(errors: np.ndarray) -> str:
    spread = relative_spread(errors)
    return DASH if np.isnan(spread) else f"{100 * spread:.0f} %"


LEADS = 3
RANKS = (
    "How often the truth has each rank among the members, from below all (left) to above all (right). Flat (dashed): "
    "the truth is statistically like a member. U-shaped: too little spread; dome-shaped: too much; sloped: biased."
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
    chosen = histograms.isel(lead_time=leads, region=0)
    body = []
    ranks = row_charts(rows, lambda row: _rank_histogram(_values(chosen, row, "rank_histogram"), times))
    if ranks:
        body += [tag("h3", "Rank histograms"), quiet(RANKS), ranks]
    described = dict(part.split(" = ", 1) for part in str(histograms.attrs["definitions"]).split("; ") if " = " in part)
    kinds = [name for name in sorted(described) if name != "sharpness" and _has_probabilities(histograms, name)]
    diagrams = [row_charts(rows, lambda row, kind=kind: _reliability(chosen, row, kind, times)) for kind in kinds]  # type: ignore[misc]
    if any(diagrams):
        text = "; ".join(f"{name}: {described[name]}" for name in kinds)
        body += [tag("h3", "Reliability"), quiet(f"{RELIABILITY} {text}"), *diagrams]
    legend = lead_legend(shades(len(times)), times)
    return Section("ensemble", "Ensemble", join(legend, *body) if body else NOTHING)


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


def _rank_histogram(values: np.ndarray | None, times: Sequence[str]) -> Html:
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


def _reliability(histograms: xr.Dataset, row: Row, metric: str, times: Sequence[str]) -> Html:
    """A line for each lead time, dots by how often a probability was forecast."""
    values, used = _values(histograms, row, metric), _values(histograms, row, "sharpness")
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
