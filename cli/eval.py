"""`emul eval`: forecasts against their truth, with persistence and climatology beside them, to outputs/eval/<name>/."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import DictConfig

from data_pipelines.scores import read_scores, side_by_side
from data_pipelines.writers import write_netcdf
from emul.beside import forecasts_beside
from emul.build import run_with_hydra
from emul.climate import keep_climate
from emul.console import console, header, progress, warn
from emul.inputs import Inputs, chosen_options, lead_times, opened, plain
from emul.spectra import chosen
from emul.sums import Part, Sums, share_of
from emulators.bootstrap import Bootstrap
from emulators.channels import WINDS
from emulators.climate_verification import ClimateCard
from emulators.init_statistics import InitStatistics, differences
from emulators.spectral_verification import LeadSpectra
from emulators.state import State
from emulators.variables import VariableSet
from emulators.verification import ErrorMaps, Scorecard

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Cards:
    """Scorecards of the forecast and of the baselines on the same initial times, and maps of its mean errors.

    by_init: what each initial time adds, of `forecast` and of the baselines by name. climate: where it is asked for.
    """

    forecast: Scorecard
    baselines: dict[str, Scorecard]
    maps: ErrorMaps
    by_init: dict[str, InitStatistics] = field(default_factory=dict)
    climate: ClimateCard | None = None

    def parts(self, spectra: LeadSpectra | None) -> dict[str, Part]:
        """All that adds up, by name."""
        found: dict[str, Part] = {"forecast": self.forecast, "maps": self.maps}
        found |= {f"baseline {name}": card for name, card in self.baselines.items()}
        found |= {f"inits {name}": kept for name, kept in self.by_init.items()}
        found |= {} if self.climate is None else {"climate": self.climate}
        return found if spectra is None else {**found, "spectra": spectra}


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
    from emul.presentation import present  # pictures come after the numbers are safe

    present(target, inputs, cards, scores, baselines, judged, by_scale.get("spectra"))
    return target


def judged_differences(target: Path, inputs: Inputs, cards: Cards) -> xr.Dataset | None:
    """Differences to the baselines with their intervals; they and what each initial time added go to `target`."""
    kept = {name: one.dataset(inputs.attributes) for name, one in cards.by_init.items()}
    by_init = {name: one for name, one in kept.items() if one is not None}
    forecast = by_init.pop("forecast", None)
    for stale in ("by_init.nc", "differences.nc"):
        (target / stale).unlink(missing_ok=True)
    if forecast is None:
        return None
    write_netcdf(target / "by_init.nc", forecast, by_init, deflate=True)
    options = inputs.options.significance
    with progress("judging differences"):
        bootstrap = Bootstrap(options.resamples, options.level, options.block)
        found = differences(forecast, by_init, inputs.metrics, bootstrap)
    if found is not None:
        write_netcdf(target / "differences.nc", found)
    return found


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


def chosen_spectra(inputs: Inputs) -> LeadSpectra | None:
    """The sums of the spectra that the options ask for; where the grid has none, a note says so."""
    pairs, wanted = inputs.pairs, inputs.options.spectra
    fields, leads = plain(wanted.fields), lead_times(wanted.leads)
    more = {"threshold": wanted.threshold, "chaosbench": wanted.chaosbench}
    found, note = chosen(inputs.world, pairs.variables, pairs.leads, fields, leads, **more)
    inputs.notes.extend([note] if note else [])
    return found


def scored(inputs: Inputs, spectra: LeadSpectra | None, sums: Sums, report: Callable[[str, float], None]) -> Cards:
    """One pass over the pairs of a share: the forecast's sums, and those of the baselines on the same initial times.

    It begins after the blocks that are in `sums` already, and adds to them as it goes.
    """
    pairs, options = inputs.pairs, inputs.options

    def card(metrics: Mapping[str, Any]) -> Scorecard:
        regions, leads = plain(options.regions), list(pairs.leads)
        return Scorecard(inputs.world, pairs.variables, metrics, regions, leads, missing=options.missing, vectors=WINDS)

    climate = ClimateCard(inputs.world, pairs.variables, plain(options.regions)) if options.climate else None
    cards = Cards(card(inputs.metrics), {}, ErrorMaps(inputs.world, *map_choice(inputs)), climate=climate)
    cards.baselines.update({name: card(baseline.metrics) for name, baseline in inputs.baselines.items()})
    cards.by_init.update(_kept_by_init(inputs, {"forecast": cards.forecast, **cards.baselines}))

    def add(name: str, card: Scorecard, inits: np.ndarray, *fields: Any) -> None:
        taken = card.add(*fields)
        if name in cards.by_init:
            cards.by_init[name].add(inits, pair.lead, taken)

    added, blocks = cards.parts(spectra), pairs.blocks(*sums.share)
    complete = sums.restore(added)
    done, total = sum(map(pairs.count, blocks[:complete])), sum(map(pairs.count, blocks))
    if complete:
        console().print(f"going on after {done} of {total} pairs that an earlier run has scored")
    for pair in pairs.of(blocks[complete:]):
        normal = {} if inputs.climatology is None else inputs.climatology.named(pair.target.time)
        add("forecast", cards.forecast, pair.inits, pair.prediction, pair.target, pair.lead, normal)
        cards.maps.add(pair.prediction, pair.target, pair.lead)
        if climate is not None:
            climate.add(pair.prediction, pair.target)
        if spectra is not None:
            spectra.add(pair.prediction, pair.target, pairs.leads[pair.lead])
        for name, baseline in inputs.baselines.items():
            for forecast, rows in baseline.forecasts(pair, normal):
                there = torch.from_numpy(rows)
                truth = State(pair.target.values[there], pairs.variables, pair.target.time[rows])
                usual = {key: field[there] for key, field in normal.items()}
                add(name, cards.baselines[name], pair.inits[rows], forecast, truth, pair.lead, usual)
        done += len(pair.inits)
        report(f"{done} of {total} pairs", done / total)
        if pair.last:
            complete += 1
            sums.keep(added, complete, len(blocks))
    return cards


def _kept_by_init(inputs: Inputs, cards: Mapping[str, Scorecard]) -> dict[str, InitStatistics]:
    """What is to hold the statistics of each initial time: of all regions, else of the first, else none and a note."""
    options, inits = inputs.options.significance, inputs.pairs.inits
    if not options.resamples:
        return {}
    every = len(cards["forecast"].regions.names)
    needed = {n: sum(InitStatistics.megabytes(card, len(inits), n) for card in cards.values()) for n in (every, 1)}
    fitting = [n for n, megabytes in needed.items() if megabytes <= options.megabytes]
    if every not in fitting:
        where = "in the first region alone" if fitting else "nowhere"
        inputs.notes.append(
            f"Differences are judged {where}: statistics of each initial time would take {needed[every]:.0f} MB, more "
            f"than significance.megabytes={options.megabytes}."
        )
    return {name: InitStatistics(card, inits, fitting[0]) for name, card in cards.items()} if fitting else {}


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
