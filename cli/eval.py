"""`emul eval`: score forecasts, persistence and climatology against the truth, to outputs/eval/<name>/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig
from rich.markup import escape
from rich.table import Table

from data_pipelines.conventions.suggestions import options_under
from data_pipelines.display.text import MARKS, lead_text, metric_title, number, percent, verdict_lines
from data_pipelines.files.fingerprints import fingerprint
from data_pipelines.files.identity import refuse_name
from data_pipelines.jobs.processes import parse_share
from data_pipelines.reading.plausibility import declared_ranges
from data_pipelines.reports.climate import circulation_lines, climate_lines
from data_pipelines.reports.evaluation import draw, evaluation_of, write_differences, write_scores
from data_pipelines.verification.absences import Absence, folded, sentences
from data_pipelines.verification.baselines import forecasts_beside
from data_pipelines.verification.run_results import command_after
from data_pipelines.verification.score_files import EvaluationResults, Verdict, read_scores, write_table
from data_pipelines.verification.score_rows import Row, headline_leads
from data_pipelines.verification.scoring import ODD, OddValues, PartialSums, score_pairs
from data_pipelines.verification.sides import OPTIONS, Inputs, forecast_files
from data_pipelines.verification.verif_files import VerifFiles
from emul.config.compose import run_composed
from emul.config.saved import plain
from emul.evaluation.inputs import chosen_options, forecast_path, open_inputs
from emul.terminal.console import attempt, console, header, next_command, progress, table, warn
from emulators.verification.comparison import SAME
from emulators.verification.evaluation import Evaluation

if TYPE_CHECKING:
    import xarray as xr


def main(arguments: list[str]) -> int:
    """Run the verb; its exit code."""
    return run_composed("eval", arguments, evaluate)


def evaluate(config: DictConfig, *, ends: bool = True) -> Path:
    """Score what `config` names; the folder with scores, pictures and report. ends: print the next command."""
    options = chosen_options(config)
    beside = forecasts_beside(options["beside"])
    twin = {"predictability": read_scores(config.predictability)} if config.predictability else {}
    with progress("opening") as report, options_under(""):
        inputs = open_inputs(config, options, report)
    inputs = replace(inputs, limits=twin or inputs.limits, beside=beside)
    evaluation = evaluation_of(inputs)
    header(f"emul eval {inputs.name}", _summary(inputs))
    for note in [*inputs.notes, *sentences(inputs.absences)]:
        warn(note)
    inputs.notes.extend(evaluation.notes)
    target = Path(config.output) / "eval" / refuse_name(inputs.name)
    sums = PartialSums(target, _decisive(config, inputs), parse_share(config.share), config.save_every)
    odd = OddValues(inputs.pairs.variables, inputs.pairs.grid, declared_ranges(inputs.pairs.truth.dataset))
    with sums.lock():
        with progress("scoring") as report:
            score_pairs(
                inputs.pairs,
                evaluation,
                climatology=inputs.climatology,
                odd=odd,
                sums=sums,
                report=report,
                resumed=_resumed,
            )
        with sums.turn():
            _merge(sums, target, inputs, evaluation, odd)
    if ends and (target / "scores.nc").is_file():
        next_command(command_after(target, Path(config.output) / "eval", config.get("run"), SAME))
    return target


def _merge(sums: PartialSums, target: Path, inputs: Inputs, evaluation: Evaluation, odd: OddValues) -> None:
    """Write scores, pictures and report of all shares, if they are complete."""
    if sums.is_merged:
        console().print(f"{target} has the scores of all shares", soft_wrap=True)
        return
    absent = sums.add_others(evaluation.accumulators() | {ODD: odd})
    if absent:
        awaited = ", ".join(f"{share}/{sums.share[1]}" for share in absent)
        console().print(f"{sums.path(sums.share[0])} is complete; the scores wait for share={awaited}", soft_wrap=True)
        return
    evaluation.drop_unscored()
    notes = odd.notes(inputs.options["missing"])
    inputs.notes.extend(notes)
    for note in notes:
        warn(note)
    results = write_scores(target, inputs, evaluation, warn)
    if results.climate is not None:
        show_climate(results.climate, results.headline)
    with progress("judging differences"):
        by_init, judged = write_differences(target, inputs, evaluation)
    sums.remove()
    if inputs.options["verif"]["places"]:
        with progress("writing files for verif") as report:
            VerifFiles(inputs.pairs, **inputs.options["verif"]).write(target / "verif", partial(report, "writing"))
    present(target, inputs, evaluation, replace(results, by_init=by_init, differences=judged))


def _resumed(done: int, total: int) -> None:
    console().print(f"going on after {done} of {total} pairs that an earlier run has scored")


def _decisive(config: DictConfig, inputs: Inputs) -> dict[str, Any]:
    """All settings that the sums depend on, so that those of another evaluation are not used."""
    pairs = inputs.pairs
    return {
        **{name: value for name, value in inputs.attributes.items() if name != "created"},
        "options": inputs.options,
        "opening": {key: plain(config[key]) for key in OPTIONS},
        "inits": pairs.inits.astype(str).tolist(),
        "leads": pairs.leads.astype(int).tolist(),
        "variables": pairs.variables.plain(),
        "forecast_files": fingerprint(list(map(str, forecast_files(forecast_path(config))))),
    }


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _summary(inputs: Inputs) -> list[str]:
    attributes, pairs = inputs.attributes, inputs.pairs
    return [
        f"forecast     {attributes['forecast']}",
        f"truth        {attributes['truth']}",
        f"climatology  {attributes['climatology']}",
        f"{_counted(len(pairs.inits), 'initial time')}, {attributes['inits']}; {_counted(len(pairs.leads), 'lead')}; "
        f"{_counted(pairs.variables.size, 'channel')}",
    ]


def show_climate(dataset: xr.Dataset, first: Sequence[Row]) -> None:
    """Print one line for each headline variable, in the first region, then transports and precipitation."""
    headings, lines = climate_lines(dataset, first)
    table([f"climate, {dataset['region'].values[0]}", *headings, "unit"], lines, headings)
    if lines := circulation_lines(dataset):
        table(["climate", "forecast", "truth", "unit"], lines, ["forecast", "truth"])


def present(target: Path, inputs: Inputs, evaluation: Evaluation, results: EvaluationResults) -> None:
    """Print the score card, and draw pictures and report into `target`; whatever fails is reported and left out."""
    attempt("the score card", show_card, results, inputs.absences)
    attempt("scores.csv", write_table, target / "scores.csv", results.scores, results.baselines, inputs.absences)
    if inputs.options["pictures"]:
        attempt("the pictures", draw, target, inputs, evaluation, results, attempt)
    outputs = "scores, pictures and report" if inputs.options["pictures"] else "scores"
    console().print(f"{outputs} are in [key]{escape(str(target))}[/]", soft_wrap=True)


def show_card(results: EvaluationResults, absences: Sequence[Absence] = ()) -> None:
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
        finite = {s: change for s, change in changes.items() if change is not None and np.isfinite(change).any()}
        compared |= dict.fromkeys(finite)
        judged = [(change, results.verdicts(row, s, metric)) for s, change in finite.items()]
        below = {i: " ".join(_coloured(change[i], verdicts[i]) for change, verdicts in judged) for i in leads}
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
