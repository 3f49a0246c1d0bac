"""Show an evaluation: score card in the terminal, table, pictures and report. No failure here stops `eval`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.markup import escape
from rich.table import Table

from data_pipelines.inspection.predictability import experiment_summary
from data_pipelines.verification.absences import Absence, folded, sentences
from data_pipelines.verification.evaluation_results import EvaluationResults, Verdict
from data_pipelines.verification.score_files import write_table
from data_pipelines.verification.score_rows import headline_leads
from emul.display.text import MARKS, lead_text, metric_title, number, percent, verdict_lines
from emul.pictures import curves, scorecards
from emul.report.drawings import climate_maps, correction_maps, draw_case, draw_hero, error_maps
from emul.report.report import ReportContext, write_report
from emul.terminal.console import attempt, console

if TYPE_CHECKING:
    import xarray as xr

    from emul.evaluation.inputs import Inputs
    from emulators.verification.evaluation import Evaluation


PROVENANCE = (
    "forecast", "truth", "climatology", "inits_used", "inits_skipped", "pairs", "grid", "weights", "averaging",
    "points_left_out",
)  # fmt: skip


def present(target: Path, inputs: Inputs, evaluation: Evaluation, results: EvaluationResults) -> None:
    """Print the score card, and draw pictures and report into `target`; whatever fails is reported and left out."""
    attempt("the score card", show, results, inputs.absences)
    attempt("scores.csv", write_table, target / "scores.csv", results.scores, results.baselines, inputs.absences)
    if inputs.options.pictures:
        attempt("the pictures", draw, target, inputs, evaluation, results)
    what = "scores, pictures and report" if inputs.options.pictures else "scores"
    console().print(f"{what} are in [key]{escape(str(target))}[/]", soft_wrap=True)


def draw(target: Path, inputs: Inputs, evaluation: Evaluation, results: EvaluationResults) -> None:
    """Draw the pictures and write the report."""
    name, region = results.shown_name, results.regions[0]
    metric = next(iter(results.shown_metrics), None)
    if metric is not None:
        title, rows = f"{name}: {metric_title(metric)} against the baselines, {region}", results.rows[:60]
        attempt("scorecard.png", scorecards.scorecard, target / "scorecard.png", results, rows, title, metric)
        attempt("curves.png", _draw_curves, target / "curves.png", results, metric)
    attempt("hero.png", draw_hero, target / "hero.png", inputs, evaluation, results)
    maps = attempt("the maps", error_maps, target / "maps", inputs, evaluation, results) or []
    case = attempt("case.html", draw_case, target / "case.html", inputs, results)
    maps += attempt("the maps of corrections", correction_maps, target / "maps", inputs, results) or []
    if (card := evaluation.climate) is not None:
        maps += attempt("the climate's maps", climate_maps, target / "climate", card, inputs, results) or []
    scores = results.scores
    notes = [*inputs.notes, *sentences(inputs.absences)]
    context = ReportContext(_facts(inputs, scores), _provenance(inputs, scores), notes, maps, case)
    attempt("report.html", write_report, target / "report.html", results, context)


def _draw_curves(path: Path, results: EvaluationResults, metric: str) -> Path:
    score = results.score(metric)
    title = f"{results.shown_name}: {metric_title(metric)} by lead time, {score.region}"
    return curves.curves(path, curves.evaluation_curves(results), results.headline[:9], score, title)


def show(results: EvaluationResults, absences: Sequence[Absence] = ()) -> None:
    """Print the score card: a table for each leading metric, below each score the difference to each baseline in
    percent, green where better; then what is left out, with the reasons."""
    for metric in results.shown_metrics:
        _show_metric(results, metric)
    if results.shown_name != results.name:
        console().print("[bad]this forecast failed its checks[/] (manifest.json names them)")
    if absences:
        console().print(f"[quiet]{escape(folded(absences))}[/]", soft_wrap=True)


def _show_metric(results: EvaluationResults, metric: str) -> None:
    leads, differences, title = headline_leads(results.leads), results.differences, metric_title(metric)
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    table.add_column(f"{title}, {results.regions[0]}", no_wrap=True)
    for i in leads:
        table.add_column(lead_text(results.leads[i]), justify="right", no_wrap=True)
    compared: dict[str, None] = {}
    for row in results.headline:
        values = results.values(row, metric)
        changes = {s: results.relative_difference(row, s, metric) for s in results.sources}
        known = {s: change for s, change in changes.items() if change is not None and np.isfinite(change).any()}
        compared |= dict.fromkeys(known)
        shown = [(change, results.verdicts(row, s, metric)) for s, change in known.items()]
        below = {i: " ".join(_coloured(change[i], verdicts[i]) for change, verdicts in shown) for i in leads}
        cells = ("\n".join(filter(None, [number(values[i]), below[i]])) for i in leads)
        table.add_row(f"{escape(row.label)}\n[quiet]{escape(unit_of_score(row.unit, results, metric))}[/]", *cells)
    console().print(table)
    if compared:
        marks = "~ not significant at {} %, ? too few initial times to say"
        hint = "" if differences is None else f"; {marks.format(differences.attrs['level'])}"
        sources = " and ".join(compared)
        console().print(f"[quiet]below each {title}: its difference to {sources}{hint}[/]")
        for line in verdict_lines(results, metric):
            console().print(f"[quiet]{line}[/]")


def unit_of_score(unit: str, results: EvaluationResults, metric: str) -> str:
    """Return the units of a metric of a field in these units."""
    exponent = results.score(metric).exponent
    return unit if exponent == 1 or not unit else f"({unit})\u00b2" if exponent == 2 else ""


def _coloured(difference: float, verdict: Verdict) -> str:
    if not np.isfinite(difference):
        return percent(difference)
    if verdict in MARKS:
        return f"[quiet]{MARKS[verdict]}{percent(difference)}[/]"
    return f"[{'good' if difference < 0 else 'bad'}]{percent(difference)}[/]"


def _facts(inputs: Inputs, scores: xr.Dataset) -> dict[str, str]:
    """The tiles at the top of the report."""
    pairs = inputs.pairs
    rows, columns = pairs.grid.shape
    return {
        "initial times": str(len(pairs.inits)),
        "from": np.datetime_as_string(pairs.inits[0], "D"),
        "to": np.datetime_as_string(pairs.inits[-1], "D"),
        "longest lead": lead_text(pairs.leads[-1]),
        "grid (longitude x latitude)": f"{columns} \N{MULTIPLICATION SIGN} {rows}",
        "checks of the forecast": str(scores.attrs.get("verdict", "")),
    }


def _provenance(inputs: Inputs, scores: xr.Dataset) -> dict[str, str]:
    """What is needed to reproduce these numbers, or to compare others with them."""
    listed = {name.replace("_", " "): str(scores.attrs[name]) for name in PROVENANCE}
    if "saturation" in inputs.limits:
        twin = inputs.limits["predictability"].attrs
        listed["predictability"] = (
            f"RMSE of identical twins, {experiment_summary(twin)}: the limit of a forecast that knows the whole state. "
            f"Saturation: \N{SQUARE ROOT}2 x the standard deviation of the stored data about their climatology. Truth: "
            f"{twin['truth']}"
        )
    listed["missing values"] = f"{100 * scores.attrs['nan_share']:.3g} % of all points"
    for name in ("metrics_left_out", "regions_left_out"):
        if name in scores.attrs:
            listed[name.replace("_", " ")] = str(scores.attrs[name])
    listed |= {"made": f"{scores.attrs['created']}, revision {scores.attrs['revision']}"}
    return listed | {"versions": str(scores.attrs["versions"])}
