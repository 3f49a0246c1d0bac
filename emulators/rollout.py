"""Ways through time other than one step after another: over several intervals, and through several networks.

    aggregated   x(n) = step(x(n - k)),   k the last of the intervals that n is made of, longest first
    averaged     x(n) = mean over k that divide n of x_k(n),   x_k(n) = step(x_k(n - k))
    cascade      x(n) = step_s(x(n - 1)),  s the stage in whose leads n lies

The first keeps steps few (Pangu-Weather: Bi et al. 2023, doi 10.1038/s41586-023-06185-3), the second averages over the
ways there are (Stormer: Nguyen et al. 2024, arXiv 2312.03876), the third hands over to networks trained for later leads
(FuXi: Chen et al. 2023, doi 10.1038/s41612-023-00512-1). A step sees interval and lead from the times it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from emulators.state import State


def rollout(
    step: Callable[..., State], history: tuple[State, ...], forcings: Iterable[State], **told: Any
) -> Iterator[State]:
    """The States at lead 1, 2, ... as they are made, one for each forcing; memory does not grow with the lead.

    told: what the step is told at each: `generator`, `labels`, `scalars`, as `Step.forward` says.
    """
    for forcing in forcings:
        state = step(history, forcing, **told)
        history = (*history[1:], state)
        yield state


def generators(seed: int, members: Sequence[int], inits: np.ndarray) -> list[torch.Generator]:
    """One generator a case, members first, each seeded by (seed, member, initial time).

    A member of a forecast is what it is, whichever other members and initial times are made beside it.
    """
    times = np.asarray(inits, dtype="datetime64[s]").astype(np.int64) & (2**63 - 1)  # entropy is not negative
    seeds = [np.random.SeedSequence((seed, m, int(t))).generate_state(1, np.uint64)[0] for m in members for t in times]
    return [torch.Generator().manual_seed(int(entropy) >> 1) for entropy in seeds]


def ensemble(history: tuple[State, ...], members: int) -> tuple[State, ...]:
    """So many members that start alike: States (batch, ...) as (member, batch, ...), without a copy."""
    return tuple(replace(state, values=state.values.expand(members, *state.values.shape)) for state in history)


Stepper = Callable[[tuple[State, ...], State], State]
Memory = tuple[State, ...]
PATHS = ("rollout", "aggregated", "averaged")


def path(
    kind: str,
    step: Stepper,
    memory: Memory,
    forcings: Iterable[State],
    intervals: Sequence[int] = (1,),
    *,
    after: int = 0,
) -> Iterator[tuple[State, Memory]]:
    """The States at lead after + 1, after + 2, ... by `rollout`, `aggregated` or `averaged`, each with its memory.

    memory: all that later States are made of; at the start (after=0) the history. A path that is taken up with the
    memory of lead `after` goes on as if it had not been left. intervals: in timesteps.
    """
    if kind not in PATHS:
        raise ValueError(f"Expected path to be one of {', '.join(PATHS)}; got '{kind}'.")
    if kind == "rollout":
        if set(intervals) != {1}:
            raise ValueError(
                f"A plain rollout goes timestep by timestep; got intervals {list(intervals)}. "
                "Take path=aggregated or path=averaged."
            )
        return remembered(rollout(step, memory, forcings), memory)
    if 1 not in intervals or min(intervals) < 1:
        raise ValueError(f"Expected intervals of whole timesteps, 1 among them; got {list(intervals)}.")
    if len(memory) > 1 and not after:
        raise ValueError(f"Paths over several intervals start from one known state; this world has {len(memory)}.")
    return (aggregated if kind == "aggregated" else averaged)(step, memory, forcings, intervals, after)


def refuse_untold(step: Any, intervals: Collection[int]) -> None:
    """ValueError where steps are of several intervals, in timesteps, and the network is not told which."""
    if len(set(intervals)) > 1 and "interval" not in step.told:
        raise ValueError(
            f"{type(step.network).__name__} is not told the interval (its forward has no such keyword), and steps are "
            f"of {', '.join(map(str, sorted(set(intervals))))} timesteps."
        )


def remembered(states: Iterable[State], memory: Memory) -> Iterator[tuple[State, Memory]]:
    """Each State with the last of them, as many as `memory` has."""
    for state in states:
        memory = (*memory[1:], state)
        yield state, memory


def aggregated(
    step: Stepper, memory: Memory, forcings: Iterable[State], intervals: Sequence[int], after: int
) -> Iterator[tuple[State, Memory]]:
    """Each lead by as few steps as the longest interval first gives; it keeps no more States than that is long."""
    for lead, forcing in enumerate(forcings, start=after + 1):
        state = step((memory[-_last(lead, intervals)],), forcing)
        memory = (*memory, state)[-max(intervals) :]
        yield state, memory


def averaged(
    step: Stepper, memory: Memory, forcings: Iterable[State], intervals: Sequence[int], after: int
) -> Iterator[tuple[State, Memory]]:
    """Each lead as the mean of what every interval that divides it leads to, each going its own way."""
    chosen = sorted(set(intervals))
    ways = dict(zip(chosen, memory if after else memory * len(chosen), strict=True))
    for lead, forcing in enumerate(forcings, start=after + 1):
        arriving = [k for k in ways if lead % k == 0]
        for k in arriving:
            ways[k] = step((ways[k],), forcing)
        mean = torch.stack([ways[k].values for k in arriving]).mean(0)
        yield replace(ways[1], values=mean), tuple(ways.values())


def _last(lead: int, intervals: Sequence[int]) -> int:
    """The last interval of a lead that is made up of intervals, the longest first."""
    left, last = lead, 1
    for interval in sorted(intervals, reverse=True):
        if left >= interval:
            left, last = left % interval, interval
        if not left:
            break
    return last
