"""The plain objective: roll out, compare every lead with the truth, and backpropagate through the whole rollout.

L = (1 / n) sum_lead sum_loss  mean over the batch of loss(state, target)

Members of an ensemble start alike and go apart by what a network with noise draws; the loss compares them all with the
one truth. A network that writes a distribution, mean m and deviation s, is trained on it by two members, m - s and
m + s, of which the mean and the deviation of an ensemble are just these; m goes on to the next lead.

With a replay, some samples start from what an earlier step has forecast, so that far leads are learnt one short rollout
at a time:

    x_r(n) = prediction of row r at optimiser step n - steps    with a chance of `share`, else a state of the data

The rollout of row r of the batch at optimiser step n starts from x_r(n) and is compared with the data of its times. So
a chain of steps reaches as far from the data as a long rollout would, in the memory of a short one, by predictions of
weights that are `steps` old. Replay buffers train Aurora for long leads (Bodnar et al. 2024, arXiv 2405.13063); there
predictions are drawn from the buffer at random, here they return in order, so that the windows of a batch are known
before it is made: they are a function of the seed and the number of a sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emulators.interfaces import Loss, Network, Objective, Replay, optional
from emulators.layers.low_rank import adapters
from emulators.layers.sample_draws import sample_numbers
from emulators.rollout import ensemble, rollout
from emulators.state import Origin, State, Window
from emulators.world import World

SCORED = ("all", "last")
NEVER = -(2**63)  # seconds at which there are no data


class Forecast(Objective):
    """Train on forecasts of `rollout` timesteps.

    rollout: a length, or a curriculum [[optimiser step from which it holds, length], ...] such as [[0, 1], [5000, 2]].
    members: of the ensemble, the first axis of what the losses are given; 1: none, and no such axis; or a curriculum
    of members, which begins with single forecasts in U-Cast (arXiv 2604.09041). emission: the members are the two of
    the network's own distribution, of networks that have a method `emission`. gradient_steps: steps of a
    block, counted from the last one, beyond which no gradient goes back; None: the whole rollout. scored: `all` leads
    are compared with the truth, or the `last` one. replay, replay_steps, replay_leads: share, steps and leads of a
    Replay; 0: none. Of an ensemble the first member goes on, of a distribution its mean.
    """

    def __init__(
        self,
        world: World,
        *,
        rollout: int | Sequence[Sequence[int]] = 1,
        members: int | Sequence[Sequence[int]] = 1,
        emission: bool = False,
        gradient_steps: int | None = None,
        scored: str = "all",
        replay: float = 0.0,
        replay_steps: int = 8,
        replay_leads: int = 20,
    ) -> None:
        self.stages, self.sizes = curriculum("rollout", rollout), curriculum("members", members)
        if emission and self.sizes != {0: 1}:
            raise ValueError(
                f"objective.emission has two members of its own; got objective.members={members}: leave it."
            )
        if gradient_steps is not None and gradient_steps < 1:
            raise ValueError(f"objective.gradient_steps must be at least 1, or null; got {gradient_steps}.")
        if scored not in SCORED:
            raise ValueError(f"objective.scored must be {' or '.join(SCORED)}; got '{scored}'.")
        if emission and gradient_steps is not None:
            raise ValueError("objective.emission goes on with its mean: its gradient is not cut; leave gradient_steps.")
        self.emission, self.members = emission, self.sizes[0]
        self.gradient_steps, self.scored = gradient_steps, scored
        self.replay = Replay(replay, replay_steps, replay_leads) if replay else None
        self.buffer = ReplayBuffer(self.replay)

    @property
    def longest(self) -> int:
        """The greatest length the curriculum reaches."""
        return max(self.stages.values())

    def length(self, step: int) -> int:
        """The rollout length at optimiser step `step`."""
        return at_step(self.stages, step)

    def size(self, step: int) -> int:
        """The number of members at optimiser step `step`."""
        return at_step(self.sizes, step)

    def at(self, step: int) -> None:
        """Draw as many members as the curriculum asks for at optimiser step `step`."""
        self.members = self.size(step)
        self.buffer.at(step)

    def begin(self, step: Any) -> None:
        """Raise ValueError for a distribution that the network does not predict, or a rollout that it cannot make."""
        name, shortest = type(step.network).__name__, step.shortest_rollout
        if min(self.stages.values()) < shortest:
            raise ValueError(
                f"objective.rollout: expected {shortest} timesteps or more, as trained components step no sooner; got "
                f"{min(self.stages.values())}."
            )
        if self.replay and shortest > 1:
            raise ValueError("A replay does not keep what slow components were given so far; take objective.replay=0.")
        if self.emission and optional(step.network, Network, "emission") is None:
            raise ValueError(f"{name} writes no distribution; take objective=forecast, or model=climode.")
        if self.replay and "lead" in step.conditioning:
            raise ValueError(f"{name} is told the lead, which a replay does not keep; take objective.replay=0.")
        if self.replay and any(adapter.settings.goes_by_lead for adapter in adapters(step.network).values()):
            raise ValueError("An adapter of its own for each lead needs whole rollouts; take objective.replay=0.")

    def follow(self, step: Any) -> None:
        """Keep what the forecasts of this optimiser step ended with."""
        self.buffer.follow()

    def state(self) -> dict[str, Tensor]:
        """The predictions that samples may go on from."""
        return self.buffer.state()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with the predictions in a checkpoint."""
        self.buffer.restore(tensors)

    def __call__(self, step: Any, window: Window, losses: Mapping[str, Loss]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and its detached parts by loss and lead."""
        total, parts = torch.zeros((), device=window.history[-1].values.device), {}
        rows = sample_numbers() if self.replay else ()
        memory = self.buffer.starts(window.history, rows) if rows else window.history
        history = ensemble(memory, self.members) if self.members > 1 else memory
        states = (emissions if self.emission else self.states)(step, history, window.forcing)
        first = len(window.target) if self.scored == "last" else 1
        for lead, (state, target) in enumerate(zip(states, window.target, strict=True), start=1):
            for name, loss in losses.items() if lead >= first else ():
                value = loss(step.comparable(state, target), target).mean()
                parts[f"{name}_{lead}"] = value.detach()
                total = total + value / (len(window.target) - first + 1)
            memory = (*memory[1:], self.single(state, memory[-1])) if rows else memory
        if rows:
            self.buffer.note(memory, rows, len(window.target))
        return total, parts

    def single(self, state: State, before: State) -> State:
        """The State of one member, or the mean of a distribution, of the variables of the State before."""
        values = state.values.detach()
        if self.emission or self.members > 1:
            values = values.mean(0) if self.emission else values[0]
        return State(values, state.variables, state.time, state.rank).select(before.variables.names)

    def states(self, step: Any, history: tuple[State, ...], forcings: Sequence[State]) -> Iterator[State]:
        """Yield the States of a rollout whose gradient is cut into blocks; steps that none reaches build no graph."""
        block, length = self.gradient_steps, len(forcings)
        if block is None:
            return rollout(step, history, forcings)
        without = length - block if self.scored == "last" else 0
        numbers = iter(range(length))

        def advance(memory: tuple[State, ...], forcing: State) -> State:
            number = next(numbers)
            if (length - number) % block == 0:
                memory = tuple(state.detach() for state in memory)
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= without):
                return step(memory, forcing)

        return rollout(advance, history, forcings)


def curriculum(name: str, numbers: int | Sequence[Sequence[int]]) -> dict[int, int]:
    """{optimiser step from which it holds: number}, of one number or of pairs from step 0 on.

    A mapping is refused: composition merges it with that of the experiment below, which mixes two curricula.
    """
    pairs = [(0, numbers)] if isinstance(numbers, int) else list(numbers)
    is_paired = not isinstance(numbers, Mapping) and all(isinstance(p, Sequence) and len(p) == 2 for p in pairs)
    stages = dict(sorted((int(step), int(number)) for step, number in pairs)) if is_paired else {}
    if min(stages, default=1) != 0 or min(stages.values()) < 1:
        raise ValueError(
            f"objective.{name} must be at least 1, or a curriculum from step 0 on, such as [[0, 1], [5000, 2]]; "
            f"got {numbers}."
        )
    return stages


def at_step(stages: Mapping[int, int], step: int) -> int:
    """The number of a curriculum at an optimiser step."""
    return [number for start, number in stages.items() if start <= step][-1]


def emissions(step: Any, history: tuple[State, ...], forcings: Iterable[State]) -> Iterator[State]:
    """States (2, batch, channel, *grid), a deviation below and above the mean, both constrained; the mean goes on."""
    network, predicted = step.network, step.world.predicted
    for forcing in forcings:
        mean, deviation = (output.float() for output in network.emission(*step.inputs(history, forcing)))
        last = history[-1].select(step.world.prognostic.names)
        (before,) = ensemble((last,), 2)
        values = step.outputs(torch.cat([mean - deviation, mean + deviation]), before.values.flatten(0, 1))
        middle = values.unflatten(0, (2, -1)).mean(0)
        shift = step.truncation(middle) - middle  # of the mean: a deviation without its small scales may be negative
        after = State(values.unflatten(0, (2, -1)) + shift, predicted, forcing.time, last.rank)
        pair = step.constrained(before, after, forcing)
        yield pair
        origin = Origin(last.start, replace(last, origin=None), forcing)
        history = (*history[1:], replace(pair, values=pair.values.mean(0), origin=origin))


class ReplayBuffer:
    """Keep the States with which the forecasts of the latest batches ended, in the processor's memory.

    All processes keep all of them, so that any can save them, and any number can go on. replay: None: nothing is kept.
    A State is kept with its record: the times of the history in seconds, and how many timesteps it lies from the data.
    """

    def __init__(self, replay: Replay | None) -> None:
        self.replay, self.step = replay, -1
        self.slots: dict[int, tuple[Tensor, Tensor]] = {}  # values (row, history, channel, *grid), records
        self.pending: dict[int, tuple[Tensor, Tensor]] = {}  # by row, of the optimiser step that is being made
        self.leads: dict[int, int] = {}  # of the starts of its rows

    @property
    def slot(self) -> int:
        """Where the batch is that the optimiser step at hand goes on from, and that it replaces."""
        return self.step % self.replay.steps if self.replay else 0

    def at(self, step: int) -> None:
        """Know the number of the optimiser step that is about to be made, or goes on with another pass."""
        if step != self.step:
            self.step, self.pending, self.leads = step, {}, {}

    def starts(self, history: tuple[State, ...], rows: Sequence[int]) -> tuple[State, ...]:
        """The known States of a batch; those that the buffer has for a row and its times, in place of the data's.

        rows: numbers of the samples in the whole batch of the optimiser step.
        """
        if self.slot not in self.slots:
            return history
        values, records = self.slots[self.slot]
        places = torch.tensor(rows).clamp(max=len(records) - 1)
        is_kept = (places == torch.tensor(rows)) & (records[places, :-1] == seconds_of(history)).all(dim=1)
        if not is_kept.any():
            return history
        self.leads |= {row: int(records[row, -1]) for row, hit in zip(rows, is_kept, strict=True) if hit}
        replayed = values[places]
        return tuple(_joined(state, replayed[:, number], is_kept) for number, state in enumerate(history))

    def note(self, memory: tuple[State, ...], rows: Sequence[int], length: int) -> None:
        """Take the last States of the forecasts of one pass, as many as the history; length: timesteps from the start.

        Each State is (batch, channel, *grid).
        """
        values = torch.stack([state.values.detach() for state in memory], dim=1)
        leads = torch.tensor([self.leads.get(row, 0) + length for row in rows])
        records = torch.cat([seconds_of(memory), leads[:, None]], dim=1)
        self.pending |= {row: (values[k], records[k]) for k, row in enumerate(rows)}

    def follow(self) -> None:
        """Keep what all passes and processes made of an optimiser step, in place of what it was made from."""
        if not self.pending or self.replay is None:
            return
        rows = torch.tensor(list(self.pending))
        values, records = (torch.stack(parts) for parts in zip(*self.pending.values(), strict=True))
        self.pending = {}
        order, values, records = (gathered(part.to(values.device)).cpu() for part in (rows, values, records))
        values, records = values[order.argsort()], records[order.argsort()]
        is_usable = values.flatten(1).isfinite().all(dim=1) & (records[:, -1] <= self.replay.leads)
        self.slots[self.slot] = values, torch.where(is_usable[:, None], records, NEVER)

    def state(self) -> dict[str, Tensor]:
        """All that a training needs to go on exactly, by name, for `restore`."""
        parts = ("values", "records")
        return {f"{part} {n}": slot[k] for n, slot in self.slots.items() for k, part in enumerate(parts)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with the `state` of a training; without one, with nothing kept."""
        last = self.replay.steps if self.replay else 0
        slots = [n for n in range(last) if f"values {n}" in tensors]
        self.slots = {n: (tensors[f"values {n}"].cpu(), tensors[f"records {n}"].cpu()) for n in slots}


def seconds_of(states: Sequence[State]) -> Tensor:
    """The times of States of a batch in seconds since 1970, (batch, state)."""
    return torch.from_numpy(np.stack([state.time.astype(np.int64) for state in states], axis=1))


def _joined(state: State, replayed: Tensor, is_replayed: Tensor) -> State:
    """A State with the values `replayed` of the samples that are `is_replayed`, (batch,)."""
    mask = is_replayed.reshape(-1, *[1] * (replayed.ndim - 1)).to(state.values.device)
    return replace(state, values=torch.where(mask, replayed.to(state.values.device), state.values))


def gathered(part: Tensor) -> Tensor:
    """The rows of all processes one after another, (processes x row, ...); of one process, its own."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return part
    parts = [torch.empty_like(part) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, part.contiguous())
    return torch.cat(parts)
