"""Write the report of an evaluation: one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from data_pipelines.verification.evaluation_results import EvaluationResults
from data_pipelines.verification.score_rows import Row, headline_leads, lead_axis
from emul.display.palette import LINES, further_styles
from emul.display.text import lead_text, metric_title, number
from emul.report.budgets import budget_section
from emul.report.charts import line_chart
from emul.report.ensembles import ensemble_section
from emul.report.error_growth import growth_section
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
    legend,
    quiet,
    row_name,
    score_caption,
    significance_note,
    table,
)
from emul.report.spectra import spectra_section

FLAGS = "Bars at the foot: lead times at which the forecast differs significantly from the source of that colour."
LIMITS = (
    "Predictability is the error of an identical twin with slightly different initial conditions: the limit of every "
    "forecast. Saturation is the difference between two independent states of the same season."
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
        results.name,
        f"Scores by lead time and region. Headline region: {results.regions[0]}.",
        [section for section in sections if section.body],
        notes=context.notes,
        facts=context.facts,
        lead=link,
        styles=further_styles([name for name in names if name not in LINES]),
    )


def _score_card(results: EvaluationResults) -> Section:
    """RMSE at the usual lead times with the difference to each baseline."""
    title = "Score card"
    if "rmse" not in results.metrics:
        return Section("score-card", title, NOTHING)
    leads, initials = headline_leads(results.leads), _initials(results.sources)
    lines = [(row_name(row), _cells(results, row, leads, results.regions[0])) for row in results.headline]
    explained: list[object] = ["RMSE by lead time."]
    for place, (source, initial) in enumerate(initials.items()):
        before = " and " if place else " Below each, the difference in percent to "
        explained += [before, tag("b", initial), f" {source.replace('_', ' ')}"]
    explained += ["."] if initials else []
    key = colour_key(results.differences is not None) if initials else ""
    shown = table(["RMSE", *(lead_text(results.leads[i]) for i in leads)], lines)
    return Section("score-card", title, join(quiet(*explained), key, shown, significance_note(results.differences)))


def _initials(sources: Sequence[str]) -> dict[str, str]:
    """The shortest beginnings that distinguish the sources."""
    size = next(n for n in range(1, 99) if len({source[:n] for source in sources}) == len(sources))
    return {source: source[:size].capitalize() for source in sources}


def _cells(results: EvaluationResults, row: Row, leads: Sequence[int], region: str) -> list[Html]:
    """RMSE at each of the lead times, and a coloured line for each baseline."""
    values = results.values(row, "rmse", region)
    cells = {lead: [number(values[lead])] for lead in leads}
    for source, initial in _initials(results.sources).items():
        change = results.relative_difference(row, source, "rmse", region)
        significant = results.significance(row, source, "rmse", region)
        if change is not None:
            for lead in leads:
                cells[lead].append(difference_line(change[lead], significant[lead], initial))
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
    explained = quiet(LIMITS) if "saturation" in results.curves else ""
    flags = quiet(FLAGS) if results.differences is not None else ""
    return Section("lead-time", "By lead time", join(explained, flags, legend(results.curves), first, *folded))


def _chart(results: EvaluationResults, row: Row, metric: str) -> Html:
    """One chart with its caption; empty where there is nothing to draw."""
    score, unit = results.score(metric), lead_axis(results.leads)[1]
    lines = {name: row.curve(dataset, score, unit) for name, dataset in results.curves.items()}
    drawn = {name: line for name, line in lines.items() if line is not None}
    flags = {s: np.array([one is True for one in results.significance(row, s, metric)]) for s in results.sources}
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
    """RMSE and the difference to the first baseline in every region at one lead time."""
    regions, leads = results.regions, headline_leads(results.leads)
    lead = leads[len(leads) // 2]
    title = f"By region, {lead_text(results.leads[lead])} ahead"
    if len(regions) < 2 or "rmse" not in results.metrics:
        return Section("regions", title, NOTHING)
    source = results.sources[:1]
    first = results if not source else _with_one_baseline(results, source[0])
    lines = [(row_name(row), [_cells(first, row, [lead], region)[0] for region in regions]) for row in first.headline]
    against = quiet(f"Differences to {source[0]}.") if source else ""
    return Section("regions", title, join(against, table(["RMSE", *regions], lines)))


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
