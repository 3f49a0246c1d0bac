"""`emul eval`: score forecasts, persistence and climatology against the truth, to outputs/eval/<name>/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from data_pipelines.conventions.suggestions import options_under
from data_pipelines.files.netcdf import write_netcdf
from data_pipelines.files.score_form import stored_form
from data_pipelines.opening.file_kinds import file_names
from data_pipelines.reading.plausibility import declared_ranges
from data_pipelines.verification.absences import empty_scores, sentences
from data_pipelines.verification.evaluation_results import EvaluationResults
from data_pipelines.verification.odd_values import OddValues
from data_pipelines.verification.score_files import read_scores
from data_pipelines.verification.score_rows import Row, headline_rows, score_rows
from data_pipelines.verification.scoring import ODD, PartialSums, score_pairs
from emul.config.command_line import run_composed
from emul.config.overrides import plain
from emul.config.places import refuse_name
from emul.display.text import DASH, number
from emul.evaluation.inputs import Inputs, chosen_options, evaluation_of, forecasts_beside, open_inputs
from emul.evaluation.opening import OPTIONS, forecast_files, forecast_path
from emul.jobs.shares import parse_share
from emul.terminal.console import console, header, progress, table, warn
from emulators.statistics.significance import Significance
from emulators.verification.evaluation import Evaluation

if TYPE_CHECKING:
    import xarray as xr

    from emulators.verification.climate import ClimateCard


def main(arguments: list[str]) -> int:
    """Run the verb; its exit code."""
    return run_composed("eval", arguments, evaluate)


def evaluate(config: DictConfig) -> Path:
    """Score what `config` names; the folder with scores.nc, baselines.nc, pictures and report."""
    options = chosen_options(config)
    beside = forecasts_beside(options.beside)
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
    told = odd.notes(inputs.options.missing)
    inputs.notes.extend(told)
    for note in told:
        warn(note)
    results = _write(target, inputs, evaluation)
    by_init, judged = _write_differences(target, inputs, evaluation)
    sums.remove()
    from emul.report.present import present  # pictures come after the numbers are safe

    present(target, inputs, evaluation, replace(results, by_init=by_init, differences=judged))


def _resumed(done: int, total: int) -> None:
    console().print(f"going on after {done} of {total} pairs that an earlier run has scored")


def _write(target: Path, inputs: Inputs, evaluation: Evaluation) -> EvaluationResults:
    """Write scores.nc, baselines.nc, histograms.nc and climate.nc; the results, without differences."""
    scores = evaluation.scores(inputs.attributes)
    card = evaluation.forecast
    spoilt = {name: card.spoilt(name) for name in card.scored}
    empty = empty_scores(spoilt, inputs.pairs, inputs.options.missing == "none")
    for sentence in sentences(empty):
        warn(sentence)
    inputs.absences.extend(empty)
    told = {"left_out": "; ".join(f"{one.name}: {one.reason}" for one in inputs.absences) or "nothing"}
    scores.attrs.update(told)
    if "level" in scores.coords:
        scores["level"].attrs.update(inputs.forecast["level"].attrs)
    baselines = evaluation.baseline_scores({**inputs.attributes, **told})
    if baselines is not None and "level" in baselines.coords:
        baselines["level"].attrs.update(inputs.forecast["level"].attrs)
    spectra = evaluation.spectra.dataset({"grid": scores.attrs["grid"]}) if evaluation.spectra is not None else None
    title = f"Scores of {inputs.name}"
    write_netcdf(target / "scores.nc", stored_form(scores, title), {} if spectra is None else {"spectra": spectra})
    if baselines is not None:
        write_netcdf(target / "baselines.nc", stored_form(baselines, f"{title}: baselines on the same dates"))
    histograms = evaluation.forecast.histograms(inputs.attributes)
    if histograms is not None:
        write_netcdf(target / "histograms.nc", stored_form(histograms, f"{title}: ranks and reliability"))
    if evaluation.climate is not None:
        keep_climate(target, evaluation.climate, inputs)
    scored = {name: one.scores for name, one in inputs.beside.items() if one.scores is not None}
    return EvaluationResults(
        inputs.name,
        scores,
        baselines,
        further_scores={**inputs.limits, **scored},
        spectra=spectra,
        histograms=histograms,
        budgets=inputs.budgets,
        further_budgets={name: one.budgets for name, one in inputs.beside.items() if one.budgets is not None},
    )


def _write_differences(
    target: Path, inputs: Inputs, evaluation: Evaluation
) -> tuple[xr.Dataset | None, xr.Dataset | None]:
    """Write by_init.nc and differences.nc; the forecast's statistics by initial time, and the differences."""
    by_init = evaluation.statistics_by_init(inputs.attributes)
    for stale in ("by_init.nc", "differences.nc"):
        (target / stale).unlink(missing_ok=True)
    if not by_init:
        return None, None
    title = f"Area means of {inputs.name} and of its baselines, by initial time"
    stored = {name: stored_form(dataset, title) for name, dataset in by_init.items()}
    write_netcdf(target / "by_init.nc", stored.pop("forecast"), stored, deflate=True)
    options = inputs.options.significance
    with progress("judging differences"):
        significance = Significance(options.level, options.least, options.false_discovery)
        found = evaluation.differences(by_init, significance)
    if found is not None:
        write_netcdf(target / "differences.nc", stored_form(found, f"Differences of {inputs.name} to its baselines"))
    return by_init["forecast"], found


def _decisive(config: DictConfig, inputs: Inputs) -> dict[str, Any]:
    """All settings that the sums depend on, so that those of another evaluation are not used."""
    pairs, files = inputs.pairs, [*forecast_files(forecast_path(config)), *_truth_files(config)]
    return {
        **{name: told for name, told in inputs.attributes.items() if name != "created"},
        "options": plain(inputs.options),
        "opening": {key: plain(config[key]) for key in OPTIONS},
        "inits": pairs.inits.astype(str).tolist(),
        "leads": pairs.leads.astype(int).tolist(),
        "variables": pairs.variables.plain(),
        "written": [path.stat().st_mtime_ns for path in files if path.exists()],
    }


def _truth_files(config: DictConfig) -> list[Path]:
    try:
        return [] if config.truth is None else [Path(name) for name in file_names(plain(config.truth))]
    except FileNotFoundError:
        return []


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _summary(inputs: Inputs) -> list[str]:
    told, pairs = inputs.attributes, inputs.pairs
    return [
        f"forecast     {told['forecast']}",
        f"truth        {told['truth']}",
        f"climatology  {told['climatology']}",
        f"{_counted(len(pairs.inits), 'initial time')}, {told['inits']}; {_counted(len(pairs.leads), 'lead')}; "
        f"{_counted(pairs.variables.size, 'channel')}",
    ]


NAMES = {  # what a score is called in words, where it is of runs of any or only some lengths
    "annual": "annual means",
    "nrmse": "NRMSE",
    "interannual": "interannual variability",
    "nino": "Nino 3.4",
    "trend": "trends",
}
COLUMNS = {  # metric: (heading, power of the units)
    "bias": ("bias", 1),
    "bias_rmse": ("RMSE of the mean", 1),
    "std_ratio": ("variability / truth's", 0),
    "annual_rmse": ("RMSE of annual means", 1),
    "nrmse": ("NRMSE", 0),
    "trend_forecast": ("trend a decade", 1),
    "trend_truth": ("truth's trend", 1),
}


def keep_climate(target: Path, card: ClimateCard, inputs: Inputs) -> None:
    """Write climate.nc, show its headline, and say what the run is too short for."""
    dataset = card.dataset(inputs.attributes)
    if "level" in dataset.coords:
        dataset["level"].attrs.update(inputs.forecast["level"].attrs)
    write_netcdf(target / "climate.nc", stored_form(dataset, f"Climate of {inputs.name}"))
    for name, why in card.left_out().items():
        inputs.notes.append(f"{NAMES[name]} left out of the climate: {why}.")
        warn(inputs.notes[-1])
    show(dataset, headline_rows(score_rows(dataset[list(inputs.pairs.variables.names)])))


def show(dataset: xr.Dataset, first: Sequence[Row]) -> None:
    """Print one line for each headline variable, in the first region."""
    region = str(dataset["region"].values[0])
    there = [metric for metric in COLUMNS if metric in dataset["metric"].values]
    lines = []
    for row in first:
        cells = [row.series(dataset, metric, region).item() * row.scale(COLUMNS[metric][1]) for metric in there]
        lines.append([row.label, *(number(cell) if np.isfinite(cell) else DASH for cell in cells), row.unit])
    headings = [COLUMNS[metric][0] for metric in there]
    table([f"climate, {region}", *headings, "unit"], lines, headings)
