"""`emul eval`: forecasts against their truth, with persistence and climatology beside them, to outputs/eval/<name>/."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from data_pipelines.files.atomic import write_netcdf
from data_pipelines.verification.score_files import read_scores, side_by_side
from emul.config.hydra_run import run_with_hydra
from emul.evaluation.climate import keep_climate
from emul.evaluation.inputs import Inputs, chosen_options, opened, plain
from emul.evaluation.partial_sums import Sums
from emul.evaluation.references import forecasts_beside
from emul.evaluation.scoring import chosen_spectra, judged_differences, scored
from emul.jobs.shares import share_of
from emul.terminal.console import console, header, progress, warn


def main(arguments: list[str]) -> int:
    return run_with_hydra("eval", arguments, lambda config: evaluate(config) and 0)


def evaluate(config: DictConfig) -> Path:
    """Score what `config` names; the folder with scores.nc, baselines.nc, pictures and report."""
    options = chosen_options(config)
    beside = forecasts_beside(options.beside)
    twin = {"predictability": read_scores(config.predictability)} if config.predictability else {}
    with progress("opening") as report:
        inputs = opened(config, options, report)
    inputs = replace(inputs, limits=twin or inputs.limits, beside=beside)
    spectra = chosen_spectra(inputs)
    header(f"emul eval {inputs.name}", _summary(inputs))
    for note in inputs.notes:
        warn(note)
    target = Path(config.output) / "eval" / inputs.name
    sums = Sums(target, _decisive(config, inputs), share_of(config.share), config.save_every)
    with progress("scoring") as report:
        cards = scored(inputs, spectra, sums, report)
    absent = sums.add_others(cards.parts(spectra))
    if absent:
        awaited = ", ".join(f"{share}/{sums.share[1]}" for share in absent)
        console().print(f"{sums.path(sums.share[0])} is complete; the scores wait for share={awaited}", soft_wrap=True)
        return target
    for name in [name for name, made in cards.baselines.items() if not made.scored]:
        del cards.baselines[name]
        cards.by_init.pop(name, None)
    scores = cards.forecast.scores(inputs.attributes)
    if "level" in scores.coords:
        scores["level"].attrs.update(inputs.forecast["level"].attrs)
    baselines = side_by_side({name: card.scores(inputs.attributes) for name, card in cards.baselines.items()}, scores)
    target.mkdir(parents=True, exist_ok=True)
    by_scale = {} if spectra is None else {"spectra": spectra.dataset({"grid": scores.attrs["grid"]})}
    write_netcdf(target / "scores.nc", scores, by_scale)
    if baselines is not None:
        write_netcdf(target / "baselines.nc", baselines)
    histograms = cards.forecast.histograms(inputs.attributes)
    if histograms is not None:
        write_netcdf(target / "histograms.nc", histograms)
    if cards.climate is not None:
        keep_climate(target, cards.climate, inputs)
    judged = judged_differences(target, inputs, cards)
    sums.remove()
    from emul.report.present import present  # pictures come after the numbers are safe

    present(target, inputs, cards, scores, baselines, judged, by_scale.get("spectra"))
    return target


def _decisive(config: DictConfig, inputs: Inputs) -> dict[str, Any]:
    """All that the sums depend on, for sums of an earlier run to be known as those of the same evaluation."""
    pairs, files = inputs.pairs, [Path(str(path)) for path in (inputs.attributes["forecast"], config.truth) if path]
    return {
        **{name: told for name, told in inputs.attributes.items() if name != "created"},
        "options": plain(inputs.options),
        "inits": pairs.inits.astype(str).tolist(),
        "leads": pairs.leads.astype(int).tolist(),
        "variables": pairs.variables.plain(),
        "written": [path.stat().st_mtime_ns for path in files if path.exists()],
    }


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
