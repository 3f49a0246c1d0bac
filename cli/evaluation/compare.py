"""`emul eval compare a b c`: several evaluations on the same initial times, to outputs/eval/<name>/compare.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.display.text import MARKS, lead_text, metric_title, number, percent
from data_pipelines.files.identity import digest, refuse_name
from data_pipelines.files.netcdf import stored_form, write_netcdf
from data_pipelines.forecasts.manifest import NAME, read_manifest
from data_pipelines.options.folders import run_name
from data_pipelines.reports.comparison_page import comparison_dataset, draw_comparison
from data_pipelines.verification.score_files import (
    EvaluationResults,
    compared_evaluations,
    evaluation_folders,
    read_evaluation,
    write_comparison,
)
from data_pipelines.verification.score_rows import Score, headline_leads, headline_rows, score_rows
from emul.config.build import build_all
from emul.config.saved import saved_config
from emul.config.settings import read_settings, refuse_others
from emul.terminal.console import attempt, console, header, progress, table, warn
from emulators.statistics.significance import Significance
from emulators.verification.comparison import Comparison, StoredEvaluation, compare


@dataclass(frozen=True)
class CompareSettings:
    """Hold the settings of a comparison.

    baseline: an evaluation, persistence or climatology to take differences to, default the first evaluation. metric and
    region: what tables and pictures show. name: of the folder in <output>/eval. level, least, false_discovery: of
    `emulators.statistics.significance`.
    """

    baseline: str | None = None
    metric: str = "rmse"
    region: str | None = None
    name: str = "compare"
    output: str = "outputs"
    level: float = 0.95
    least: float = 15.0
    false_discovery: bool = True


def main(arguments: list[str]) -> int:
    """Compare the evaluations named on the command line; options are given as key=value."""
    settings, words = read_settings(CompareSettings, arguments)
    refuse_others(words, CompareSettings, "emul eval compare")
    significance = Significance(settings.level, settings.least, settings.false_discovery)
    output = Path(settings.output)
    if len(words) < 2:
        raise ValueError("Nothing to compare: give two or more evaluations, `emul eval compare a b`.")
    with progress("comparing"):
        names = [run_name(word, output) if (Path(word) / "checkpoints").is_dir() else word for word in words]
        folders = evaluation_folders(names, output)
        evaluations = [StoredEvaluation(name, path, **read_evaluation(path)) for name, path in folders.items()]
        refuse_stale(evaluations)
        comparison = compare(evaluations, _built, significance, settings.baseline, settings.region)
    title = f"emul eval compare {' '.join(comparison.runs)}"
    header(title, [f"{comparison.inits} shared initial times, against {comparison.baseline}"])
    for note in comparison.notes:
        warn(note)
    scores = {name: entry.scores for name, entry in comparison.runs.items()}
    runs = compared_evaluations(scores, comparison.baseline, comparison.reference, comparison.judged)
    score = _shown_score(comparison, settings.metric, settings.region)
    target = output / "eval" / refuse_name(settings.name)
    target.mkdir(parents=True, exist_ok=True)
    groups = {} if comparison.judged is None else {"differences": comparison.judged}
    write_netcdf(
        target / "compare.nc",
        stored_form(comparison_dataset(comparison, scores), " beside ".join(comparison.runs)),
        groups,
    )
    write_comparison(target / "compare.csv", runs, comparison.baseline, score.region)
    show(comparison, runs, score)
    draw_comparison(target, comparison, runs, score, attempt)
    console().print(f"table, pictures and page are in [key]{target}[/]", soft_wrap=True)
    return 0


def refuse_stale(evaluations: Sequence[StoredEvaluation]) -> None:
    """Raise ValueError where the forecast of an evaluation was made again, from something else, after it was scored."""
    for entry in evaluations:
        attrs, folder = entry.scores.attrs, Path(str(entry.scores.attrs.get("forecast", ""))).parent
        if "forecast_made_from" not in attrs or not (folder / NAME).is_file():
            continue
        if digest(read_manifest(folder).get("settings", {})) != attrs["forecast_made_from"]:
            raise ValueError(
                f"{folder} was made again, otherwise, after the scores of '{entry.name}' were written; evaluate it "
                "again with `emul eval`."
            )


def _built(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics from their stored configurations."""
    return build_all(saved_config(dict(metrics), "the attributes of scores.nc"))


def _shown_score(comparison: Comparison, metric: str, region: str | None) -> Score:
    """The score of tables and pictures; the first metric where the runs do not share the usual one."""
    shared = [str(name) for name in comparison.reference["metric"].values]
    if metric not in shared:
        if metric != CompareSettings.metric:
            raise ValueError(f"metric={metric}: expected one that all share, of {', '.join(shared)}.")
        metric = shared[0]
    judged = comparison.reference if comparison.judged is None else comparison.judged
    exponents = json.loads(comparison.reference.attrs["exponent"])
    return Score(metric, region or str(judged["region"].values[0]), int(exponents[metric]))


def show(comparison: Comparison, runs: Mapping[str, EvaluationResults], score: Score) -> None:
    """Print a line for each run and a column for each headline row, at the middle of the usual lead times."""
    leads = comparison.reference["lead_time"].values
    rows, usual = headline_rows(score_rows(comparison.reference), most=8), headline_leads(leads)
    lead = usual[len(usual) // 2]
    where = (comparison.baseline, score.metric, score.region)
    head = [f"{metric_title(score.metric)}, {lead_text(leads[lead])}, {score.region}", *(row.label for row in rows)]
    lines = []
    for run in runs.values():
        cells = [run.shown_name if run.sources else f"{run.shown_name} (baseline)"]
        for row in rows:
            text = number(run.values(row, score.metric, score.region)[lead])
            change = run.relative_difference(row, *where)
            if change is not None:
                mark = MARKS.get(run.verdicts(row, *where)[lead], "")
                text += f" {mark}{percent(change[lead])}"
            cells.append(text)
        lines.append(cells)
    table(head, lines, head[1:])
    if comparison.judged is not None:
        level = comparison.judged.attrs["level"]
        marks = f"~ not significant at {level} %, ? too few initial times to say"
        console().print(f"[quiet]differences to {comparison.baseline}; {marks}[/]")
