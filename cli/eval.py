"""`emul eval`: forecasts against their truth, with persistence and climatology beside them, to outputs/eval/<name>/."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from data_pipelines.scores import read_scores, side_by_side
from data_pipelines.writers import write_netcdf
from emul.beside import forecasts_beside
from emul.build import run_with_hydra
from emul.console import header, progress, warn
from emul.inputs import Inputs, chosen_options, lead_times, opened, plain
from emul.spectra import chosen
from emulators.channels import WINDS
from emulators.spectral_verification import LeadSpectra
from emulators.state import State
from emulators.variables import VariableSet
from emulators.verification import ErrorMaps, Scorecard


@dataclass(frozen=True)
class Cards:
    """Scorecards of the forecast and of the baselines on the same initial times, and maps of its mean errors."""

    forecast: Scorecard
    baselines: dict[str, Scorecard]
    maps: ErrorMaps


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
    with progress("scoring") as report:
        cards = scored(inputs, spectra, report)
    scores = cards.forecast.scores(inputs.attributes)
    if "level" in scores.coords:
        scores["level"].attrs.update(inputs.forecast["level"].attrs)
    baselines = side_by_side({name: card.scores(inputs.attributes) for name, card in cards.baselines.items()}, scores)
    target = Path(config.output) / "eval" / inputs.name
    target.mkdir(parents=True, exist_ok=True)
    by_scale = {} if spectra is None else {"spectra": spectra.dataset({"grid": scores.attrs["grid"]})}
    write_netcdf(target / "scores.nc", scores, by_scale)
    if baselines is not None:
        write_netcdf(target / "baselines.nc", baselines)
    histograms = cards.forecast.histograms(inputs.attributes)
    if histograms is not None:
        write_netcdf(target / "histograms.nc", histograms)
    from emul.presentation import present  # pictures come after the numbers are safe

    present(target, inputs, cards, scores, baselines, by_scale.get("spectra"))
    return target


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


def chosen_spectra(inputs: Inputs) -> LeadSpectra | None:
    """The sums of the spectra that the options ask for; where the grid has none, a note says so."""
    pairs, wanted = inputs.pairs, inputs.options.spectra
    fields, leads = plain(wanted.fields), lead_times(wanted.leads)
    found, note = chosen(inputs.world, pairs.variables, pairs.leads, fields, leads, threshold=wanted.threshold)
    inputs.notes.extend([note] if note else [])
    return found


def scored(inputs: Inputs, spectra: LeadSpectra | None, report: Callable[[str, float], None]) -> Cards:
    """One pass over all pairs: the forecast's sums, and those of the baselines on the same initial times."""
    pairs, options = inputs.pairs, inputs.options

    def card(metrics: Mapping[str, Any]) -> Scorecard:
        regions, leads = plain(options.regions), list(pairs.leads)
        return Scorecard(inputs.world, pairs.variables, metrics, regions, leads, missing=options.missing, vectors=WINDS)

    cards = Cards(card(inputs.metrics), {}, ErrorMaps(inputs.world, *map_choice(inputs)))
    single = {name: metric for name, metric in inputs.metrics.items() if metric.members < 2}
    if "persistence" in options.baselines and single:
        cards.baselines["persistence"] = card(single)
    absolute = {name: metric for name, metric in single.items() if not metric.needs}
    if "climatology" in options.baselines and inputs.climatology is not None and absolute:
        cards.baselines["climatology"] = card(absolute)
    done = 0
    for pair in pairs:
        normal = {} if inputs.climatology is None else inputs.climatology.named(pair.target.time)
        cards.forecast.add(pair.prediction, pair.target, pair.lead, normal)
        cards.maps.add(pair.prediction, pair.target, pair.lead)
        if spectra is not None:
            spectra.add(pair.prediction, pair.target, pairs.leads[pair.lead])
        if "climatology" in cards.baselines:
            usual = State(normal["mean"], pairs.variables, pair.target.time)
            cards.baselines["climatology"].add(usual, pair.target, pair.lead)
        if "persistence" in cards.baselines and pair.start is not None:
            rows = torch.from_numpy(pair.known)
            later = State(pair.target.values[rows], pairs.variables, pair.target.time[pair.known])
            known = {name: field[rows] for name, field in normal.items()}
            cards.baselines["persistence"].add(pair.start, later, pair.lead, known)
        done += len(pair.inits)
        report(f"{done} of {pairs.total} pairs", done / pairs.total)
    for name in [name for name, made in cards.baselines.items() if not made.scored]:
        del cards.baselines[name]
    return cards


def map_choice(inputs: Inputs) -> tuple[VariableSet, list[int]]:
    """The channels and leads (indices) of which maps are drawn."""
    from emul.scorecard import map_variables

    leads = inputs.pairs.leads
    wanted = lead_times(inputs.options.maps.leads)
    there = (
        [] if wanted is None else [int(np.flatnonzero(leads == lead)[0]) for lead in wanted if (leads == lead).any()]
    )
    variables = map_variables(inputs.pairs.variables, plain(inputs.options.maps.fields))
    return variables, sorted(set(there)) or [len(leads) // 2]
