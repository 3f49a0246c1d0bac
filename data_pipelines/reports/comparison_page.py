"""Write the page of a comparison: a table of runs, a score card each, their curves and spectra together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.display.palette import GREY, LINES, run_styles
from data_pipelines.display.text import lead_text, metric_title, number, percent
from data_pipelines.files.identity import revision
from data_pipelines.forecasts.manifest import now
from data_pipelines.reports.charts import line_chart
from data_pipelines.reports.page import (
    NOTHING,
    Html,
    Section,
    charts,
    colour_class,
    colour_key,
    definitions,
    details,
    difference_line,
    document,
    figure,
    join,
    legend,
    quiet,
    row_charts,
    row_name,
    score_caption,
    significance_note,
    table,
    tag,
    with_small,
)
from data_pipelines.reports.sections import RESOLUTION, has_spectrum, power_chart, resolution_cell
from data_pipelines.verification.score_files import EvaluationResults, joined_runs
from data_pipelines.verification.score_rows import Row, Score, headline_leads, headline_rows, lead_axis, score_rows

if TYPE_CHECKING:
    import xarray as xr

    from emulators.verification.comparison import Comparison

TABLES = 5  # lead times of which the table is shown
SHARED = ("truth", "climatology", "grid", "weights", "averaging", "points_left_out", "definitions")  # attributes


def write_comparison_page(
    path: Path, comparison: Comparison, runs: Mapping[str, EvaluationResults], score: Score
) -> Path:
    """Write the page; runs: of `compared_evaluations`; score: what tables and curves show."""
    headline = headline_rows(score_rows(comparison.reference))
    names, leads = list(runs), comparison.reference["lead_time"].values
    sections = [
        _tables(comparison, runs, score, headline),
        _cards(comparison, runs, score),
        _curves(comparison, runs, score, headline),
        _spectra(comparison, headline),
        _provenance(comparison),
    ]
    facts = {
        "forecasts": str(len(names)),
        "initial times shared": str(comparison.inits),
        "differences to": comparison.baseline,
        "longest lead": lead_text(leads[-1]),
        "region": score.region,
        "grid": str(next(iter(runs.values())).scores.attrs["grid"]).split(" (")[0].replace("_", " "),
    }
    return document(
        path,
        " · ".join(names)[:80],
        "The same truth, grid and initial times.",
        [section for section in sections if section.body],
        heading=", ".join(names) if len(names) < 5 else f"{len(names)} forecasts",
        notes=comparison.notes,
        facts=facts,
        styles=run_styles([name for name in names if name not in LINES]),
    )


def _tables(
    comparison: Comparison, runs: Mapping[str, EvaluationResults], score: Score, headline: list[Row]
) -> Section:
    """A table for each lead time: a line for each run, the best on top; a column for each headline row."""
    times = comparison.reference["lead_time"].values
    leads = headline_leads(times, most=TABLES)
    middle, tables = leads[len(leads) // 2], []
    for lead in leads:
        content = _table(runs, comparison.baseline, score, headline, lead)
        tables.append(details(f"{lead_text(times[lead])} ahead", content, is_open=lead == middle))
    explained = (
        f"{metric_title(score.metric)}, below it the difference to {comparison.baseline} in percent; a star marks the "
        "best of a column. The runs are ordered by their mean difference."
    )
    key, note = (
        colour_key(comparison.judged is not None),
        significance_note(runs.values(), [score.metric], score.region),
    )
    return Section("table", "Table", join(quiet(explained), key, *tables, note))


def _table(runs: Mapping[str, EvaluationResults], baseline: str, score: Score, headline: list[Row], lead: int) -> Html:
    """Scores at one lead time with their differences to the baseline."""
    metric, region = score.metric, score.region
    values = {name: [run.values(row, metric, region)[lead] for row in headline] for name, run in runs.items()}
    changes = {}
    for name, run in runs.items():
        by_row = [run.relative_difference(row, baseline, metric, region) for row in headline]
        changes[name] = [np.nan if change is None else change[lead] for change in by_row]
    means = {name: np.nanmean(line) if np.isfinite(line).any() else np.inf for name, line in changes.items()}
    means |= {baseline: 0.0} if baseline in runs else {}
    perfect = next(iter(runs.values())).perfect(metric)
    best = []
    for column, row in zip(np.array(list(values.values())).T, headline, strict=True):
        loss = column if np.isnan(perfect) else np.abs(column - perfect * row.scale(score.exponent))
        best.append(list(runs)[int(np.nanargmin(loss))] if np.isfinite(loss).any() else None)
    lines = []
    for name in sorted(runs, key=lambda name: means[name]):
        cells = []
        for row, value, change, winner in zip(headline, values[name], changes[name], best, strict=True):
            verdict = runs[name].verdicts(row, baseline, metric, region)[lead]
            cell = tag("span", number(value), class_="best") if winner == name else number(value)
            cells.append(join(cell, difference_line(change, verdict)))
        is_baseline = name == baseline
        overall = "" if is_baseline else percent(float(means[name]))
        shown_name = runs[name].shown_name
        lines.append((with_small(shown_name, "the baseline") if is_baseline else shown_name, [*cells, overall]))
    return table(["", *map(row_name, headline), with_small("mean", "%")], lines)


def _cards(comparison: Comparison, runs: Mapping[str, EvaluationResults], score: Score) -> Section:
    """A score card for each run: a line for each variable and level, a column for each lead time."""
    times = comparison.reference["lead_time"].values
    leads, cards, where = headline_leads(times, most=7), [], (comparison.baseline, score.metric, score.region)
    for run in runs.values():
        lines = []
        for row in score_rows(comparison.reference) if run.sources else ():
            change, verdicts = run.relative_difference(row, *where), run.verdicts(row, *where)
            if change is not None and np.isfinite(change[leads]).any():
                texts = [percent(change[i]).removesuffix(" %") for i in leads]
                kinds = [colour_class(change[i], verdicts[i]) for i in leads]
                cells = [tag("td", text, class_=kind) for text, kind in zip(texts, kinds, strict=True)]
                lines.append((row.label, cells))
        if run.sources:
            score_table = table(["%", *(lead_text(times[i]) for i in leads)], lines)
            cards.append(tag("div", tag("h3", run.shown_name), score_table))
    explained = f"Differences of {metric_title(score.metric)} to {comparison.baseline} in percent, {score.region}."
    body = join(quiet(explained), colour_key(comparison.judged is not None), tag("div", *cards, class_="cards"))
    return Section("cards", "Score cards", body if cards else NOTHING)


def _curves(
    comparison: Comparison, runs: Mapping[str, EvaluationResults], score: Score, headline: list[Row]
) -> Section:
    """Every run in one chart for each headline row."""
    unit = lead_axis(comparison.reference["lead_time"].values)[1]
    datasets = {name: run.scores for name, run in runs.items()}
    datasets |= {name: comparison.beside[name] for name in GREY if name in comparison.beside}
    figures = []
    for row in headline:
        lines = {name: row.curve(dataset, score, unit) for name, dataset in datasets.items()}
        drawn = {name: line for name, line in lines.items() if line is not None}
        mark = 0.0 if score.metric == "bias" else None
        caption, small = score_caption(row, score.metric, score.exponent)
        chart = line_chart(f"{score.metric} of {row.label} by lead time", drawn, unit, mark=mark)
        figures.append(figure(caption, chart, small))
    return Section("curves", "By lead time", join(legend(datasets, {name: name for name in runs}), charts(figures)))


def _spectra(comparison: Comparison, headline: Sequence[Row]) -> Section:
    """Spectra of all runs at the last lead time that they share, and their effective resolution."""
    spectra = {name: entry.spectra for name, entry in comparison.runs.items() if entry.spectra is not None}
    leads = [set(spectrum["lead_time"].values.tolist()) for spectrum in spectra.values()]
    shared = set.intersection(*leads) if leads else set()
    rows = [row for row in headline if all(has_spectrum(spectrum, row) for spectrum in spectra.values())]
    if not shared or not rows:
        return Section("spectra", "Spectra", NOTHING)
    lead = np.timedelta64(max(shared), "ns")
    at_lead = {name: spectrum.sel(lead_time=lead) for name, spectrum in spectra.items()}

    def power(row: Row) -> Html:
        powers = {name: row.field(spectrum) * row.factor**2 for name, spectrum in at_lead.items()}
        lines = {name: spectrum.sel(source="forecast").values for name, spectrum in powers.items()}
        last = list(at_lead.values())[-1]
        return power_chart(last, row, {**lines, "truth": powers[list(powers)[-1]].sel(source="truth").values})

    lines = [(row.label, [resolution_cell(row, spectrum) for spectrum in at_lead.values()]) for row in rows]
    ahead = f"{lead_text(lead)} ahead"
    body = join(
        quiet(
            f"Power by total wavenumber, {ahead}; below the truth (dashed) a forecast is too smooth, above it noisy."
        ),
        legend([*spectra, "truth"], {name: name for name in spectra}),
        row_charts(rows, power),
        tag("h3", f"Effective resolution, {ahead}"),
        quiet(RESOLUTION),
        table(["km", *at_lead], lines),
    )
    return Section("spectra", "Spectra", body)


def _provenance(comparison: Comparison) -> Section:
    """The origin of each run, and what all share."""
    keys, attrs = ("forecast", "verdict", "revision", "created"), comparison.reference.attrs
    lines = []
    for name, entry in comparison.runs.items():
        lines.append((name, [tag("td", str(entry.scores.attrs.get(k, ""))[:60], class_="run") for k in keys]))
    shared = {name.replace("_", " "): str(attrs[name]) for name in SHARED if name in attrs}
    if comparison.judged is not None:
        shared["significance"] = comparison.judged.attrs["significance"]
    return Section("provenance", "Provenance", join(table(["", *keys], lines), definitions(shared)))


def comparison_dataset(comparison: Comparison, scores: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Scores of all runs, dimension `run` first, each with its `forecast`; their origin as attributes."""
    joined = joined_runs(scores)
    forecasts = [str(scores[str(name)].attrs.get("forecast")) for name in joined["run"].values]
    return joined.assign_coords(forecast=("run", forecasts)).assign_attrs(
        baseline=comparison.baseline,
        number_of_inits=comparison.inits,
        left_out=" ".join(comparison.notes) or "nothing",
        created=now(),
        revision=revision(),
    )


def draw_comparison(
    target: Path,
    comparison: Comparison,
    runs: Mapping[str, EvaluationResults],
    score: Score,
    attempt: Callable[..., Any],
) -> None:
    """Draw scorecards.png, curves.png and compare.html into `target`.

    attempt: called with what is made, the function that makes it and its arguments; what fails is left out.
    """
    from data_pipelines.pictures.curves import Curve, curves
    from data_pipelines.pictures.scorecards import run_scorecards

    headline = headline_rows(score_rows(comparison.reference))
    others = [run for run in runs.values() if run.sources]
    title = f"{metric_title(score.metric)} against {comparison.baseline}, {score.region}"
    if others:
        where = (score.metric, score.region, title)
        attempt("scorecards.png", run_scorecards, target / "scorecards.png", others, headline, *where)
    styles = run_styles(list(runs))
    lines = {name: Curve(run.scores, styles[name]) for name, run in runs.items()}
    lines |= {n: Curve(comparison.beside[n], style, True) for n, style in GREY.items() if n in comparison.beside}
    attempt("curves.png", curves, target / "curves.png", lines, headline[:9], score, room=1.5)
    attempt("compare.html", write_comparison_page, target / "compare.html", comparison, runs, score)
