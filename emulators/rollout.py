"""Rollouts: States lead by lead, by one step after another, over several intervals, and with members.

    rollout      x(n) = step(x(n - 1), ...)
    aggregated   x(n) = step(x(n - k)),   k the last of the intervals that n is made of, longest first
    averaged     x(n) = laws(mean over k that divide n of x_k(n)),   x_k(n) = step(x_k(n - k))

The second keeps steps few (Pangu-Weather: Bi et al. 2023, doi 10.1038/s41586-023-06185-3), the third averages over all
combinations of intervals (Stormer: Nguyen et al. 2024, arXiv 2312.03876). A step sees interval and lead from the times
of the States that it is given. The mean of States that obey a law need not obey it: the constraints of the step are
applied to it again, with the mean at the lead before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from emulators.state import Origin, State
from emulators.variables import VariableSet
from emulators.world import World

Memory = tuple[State, ...]
Stepper = Callable[..., State]  # (memory, forcing, **conditioning) -> State
SCHEMES = ("rollout", "aggregated", "averaged")


@runtime_checkable
class Lawful(Protocol):
    """Describe a step that knows its intervals and its constraints."""

    def refuse_intervals(self, intervals: Collection[int]) -> None:
        """Raise ValueError where steps over one of these, in timesteps, cannot be made."""

    def constrained(self, before: State, after: State, forcing: State) -> State:
        """`after` as the constraints leave it."""
        ...


@runtime_checkable
class Drawing(Protocol):
    """Describe a step that knows whether it draws from a generator."""

    is_random: bool


@runtime_checkable
class Shared(Protocol):
    """Describe a step whose members have networks of their own."""

    def of(self, numbers: range) -> Stepper:
        """Return the step of some of the members."""


PRECISIONS = ("32", "bf16-mixed")


def known_precision(name: str) -> str:
    """Return the name of a precision of steps; ValueError for an unknown one."""
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got '{name}'.")
    return name


def rollout(step: Stepper, history: Memory, forcings: Iterable[State], **conditioning: Any) -> Iterator[State]:
    """Yield the States at lead 1, 2, ..., one for each forcing; memory use does not grow with the lead.

    conditioning: passed to every step: `generator`, `labels`, `scalars`, as in `Step.forward`.
    """
    for forcing in forcings:
        state = step(history, forcing, **conditioning)
        history = (*history[1:], state)
        yield state


class Rollout:
    """Roll a batch of initial States forward, and hold all that the next lead depends on.

    step: a Step, or another callable (memory, forcing, **conditioning) -> State. history: the known States, oldest
    first, (batch, channel, *grid), or (member, batch, channel, *grid) where members start apart. members: numbers of
    members, or how many; 0 for a single forecast; each member draws from a generator seeded by `seed`, its number and
    its initial time. scheme, intervals: as in `rollout_over_intervals`.
    precision: of the step, "32" or "bf16-mixed"; the States stay float32. lead: number of leads completed.
    """

    def __init__(
        self,
        step: Stepper,
        world: World,
        history: Memory,
        *,
        members: int | range = 0,
        seed: int = 0,
        scheme: str = "rollout",
        intervals: Sequence[int] = (1,),
        precision: str = "32",
    ) -> None:
        numbers = range(members) if isinstance(members, int) else members
        self.step = step.of(numbers) if isinstance(step, Shared) and numbers else step
        self.world, self.scheme, self.intervals = world, scheme, tuple(intervals)
        refuse_scheme(scheme, intervals, len(history))
        if isinstance(step, Lawful):
            step.refuse_intervals(self.intervals)
        self.is_mixed = known_precision(precision) != PRECISIONS[0]
        has_members = history[-1].values.ndim > 2 + history[-1].rank
        self.memory = ensemble(history, len(numbers)) if numbers and not has_members else history
        self.start, self.lead = self.memory[-1], 0
        draws = not isinstance(step, Drawing) or step.is_random
        self.generators = generators(seed, numbers if draws else (), self.start.time)

    def states(self, forcings: Iterable[State]) -> Iterator[State]:
        """Yield the States at the leads after `lead`, one for each forcing, without gradients."""
        conditioning = {"generator": self.generators} if self.generators else {}
        device = self.start.values.device.type
        plain = self.scheme == "rollout"
        advanced: Iterator[Any] = (
            rollout(self.step, self.memory, forcings, **conditioning)
            if plain
            else rollout_over_intervals(
                self.scheme, self.step, self.memory, forcings, self.intervals, after=self.lead, **conditioning
            )
        )
        while True:
            # Around each step, not around the loop: whoever takes the States keeps a precision of their own.
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=self.is_mixed):
                advance = next(advanced, None)
            if advance is None:
                return
            state, self.memory = (advance, (*self.memory[1:], advance)) if plain else advance
            self.lead += 1
            yield state

    def arrays(self) -> dict[str, np.ndarray]:
        """The memory and the generators as arrays, for `restore`; the initial States are not among them."""
        arrays = {"lead": np.array(self.lead)}
        for number, state in enumerate(self.memory):
            arrays |= state_arrays(state, f"memory {number}")
        if self.generators:
            arrays["generators"] = np.stack([generator.get_state().numpy() for generator in self.generators])
        return arrays

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from the `arrays` of a rollout of the same initial States."""
        count = sum(name.startswith("memory ") and name.endswith(" has origin") for name in arrays)
        self.lead = int(arrays["lead"])
        self.memory = tuple(
            state_from_arrays(arrays, f"memory {number}", self.world, self.start) for number in range(count)
        )
        for generator, saved in zip(self.generators, arrays.get("generators", ()), strict=True):
            generator.set_state(torch.from_numpy(saved.copy()))


def state_arrays(state: State, name: str) -> dict[str, np.ndarray]:
    """The values and times of a State, and of those that it carries, as arrays, for `state_from_arrays`."""
    arrays = {**_field_arrays(state, name), f"{name} has origin": np.array(state.origin is not None)}
    for number, carried in enumerate(state.carried):
        arrays |= _field_arrays(carried, f"{name} carried {number}")
        arrays[f"{name} carried {number} variables"] = np.array(json.dumps(carried.variables.plain()))
    return arrays


def _field_arrays(state: State, name: str) -> dict[str, np.ndarray]:
    return {f"{name} values": np.ascontiguousarray(state.values.cpu().numpy()), f"{name} time": state.time}


def _carried_state(arrays: Mapping[str, np.ndarray], name: str, start: State) -> State:
    """A State that another carries, saved by `state_arrays`."""
    values = torch.from_numpy(arrays[f"{name} values"]).to(start.values.device)
    variables = VariableSet.from_plain(json.loads(str(arrays[f"{name} variables"])))
    return State(values, variables, arrays[f"{name} time"], values.ndim - len(start.lead) - 1)


def state_from_arrays(arrays: Mapping[str, np.ndarray], name: str, world: World, start: State) -> State:
    """The State saved by `state_arrays`, of the predicted or prognostic variables of `world`, on the device of `start`.

    start: the State at the start of its rollout; the rest of its origin is not restored.
    """
    values = torch.from_numpy(arrays[f"{name} values"]).to(start.values.device)
    variables = world.predicted if values.shape[start.channel_axis] == world.predicted.size else world.prognostic
    origin = Origin(start, start, start) if arrays[f"{name} has origin"] else None
    count = sum(key.startswith(f"{name} carried ") and key.endswith(" variables") for key in arrays)
    carried = tuple(_carried_state(arrays, f"{name} carried {number}", start) for number in range(count))
    return State(values, variables, arrays[f"{name} time"], start.rank, origin, carried)


def generators(seed: int, members: Sequence[int], inits: np.ndarray) -> list[torch.Generator]:
    """One generator for each case, members first, each seeded by (seed, member, initial time).

    So a member's forecast does not depend on which other members and initial times are made with it.
    """
    times = np.asarray(inits, dtype="datetime64[s]").astype(np.int64) & (2**63 - 1)  # entropy is not negative
    seeds = [np.random.SeedSequence((seed, m, int(t))).generate_state(1, np.uint64)[0] for m in members for t in times]
    return [torch.Generator().manual_seed(int(entropy) >> 1) for entropy in seeds]


def ensemble(history: Memory, members: int) -> Memory:
    """Members that start alike: States (batch, ...) as (member, batch, ...), without a copy."""
    return tuple(replace(state, values=state.values.expand(members, *state.values.shape)) for state in history)


def refuse_scheme(scheme: str, intervals: Sequence[int], history: int = 1) -> None:
    """Raise ValueError for an unknown scheme, or intervals or a number of known States that it does not take.

    history: that number.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"Expected path to be one of {', '.join(SCHEMES)}; got '{scheme}'.")
    if scheme == "rollout" and set(intervals) != {1}:
        raise ValueError(
            f"A plain rollout goes timestep by timestep; got intervals {list(intervals)}. "
            "Take path=aggregated or path=averaged."
        )
    if 1 not in intervals or min(intervals) < 1:
        raise ValueError(f"Expected intervals of whole timesteps, 1 among them; got {list(intervals)}.")
    if scheme != "rollout" and history > 1:
        raise ValueError(f"Paths over several intervals start from one known state; this world has {history}.")


def rollout_over_intervals(
    scheme: str,
    step: Stepper,
    memory: Memory,
    forcings: Iterable[State],
    intervals: Sequence[int] = (1,),
    *,
    after: int = 0,
    **conditioning: Any,
) -> Iterator[tuple[State, Memory]]:
    """Yield the States at lead after + 1, after + 2, ... by steps of several intervals, each with its memory.

    scheme: `aggregated` or `averaged`. memory: all that later States are made of; at the start (after=0) the one known
    State. Resumed with the memory of lead `after`, it continues exactly. intervals: in timesteps.
    """
    function = _aggregated if scheme == "aggregated" else _averaged
    return function(step, memory, forcings, intervals, after, conditioning)


def _aggregated(
    step: Stepper,
    memory: Memory,
    forcings: Iterable[State],
    intervals: Sequence[int],
    after: int,
    conditioning: Mapping[str, Any],
) -> Iterator[tuple[State, Memory]]:
    """Reach each lead with the fewest steps, longest interval first; keep as many States as that interval is long."""
    for lead, forcing in enumerate(forcings, start=after + 1):
        state = step((memory[-_last(lead, intervals)],), forcing, **conditioning)
        memory = (*memory, state)[-max(intervals) :]
        yield state, memory


def _averaged(
    step: Stepper,
    memory: Memory,
    forcings: Iterable[State],
    intervals: Sequence[int],
    after: int,
    conditioning: Mapping[str, Any],
) -> Iterator[tuple[State, Memory]]:
    """Average at each lead the States of all intervals that divide it; each interval is rolled out by itself."""
    ordered = sorted(set(intervals))
    *branches, mean = memory if after else memory * (len(ordered) + 1)
    latest = dict(zip(ordered, branches, strict=True))
    for lead, forcing in enumerate(forcings, start=after + 1):
        arriving = [k for k in latest if lead % k == 0]
        for k in arriving:
            latest[k] = step((latest[k],), forcing, **conditioning)
        mean = _mean(step, mean, [latest[k] for k in arriving], forcing) if len(latest) > 1 else latest[1]
        yield mean, (*latest.values(), mean)


def _mean(step: Stepper, before: State, states: Sequence[State], forcing: State) -> State:
    """The mean of States that have come over several intervals, under the laws of a step of one timestep."""
    after = replace(states[0], values=torch.stack([state.values for state in states]).mean(0))
    if isinstance(step, Lawful):
        return step.constrained(before, after, forcing)
    return replace(after, origin=Origin(before.start, replace(before, origin=None), forcing))


def _last(lead: int, intervals: Sequence[int]) -> int:
    """The last interval of a lead that is made up of intervals, the longest first."""
    remainder, last = lead, 1
    for interval in sorted(intervals, reverse=True):
        if remainder >= interval:
            remainder, last = remainder % interval, interval
        if not remainder:
            break
    return last
