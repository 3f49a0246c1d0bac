"""The rollout of one batch of initial times: written, checked and scored as it is made, a segment at a time.

Whatever the next lead depends on is in the file of a segment, and a rollout always goes on from what is there: one that
was killed and one that was not take the same way to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch

from data_pipelines.conventions.durations import unbroken_until
from data_pipelines.forecasts.checks import Checks, lead_text
from data_pipelines.forecasts.segments import Segment, Segments
from emul.forecasting.job import Job
from emul.terminal.console import warn
from emulators.rollout import ensemble, generators, path
from emulators.state import Origin, State
from emulators.verification.budget_ledger import Ledger
from emulators.verification.scorecard import Scorecard

Arrays = dict[str, np.ndarray]
SOURCES = ("forecast", "truth")


class Rollout:
    """One batch on its way. lead: how many leads are made.

    memory: the States that the next one is made of; known: the truth one timestep earlier; draws: the generators of the
    members; running: the accounts that the ledgers go on with.
    """

    def __init__(self, job: Job, batch: int) -> None:
        self.job, self.batch, self.lead = job, batch, 0
        self.inits = job.layout.inits[job.layout.batches[batch]]
        self.until = unbroken_until(job.archive.times, self.inits)
        history = tuple(state.to(job.device) for state in job.archive.history(self.inits))
        members = job.layout.members
        self.known = history[-1]
        self.memory = ensemble(history, members) if members else history
        self.start = self.memory[-1]
        self.draws = generators(job.seed, range(members), self.inits)
        self.running: dict[str, Arrays] = {source: {} for source in SOURCES}
        self.is_sound = True

    def states(self, stop: int) -> Iterator[State]:
        """The States at the leads up to number `stop`, this one not among them; the memory goes with them."""
        job, world = self.job, self.job.world
        leads = range(self.lead + 1, stop + 1)
        if job.archive.in_memory:  # in one go, not a time at a time
            for init in self.inits:
                job.archive.load(tuple(str(world.after(init, lead)) for lead in (self.lead, stop)))
        forcings = (job.archive.forcing(world.after(self.inits, lead)).to(job.device) for lead in leads)
        for state, memory in path(job.path, self.step, self.memory, forcings, job.intervals, after=self.lead):
            self.memory = memory
            yield state
            self.lead += 1

    def step(self, memory: tuple[State, ...], forcing: State) -> State:
        """One step in the precision of the job; States and what is made of them stay in 32 bits."""
        told = {"generator": self.draws} if self.draws else {}
        with torch.autocast(torch.device(self.job.device).type, torch.bfloat16, enabled=self.job.precision != "32"):
            return self.job.step(memory, forcing, **told)

    def made(self, segment: Segment, report: Callable[[int], None]) -> tuple[Arrays, dict[str, str]]:
        """Make a segment; (what was gathered of it, and how to go on, where that is still to be; checksums)."""
        job, world, count = self.job, self.job.world, segment.stop - segment.first
        checks, card = Checks(world, job.ranges), job.scorecard(segment.first, segment.stop)
        ledgers = {
            source: job.ledger(count, segment.first, maps=job.correction_maps and source == "forecast").restore(
                self.running[source], job.device
            )
            for source in SOURCES
        }
        pairs = 0
        with torch.inference_mode(), ledgers["forecast"].record_corrections(job.step):
            for state in self.states(segment.stop):
                if not checks.add(self.lead, state) and self.is_sound:
                    self.is_sound = False
                    warn(f"At lead {lead_text(world, self.lead)} the forecast left its physical range or became NaN.")
                job.writer.write(self.batch, self.lead, state.values.float().cpu().numpy())
                truth = self.score(card, self.lead - segment.first, state)
                pairs += 0 if truth is None else len(truth.time)
                self.account(ledgers, state, truth)
                report(self.lead)
        arrays = checks.arrays() | {"pairs": np.array(pairs)}
        for source, ledger in ledgers.items():
            arrays |= under(f"{source} budgets", ledger.partial())
        if card is not None:
            arrays |= under("scores", card.partial())
        if segment.stop < job.layout.steps:
            arrays |= under("state", self.state(ledgers))
        return arrays, job.writer.finish(self.batch)

    def score(self, card: Scorecard | None, row: int, state: State) -> State | None:
        """Add the forecasts whose truth is at hand (to the time `until` of each) to the scorecard; that truth."""
        archive = self.job.archive
        there = archive.has(state.time) & (state.time <= self.until)
        if card is None or not there.any():
            return None
        if not there.all():
            state = replace(state, values=state.values[..., torch.from_numpy(there), :, :, :], time=state.time[there])
        truth = archive.states(state.time, card.variables).to(state.values.device)
        card.add(state.select(card.variables.names), truth, row)
        return truth

    def account(self, ledgers: Mapping[str, Ledger], state: State, truth: State | None) -> None:
        """Add a lead to the ledgers: the forecast, and the truth while all that is predicted is known of it."""
        ledgers["forecast"].add(self.lead, state)
        origin = state.origin
        assert origin is not None  # a Step made it
        whole = truth is not None and truth.variables == state.variables and np.array_equal(truth.time, state.time)
        if truth is None or not whole or not np.array_equal(self.known.time, origin.before.time):
            ledgers["truth"].add_missing(self.lead, len(state.time))
            return
        ledgers["truth"].add(self.lead, replace(truth, origin=Origin(origin.start, self.known, origin.forcing)))
        self.known = truth

    def state(self, ledgers: Mapping[str, Ledger]) -> Arrays:
        """All that the next lead depends on; the start is read anew."""
        arrays = _plain("known", self.known)
        for number, state in enumerate(self.memory):
            arrays |= _plain(f"memory {number}", state)
        if self.draws:
            arrays["draws"] = np.stack([generator.get_state().numpy() for generator in self.draws])
        for source, ledger in ledgers.items():
            arrays |= under(f"{source} running", ledger.carried_state())
        return arrays

    def go_on(self, segment: Segment, arrays: Mapping[str, np.ndarray]) -> None:
        """Stand where `segment` ended; arrays: what `made` gave of it."""
        state = within(arrays, "state")
        self.lead, self.known = segment.stop, self._state(state, "known")
        count = sum(name.startswith("memory ") and name.endswith(" time") for name in state)
        self.memory = tuple(self._state(state, f"memory {number}") for number in range(count))
        for generator, drawn in zip(self.draws, state.get("draws", ()), strict=True):
            generator.set_state(torch.from_numpy(drawn.copy()))
        self.running = {source: within(state, f"{source} running") for source in SOURCES}

    def _state(self, arrays: Mapping[str, np.ndarray], name: str) -> State:
        world, values = self.job.world, torch.from_numpy(arrays[f"{name} values"]).to(self.job.device)
        rank = len(world.grid.shape)
        variables = world.predicted if values.shape[-1 - rank] == world.predicted.size else world.prognostic
        # Of a past State nothing but its start is asked for.
        origin = Origin(self.start, self.start, self.start) if arrays[f"{name} made"] else None
        return State(values, variables, arrays[f"{name} time"], rank, origin)


def roll_out(job: Job, segments: Segments, batch: int, report: Callable[[int], None]) -> Iterator[Segment]:
    """Make what is missing of one batch; the segments as they are written."""
    chain = segments.sound(batch)
    if chain and chain[-1].stop == job.layout.steps:
        return
    rollout = Rollout(job, batch)
    if chain:
        rollout.go_on(chain[-1], segments.read(chain[-1])[0])
    for segment in segments.ahead(batch, rollout.lead, job.segment):
        arrays, checksums = rollout.made(segment, report)
        segments.write(segment, arrays, checksums)
        if segment.stop < job.layout.steps:
            rollout.go_on(segment, arrays)
        yield segment


def under(name: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The same arrays, called `name/...`."""
    return {f"{name}/{key}": array for key, array in arrays.items()}


def within(arrays: Mapping[str, np.ndarray], name: str) -> Arrays:
    """Those of the arrays that are called `name/...`, without that."""
    return {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}


def _plain(name: str, state: State) -> Arrays:
    values, made = np.ascontiguousarray(state.values.cpu().numpy()), np.array(state.origin is not None)
    return {f"{name} values": values, f"{name} time": state.time, f"{name} made": made}
