"""Write the report of an evaluation: one HTML file that needs no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.display.palette import LINES, further_styles
from data_pipelines.display.text import DASH, lead_text, metric_title, number
from data_pipelines.inspection.predictability import experiment_summary
from data_pipelines.reports.charts import line_chart
from data_pipelines.reports.climate import climate_section
from data_pipelines.reports.page import (
    NOTHING,
    Html,
    Section,
    charts,
    colour_key,
    definitions,
    details,
    difference_line,
    document,
    embedded,
    figure,
    join,
    legend,
    quiet,
    row_name,
    score_caption,
    significance_note,
    table,
    tag,
)
from data_pipelines.reports.sections import budget_section, ensemble_section, spectra_section
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

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.reports.case import CaseView
    from data_pipelines.verification.score_files import EvaluationResults


PROVENANCE = (
    "forecast", "truth", "climatology", "inits_used", "inits_skipped", "pairs", "grid", "weights", "averaging",
    "points_left_out",
)  # fmt: skip
FLAGS = "Bars below a chart mark lead times at which the forecast differs significantly from that baseline."
LIMITS = (
    "Predictability is the error of an identical twin with slightly different initial conditions: the limit of a "
    "forecast that knows what the twin knows, which is told below. Saturation is the difference between two "
    "independent states of the same season."
)


@dataclass(frozen=True)
class ReportContext:
    """Hold what a report shows besides scores.

    facts: tiles at the top. provenance: the list at the end. notes: what a reader must know. maps: captions and PNG
    files. case: one case, which is a part of the report. case_page: its own page in the same folder, where there is
    one.
    """

    facts: Mapping[str, str]
    provenance: Mapping[str, str]
    notes: Sequence[str] = ()
    maps: Sequence[tuple[str, Path]] = field(default_factory=list)
    case: CaseView | None = None
    case_page: Path | None = None


def write_report(path: Path, results: EvaluationResults, context: ReportContext) -> Path:
    """Write the report to `path`."""
    case = context.case
    sections = [
        _score_card(results),
        _curves(results),
        _regions(results),
        growth_section(results),
        climate_section(results),
        ensemble_section(results),
        spectra_section(results),
        budget_section(results),
        Section("maps", "Maps", _maps(context.maps)),
        Section("case", "One case", _case(context)),
        Section("citation", "How to cite", quiet(results.scores.attrs.get("citation", ""))),
        Section("provenance", "Provenance", _provenance(results, context.provenance)),
    ]
    names = dict.fromkeys([*results.curves, *results.further_budgets])
    attrs, failed = results.scores.attrs, results.shown_name.removeprefix(results.name)
    described = (join(attrs[key], tag("br")) for key in ("author", "description") if key in attrs)
    return document(
        path,
        f"{attrs['title']}{failed}" if "title" in attrs else results.shown_name,
        join(*described, f"Scores by lead time and region. Headline region: {results.regions[0]}."),
        [section for section in sections if section.body],
        notes=context.notes,
        facts=context.facts,
        styles=further_styles([name for name in names if name not in LINES]),
        script=case.script(keys=False) if case is not None else "",
        rules=case.rules if case is not None else "",
    )


def provenance_of(scores: xr.Dataset, limits: Mapping[str, xr.Dataset] | None = None) -> dict[str, str]:
    """What is needed to reproduce scores, or to compare others with them, as far as their attributes tell.

    limits: curves of `inspection.predictability.reference_curves`.
    """
    attrs = scores.attrs
    listed = {name.replace("_", " "): str(attrs[name]) for name in PROVENANCE if name in attrs}
    if limits and "saturation" in limits:
        twin = limits["predictability"].attrs
        listed["predictability"] = (
            f"RMSE of identical twins, {experiment_summary(twin)}: the limit of a forecast that knows as much. "
            f"Saturation: \N{SQUARE ROOT}2 x the standard deviation of the stored data about their climatology. Truth: "
            f"{twin['truth']}"
        )
    if "nan_share" in attrs:
        listed["missing values"] = f"{100 * attrs['nan_share']:.3g} % of all points"
    for name in ("metrics_left_out", "regions_left_out"):
        if name in attrs:
            listed[name.replace("_", " ")] = str(attrs[name])
    if "created" in attrs:
        listed["made"] = f"{attrs['created']}, revision {attrs['revision']}"
    return listed | ({"versions": str(attrs["versions"])} if "versions" in attrs else {})


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
    return [join(*pieces) for pieces in cells.values()]


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
    flags = {s: np.array([verdict == "yes" for verdict in results.verdicts(row, s, metric)]) for s in results.sources}
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
    figures = []
    for caption, path in maps:
        kind = "two" if path.stem.endswith(("_errors", "_plumes")) else "three"
        figures.append(tag("figure", tag("figcaption", caption), embedded(path, caption), class_=kind, tabindex=0))
    return tag("div", *figures, class_="maps") if figures else NOTHING


def _case(context: ReportContext) -> Html:
    """Maps of one case by lead time, and a link to its own page."""
    if context.case is None and context.case_page is None:
        return NOTHING
    link = NOTHING
    if context.case_page is not None:
        link = tag("p", tag("a", "One case on a page of its own", href=context.case_page.name), class_="only-screen")
    if context.case is None:
        return link
    sections = (join(tag("h3", title), body) for title, body in context.case.sections)
    return join(quiet(context.case.introduction), link, context.case.controls, *sections)


def _provenance(results: EvaluationResults, provenance: Mapping[str, str]) -> Html:
    described = (entry.partition(" = ") for entry in results.scores.attrs["definitions"].split("; "))
    metrics = {metric_title(name): text for name, _, text in described}
    judged = results.differences
    methods = {} if judged is None else {"significance": judged.attrs["significance"]}
    if results.spectra is not None:
        methods["effective resolution"] = str(results.spectra.attrs["effective_resolution"])
    return definitions({**provenance, **methods, **metrics})


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
