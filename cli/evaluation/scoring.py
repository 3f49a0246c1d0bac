"""Score a forecast and its baselines in one pass over pairs of forecast and truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data_pipelines.files.atomic import write_netcdf
from emul.evaluation.inputs import Inputs, lead_times, plain
from emul.evaluation.partial_sums import Part, Sums
from emul.evaluation.spectra import chosen
from emul.terminal.console import console, progress
from emulators.state import State
from emulators.statistics.bootstrap import Bootstrap
from emulators.variables import VariableSet
from emulators.verification.by_init import InitStatistics, differences
from emulators.verification.channel_rows import WINDS
from emulators.verification.climate import ClimateCard
from emulators.verification.error_maps import ErrorMaps
from emulators.verification.scorecard import Scorecard
from emulators.verification.spectra import LeadSpectra

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
    from data_pipelines.verification.score_rows import map_variables

    leads = inputs.pairs.leads
    wanted = lead_times(inputs.options.maps.leads)
    there = (
        [] if wanted is None else [int(np.flatnonzero(leads == lead)[0]) for lead in wanted if (leads == lead).any()]
    )
    variables = map_variables(inputs.pairs.variables, plain(inputs.options.maps.fields))
    return variables, sorted(set(there)) or [len(leads) // 2]
