"""Forecasts from the States of an archive: a generator of States, and batches that are written and scored as they run.

All that the next lead depends on is saved with each segment, and a batch always continues from what is saved: one that
was killed and one that was not take the same path to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_pipelines.batches.archive import Archive
from data_pipelines.conventions.durations import unbroken_until
from data_pipelines.forecasts.checks import Checks, lead_text
from data_pipelines.forecasts.layout import Layout
from data_pipelines.forecasts.segments import Segment
from data_pipelines.forecasts.writers import ZarrWriter
from emulators.rollout import Rollout, Stepper, state_arrays, state_from_arrays
from emulators.scores.interfaces import LeadBudgets, LeadScores
from emulators.state import Origin, State
from emulators.world import World

Arrays = dict[str, np.ndarray]
SOURCES = ("forecast", "truth")


def forecast_states(
    step: Stepper,
    archive: Archive,
    inits: np.ndarray,
    steps: int,
    *,
    members: int = 0,
    seed: int = 0,
    scheme: str = "rollout",
    intervals: Sequence[int] = (1,),
    precision: str = "32",
    device: torch.device | str = "cpu",
) -> Iterator[State]:
    """Yield the States of forecasts from `inits` at lead 1 to `steps`, each ([member,] init, channel, *grid).

    step: on `device`. archive: holds the initial States and what is prescribed later. Other arguments as in `Rollout`.
    """
    history = initial_states(archive, inits, device)
    rollout = Rollout(
        step,
        archive.world,
        history,
        members=members,
        seed=seed,
        scheme=scheme,
        intervals=intervals,
        precision=precision,
    )
    return rollout.states(forcings(archive, history[-1].time, range(1, steps + 1), device))


def initial_states(archive: Archive, inits: np.ndarray, device: torch.device | str) -> tuple[State, ...]:
    """The known States at and before the initial times, oldest first, on a device."""
    return tuple(state.to(device) for state in archive.history(inits))


def forcings(archive: Archive, inits: np.ndarray, leads: range, device: torch.device | str) -> Iterator[State]:
    """Yield what is prescribed at the valid times of each lead, in timesteps, on a device."""
    world = archive.world
    if archive.in_memory:  # read in one go, not a time at a time
        for init in inits:
            archive.load(tuple(str(world.after(init, lead)) for lead in (leads.start - 1, leads.stop - 1)))
    for lead in leads:
        yield archive.forcing(world.after(inits, lead)).to(device)


@dataclass(frozen=True)
class ForecastJob:
    """Hold a forecast to be made, everything opened and checked.

    scorecard: makes empty scores of the leads first .. stop - 1, None where none of their truth is known. ledger: makes
    empty budgets (leads, first, maps=) of so many leads from number `first` on. settings: all that the numbers depend
    on. card: what else the manifest records. ranges: bounds by variable name that override the table of physical
    ranges. segment: leads after which a rollout is saved, whole chunks. scheme, intervals, seed, precision: as in
    `Rollout`.
    """

    folder: Path
    step: Stepper
    archive: Archive
    layout: Layout
    writer: ZarrWriter
    scorecard: Callable[[int, int], LeadScores | None]
    ledger: Callable[..., LeadBudgets]
    settings: Mapping[str, Any]
    card: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    device: str = "cpu"
    correction_maps: bool = False
    scheme: str = "rollout"
    intervals: tuple[int, ...] = (1,)
    seed: int = 0
    segment: int = 500
    precision: str = "32"

    @property
    def world(self) -> World:
        """The World of the forecast."""
        return self.layout.world

    def ledgers(self, leads: int, first: int = 0) -> dict[str, LeadBudgets]:
        """Empty budgets of forecast and truth."""
        return {
            source: self.ledger(leads, first, maps=self.correction_maps and source == "forecast") for source in SOURCES
        }


class BatchForecast:
    """Roll out, write, check and score one batch of initial times of a job, a segment at a time.

    warn: called with a sentence where the forecast leaves its physical range.
    """

    def __init__(self, job: ForecastJob, batch: int, warn: Callable[[str], None]) -> None:
        self.job, self.batch, self.warn = job, batch, warn
        self.inits = job.layout.inits[job.layout.batches[batch]]
        self.until = unbroken_until(job.archive.times, self.inits)
        history = initial_states(job.archive, self.inits, job.device)
        self.rollout = Rollout(
            job.step,
            job.world,
            history,
            members=job.layout.members,
            seed=job.seed,
            scheme=job.scheme,
            intervals=job.intervals,
            precision=job.precision,
        )
        self.truth_before = history[-1]  # the truth one timestep earlier
        self.carried: dict[str, Arrays] = {source: {} for source in SOURCES}  # of the ledgers
        self.is_sound = True

    def make(self, segment: Segment, report: Callable[[int], None]) -> tuple[Arrays, dict[str, str]]:
        """Make one segment; (its sums and, unless it is the last, what the next depends on; checksums of its files).

        report: called with the number of each lead.
        """
        job, world = self.job, self.job.world
        checks, card = Checks(world, job.ranges), job.scorecard(segment.first, segment.stop)
        ledgers = job.ledgers(segment.stop - segment.first, segment.first)
        for source, ledger in ledgers.items():
            ledger.restore(self.carried[source], job.device)
        pairs = 0
        prescribed = forcings(job.archive, self.inits, range(segment.first + 1, segment.stop + 1), job.device)
        with torch.inference_mode(), ledgers["forecast"].record_corrections(job.step):
            for lead, state in enumerate(self.rollout.states(prescribed), start=segment.first):
                contents = ledgers["forecast"].contents(state)
                if not checks.add(lead, state, contents) and self.is_sound:
                    self.is_sound = False
                    self.warn(f"At lead {lead_text(world, lead)} the forecast left its physical range or became NaN.")
                job.writer.write(self.batch, lead, state.values.float().cpu().numpy())
                truth = self._score(card, lead - segment.first, state)
                pairs += 0 if truth is None else len(truth.time)
                ledgers["forecast"].add(lead, state, contents)
                self._add_truth(ledgers["truth"], lead, state, truth)
                report(lead)
        arrays = checks.arrays() | {"pairs": np.array(pairs)}
        for source, ledger in ledgers.items():
            arrays |= prefixed(f"{source} budgets", ledger.partial())
        if card is not None:
            arrays |= prefixed("scores", card.partial())
        if segment.stop < job.layout.steps:
            arrays |= prefixed("rollout", self.rollout.arrays()) | state_arrays(self.truth_before, "state/truth")
            for source, ledger in ledgers.items():
                arrays |= prefixed(f"{source} carried", ledger.carried_state())
        return arrays, job.writer.finish(self.batch)

    def _score(self, card: LeadScores | None, row: int, state: State) -> State | None:
        """Add the forecasts whose truth is at hand (up to the time `until` of each) to the scores; that truth."""
        archive = self.job.archive
        has_truth = archive.has(state.time) & (state.time <= self.until)
        if card is None or not has_truth.any():
            return None
        if not has_truth.all():
            rows = torch.from_numpy(has_truth)
            state = replace(state, values=state.values[..., rows, :, :, :], time=state.time[has_truth])
        truth = archive.states(state.time, card.variables).to(state.values.device)
        card.add(state.select(card.variables.names), truth, row)
        return truth

    def _add_truth(self, ledger: LeadBudgets, lead: int, state: State, truth: State | None) -> None:
        """Add the truth of a lead to its ledger, as long as all predicted variables of it are known."""
        origin = state.origin
        assert origin is not None  # a Step made it
        whole = truth is not None and truth.variables == state.variables and np.array_equal(truth.time, state.time)
        if truth is None or not whole or not np.array_equal(self.truth_before.time, origin.before.time):
            ledger.add_missing(lead, len(state.time))
            return
        before = Origin(origin.start, self.truth_before, origin.forcing)
        ledger.add(lead, replace(truth, origin=before))
        self.truth_before = truth

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue after a segment that is not the last. arrays: those that `make` returned for it."""
        self.rollout.restore(within(arrays, "rollout"))
        self.truth_before = state_from_arrays(arrays, "state/truth", self.job.world, self.rollout.start)
        self.carried = {source: within(arrays, f"{source} carried") for source in SOURCES}


def prefixed(name: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The same arrays under the names `name/...`."""
    return {f"{name}/{key}": array for key, array in arrays.items()}


def within(arrays: Mapping[str, np.ndarray], name: str) -> Arrays:
    """The arrays under the names `name/...`, without this prefix."""
    return {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}
