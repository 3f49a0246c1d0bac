"""Forecasts from the States of an archive: a generator of States, and batches that are written and scored as they run.

All that the next lead depends on is saved with each segment, and a batch always continues from what is saved: one that
was killed and one that was not take the same path to the same bits.

Save a batch of forecasts in segments of leads, each complete on disk before the next begins.

    progress/<batch>_<first>_<stop>.npz   what was gathered of the leads first .. stop - 1, and how to go on from there

A killed rollout goes on after the last of its segments; where a file of one was lost or cut short, from before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data_pipelines.conventions.durations import unbroken_until
from data_pipelines.files.atomic import sha256
from data_pipelines.files.batch_records import BatchRecords
from data_pipelines.forecasts.checks import Checks, Watch, lead_text
from emulators.rollout import Rollout, Stepper, state_arrays, state_from_arrays
from emulators.state import Origin, State

if TYPE_CHECKING:
    from data_pipelines.batches.archive import Archive
    from data_pipelines.forecasts.boundary import OtherForecast
    from data_pipelines.forecasts.layout import Layout
    from data_pipelines.forecasts.statistics_writer import Writer
    from emulators.scores.interfaces import LeadBudgets, LeadScores
    from emulators.world import World


@dataclass(frozen=True, order=True)
class Segment:
    """Identify the leads first .. stop - 1, counted from 0, of one piece of the work."""

    batch: int
    first: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.batch:06d}_{self.first:07d}_{self.stop:07d}"


class Segments:
    """Manage the segments of a forecast of `batches` batches and `steps` leads; several processes may share them."""

    def __init__(self, folder: Path, batches: int, steps: int) -> None:
        self.parts, self.batches, self.steps = BatchRecords(folder), batches, steps
        self.folder, self.remove = self.parts.folder, self.parts.remove
        self._sound: set[Segment] = set()  # made or looked through by this process
        self._whole: set[tuple[str, str]] = set()  # names and checksums of files that it has looked through

    def chains(self) -> dict[int, list[Segment]]:
        """The segments of each batch that are on disk, from lead 0 without a gap."""
        by_batch: dict[int, dict[int, Segment]] = defaultdict(dict)
        for segment in self._listed():
            by_batch[segment.batch][segment.first] = segment
        return {batch: list(self._chain(by_batch[batch])) for batch in range(self.batches)}

    def _listed(self, batch: str = "*") -> Iterator[Segment]:
        for path in self.folder.glob(f"{batch}_*_*.npz"):
            yield Segment(*map(int, path.stem.split("_")))

    @staticmethod
    def _chain(by_first: Mapping[int, Segment]) -> Iterator[Segment]:
        lead = 0
        while lead in by_first:
            yield by_first[lead]
            lead = by_first[lead].stop

    def sound(self, batch: int) -> list[Segment]:
        """The segments of a batch up to the first with a damaged file; later ones are removed."""
        chain = list(self._chain({segment.first: segment for segment in self._listed(f"{batch:06d}")}))
        for number, segment in enumerate(chain):
            if segment not in self._sound and not self._is_whole(segment):
                for later in chain[number:]:
                    self.parts.forget(later.name)
                return chain[:number]
            self._sound.add(segment)
        return chain

    def _is_whole(self, segment: Segment) -> bool:
        """Whether a segment and its files are as they were made; a file that several name is read once."""
        content = self.parts.read(segment.name, check=False)
        if content is None:
            return False
        for name, checksum in content[1].items():
            path = self.parts.root / name
            if not path.is_file() or ((name, checksum) not in self._whole and sha256(path) != checksum):
                return False
            self._whole.add((name, checksum))
        return True

    def ahead(self, batch: int, after: int, length: int) -> Iterator[Segment]:
        """The segments that a batch still needs after `after` leads, each at most `length` long."""
        for first in range(after, self.steps, length):
            yield Segment(batch, first, min(first + length, self.steps))

    def write(self, segment: Segment, arrays: Mapping[str, np.ndarray], checksums: Mapping[str, str]) -> None:
        """Mark a segment as made; arguments as of `Parts.write`."""
        self.parts.write(segment.name, arrays, checksums)
        self._sound.add(segment)

    def read(self, segment: Segment) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """(arrays, checksums) of a segment; OSError where it is gone."""
        content = self.parts.read(segment.name, check=segment not in self._sound)
        if content is None:
            raise OSError(f"{self.parts.folder / segment.name}.npz was whole and is not any more; run this again.")
        return content

    def files(self, batch: int) -> dict[str, str] | None:
        """The sha256 of the files of a batch, by name; None where it is not complete."""
        records = self._records(batch)
        if not records or records[-1][0].stop < self.steps:
            return None
        return {name: checksum for _, _, checksums in records for name, checksum in checksums.items()}

    def rename(self, batch: int, files: Mapping[str, tuple[str, str]]) -> None:
        """Let the records of a batch name other files. files: name and sha256 of each, by the name before."""
        for segment, arrays, checksums in self._records(batch):
            renamed = dict(files.get(name, (name, checksum)) for name, checksum in checksums.items())
            if renamed != checksums:
                self.parts.write(segment.name, arrays, renamed)

    def _records(self, batch: int) -> list[tuple[Segment, Arrays, dict[str, str]]]:
        """The segments of a batch from lead 0 without a gap, each with its content, as far as they can be read."""
        records = []
        for segment in self._chain({segment.first: segment for segment in self._listed(f"{batch:06d}")}):
            content = self.parts.read(segment.name, check=False)
            if content is None:
                break
            records.append((segment, *content))
        return records

    def written(self) -> tuple[int, list[int]]:
        """The number of complete batches, and the leads that others have reached, by the names of files alone."""
        stops = [chain[-1].stop for chain in self.chains().values() if chain]
        return sum(stop == self.steps for stop in stops), [stop for stop in stops if stop < self.steps]

    def absent(self) -> list[int]:
        """The batches that are not complete on disk; once all seem to be, their files are checked."""
        chains = self.chains()
        lacking = [batch for batch, chain in chains.items() if not chain or chain[-1].stop < self.steps]
        if lacking:
            return lacking
        return [batch for batch, chain in chains.items() if {*chain} - self._sound and self.sound(batch) != chain]


Arrays = dict[str, np.ndarray]
Perturbation = Callable[[np.ndarray, tuple[State, ...], range], tuple[State, ...]]
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


def known_leads(archive: Archive, layout: Layout) -> int:
    """Return the number of leads up to the last of which the truth is known, for some initial time without a gap."""
    valid, until = layout.valid_times, unbroken_until(archive.times, layout.inits)
    with_truth = np.flatnonzero((archive.has(valid) & (valid <= until[:, None])).any(axis=0))
    return int(with_truth[-1]) + 1 if with_truth.size else 0


def forcings(
    archive: Archive,
    inits: np.ndarray,
    leads: range,
    device: torch.device | str,
    other: OtherForecast | None = None,
) -> Iterator[State]:
    """Yield what is prescribed at the valid times of each lead, in timesteps, on a device.

    other: another forecast that tells some of it, as at the boundary of a limited area; default, the archive.
    """
    world = archive.world
    if archive.in_memory:  # read in one go, not a time at a time
        for init in inits:
            archive.load(tuple(str(world.after(init, lead)) for lead in (leads.start - 1, leads.stop - 1)))
    for lead in leads:
        forcing = archive.forcing(world.after(inits, lead), inits)
        yield (forcing if other is None else other.prescribed(forcing, archive, inits, lead)).to(device)


@dataclass(frozen=True)
class ForecastJob:
    """Hold a forecast to be made, everything opened and checked.

    scorecard: makes empty scores of the leads first .. stop - 1, None where none of their truth is known. ledger: makes
    empty budgets (leads, first, maps=) of so many leads from number `first` on. settings: all that the numbers depend
    on. card: what else the manifest records. ranges: bounds by variable name that override the table of physical
    ranges. segment: leads after which a rollout is saved, whole chunks. scheme, intervals, seed, precision: as in
    `Rollout`. perturbation: makes the initial States of members, None where all start alike. other: another forecast
    that tells forcings, as at the boundary of a limited area, None for the archive. drift: what is done where
    a forecast leaves what the run was trained on: mark, refuse or ignore.
    """

    folder: Path
    step: Stepper
    archive: Archive
    layout: Layout
    writer: Writer
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
    perturbation: Perturbation | None = None
    other: OtherForecast | None = None
    drift: str = "mark"

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
    """Roll out, write, check and score one piece of a job: some members of some initial times, a segment at a time.

    warn: called with a sentence where the forecast leaves its physical range, or what the run was trained on. warned:
    the kinds of the latter of which other pieces have warned, and this one does not again.
    """

    def __init__(self, job: ForecastJob, batch: int, warn: Callable[[str], None], warned: set[str]) -> None:
        self.job, self.batch, self.warn, self.warned = job, batch, warn, warned
        rows, members = job.layout.pieces[batch]
        self.is_first = members.start == 0  # scores, budgets and pairs are those of the first group of members
        self.inits = job.layout.inits[rows]
        self.until = unbroken_until(job.archive.times, self.inits)
        history = initial_states(job.archive, self.inits, job.device)
        starts = history if job.perturbation is None else job.perturbation(self.inits, history, members)
        self.rollout = Rollout(
            job.step,
            job.world,
            starts,
            members=members,
            seed=job.seed,
            scheme=job.scheme,
            intervals=job.intervals,
            precision=job.precision,
        )
        self.watch = None if job.drift == "ignore" else Watch(job.world, self.rollout.start)
        self.truth_before = history[-1]  # the truth one timestep earlier
        self.carried: dict[str, Arrays] = {source: {} for source in SOURCES}  # of the ledgers
        self.is_sound = True

    def make(self, segment: Segment, report: Callable[[int], None]) -> tuple[Arrays, dict[str, str]]:
        """Make one segment; (its sums and, unless it is the last, what the next depends on; checksums of its files).

        report: called with the number of each lead.
        """
        job, world = self.job, self.job.world
        checks = Checks(world, job.ranges)
        card = job.scorecard(segment.first, segment.stop) if self.is_first else None
        ledgers = job.ledgers(segment.stop - segment.first, segment.first)
        for source, ledger in ledgers.items():
            ledger.restore(self.carried[source], job.device)
        pairs = 0
        leads = range(segment.first + 1, segment.stop + 1)
        prescribed = forcings(job.archive, self.inits, leads, job.device, job.other)
        recording = ledgers["forecast"].record_corrections(job.step) if self.is_first else nullcontext()
        with torch.inference_mode(), recording:
            for lead, state in enumerate(self.rollout.states(prescribed), start=segment.first):
                contents = ledgers["forecast"].contents(state)
                if not checks.add(lead, state, contents) and self.is_sound:
                    self.is_sound = False
                    self.warn(f"At lead {lead_text(world, lead)} the forecast left its physical range or became NaN.")
                self._look(lead, state)
                job.writer.write(self.batch, lead, state.values.float().cpu().numpy())
                truth = self._score(card, lead - segment.first, state)
                pairs += 0 if truth is None else len(truth.time)
                if self.is_first:
                    ledgers["forecast"].add(lead, state, contents)
                    self._add_truth(ledgers["truth"], lead, state, truth)
                report(lead)
        arrays = checks.arrays() | {"pairs": np.array(pairs)}
        for source, ledger in ledgers.items() if self.is_first else ():
            arrays |= prefixed(f"{source} budgets", ledger.partial())
        if card is not None and not job.layout.is_grouped:
            arrays |= prefixed("scores", card.partial())
        if self.watch is not None:
            arrays |= prefixed("watch", self.watch.arrays())
        if segment.stop < job.layout.steps:
            arrays |= prefixed("rollout", self.rollout.arrays()) | state_arrays(self.truth_before, "state/truth")
            for source, ledger in ledgers.items():
                arrays |= prefixed(f"{source} carried", ledger.carried_state())
        return arrays, job.writer.finish(self.batch)

    def _look(self, lead: int, state: State) -> None:
        """Warn where the forecasts have left what the run was trained on; ValueError where they are to stop there."""
        departures = self.watch.add(lead, state) if self.watch is not None else {}
        for kind, sentence in departures.items():
            if self.job.drift == "refuse":
                raise ValueError(f"{sentence} guards.drift=mark goes on and says so in the results.")
            if kind not in self.warned:
                self.warn(sentence)
        self.warned.update(departures)

    def _score(self, card: LeadScores | None, row: int, state: State) -> State | None:
        """Add the forecasts whose truth is at hand (up to the time `until` of each) to the scores; that truth."""
        archive = self.job.archive
        has_truth = archive.has(state.time) & (state.time <= self.until)
        if card is None or not has_truth.any():
            return None
        if not has_truth.all():
            rows = torch.from_numpy(np.flatnonzero(has_truth)).to(state.values.device)
            values = state.values.index_select(state.channel_axis - 1, rows)
            state = replace(state, values=values, time=state.time[has_truth])
        truth = archive.states(state.time, card.variables).to(state.values.device)
        if not self.job.layout.is_grouped:  # the scores of an ensemble need all members
            card.add(state.select(card.variables.names), truth, row)
        return truth

    def _add_truth(self, ledger: LeadBudgets, lead: int, state: State, truth: State | None) -> None:
        """Add the truth of a lead to its ledger, as long as all predicted variables of it are known."""
        origin = state.origin
        assert origin is not None  # a Step made it
        usable = truth is not None and truth.variables == state.variables and np.array_equal(truth.time, state.time)
        if truth is None or not usable or not np.array_equal(self.truth_before.time, origin.before.time):
            ledger.add_missing(lead, len(state.time))
            return
        before = Origin(origin.start, self.truth_before, origin.forcing)
        ledger.add(lead, replace(truth, origin=before))
        self.truth_before = truth

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue after a segment that is not the last. arrays: those that `make` returned for it."""
        self.rollout.restore(within(arrays, "rollout"))
        self.truth_before = state_from_arrays(arrays, "state/truth", self.job.world, self.rollout.start)
        if self.watch is not None and "watch/told" in arrays:
            self.watch.restore(within(arrays, "watch"))
        self.carried = {source: within(arrays, f"{source} carried") for source in SOURCES}


def prefixed(name: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The same arrays under the names `name/...`."""
    return {f"{name}/{key}": array for key, array in arrays.items()}


def within(arrays: Mapping[str, np.ndarray], name: str) -> Arrays:
    """The arrays under the names `name/...`, without this prefix."""
    return {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}
