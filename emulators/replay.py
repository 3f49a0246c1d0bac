"""Replay: a training that goes on from its own predictions, so that far leads are learnt one short rollout at a time.

    x_r(n) = prediction of row r at optimiser step n - steps    with a chance of `share`, else a state of the data

The rollout of row r of the batch at optimiser step n starts from x_r(n) and is compared with the data of its times. So
a chain of steps reaches as far from the data as a long rollout would, in the memory of a short one, by predictions of
weights that are `steps` old. Replay buffers train Aurora for long leads (Bodnar et al. 2024, arXiv 2405.13063); there
predictions are drawn from the buffer at random, here they return in order, so that the windows of a batch are known
before it is made: they are a function of the seed and the number of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from emulators.state import State
    from emulators.world import World

NEVER = -(2**63)  # seconds at which there are no data


@dataclass(frozen=True)
class Replay:
    """Say how often a training goes on from its own predictions.

    share: chance of a sample to do so, above 0 and below 1. steps: optimiser steps from a prediction to the rollout
    that starts there; the predictions of so many batches are kept. leads: timesteps that a start may lie from the data.
    """

    share: float
    steps: int
    leads: int

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.steps < 1 or self.leads < 1:
            raise ValueError(
                "objective.replay must be a chance from 0 to below 1, replay_steps and replay_leads at least 1; got "
                f"{self.share}, {self.steps} and {self.leads}."
            )

    def bytes(self, world: World, batch_size: int) -> int:
        """The size of a full buffer in bytes. batch_size: samples an optimiser step."""
        return 4 * self.steps * batch_size * world.history * world.prognostic.size * world.grid.size


class ReplayBuffer:
    """Keep the States with which the forecasts of the latest batches ended, in the processor's memory.

    All processes keep all of them, so that any can save them, and any number can go on. replay: None: nothing is kept.
    A State is kept with its record: the times of the history in seconds, and how many timesteps it lies from the data.
    """

    def __init__(self, replay: Replay | None) -> None:
        self.replay, self.step = replay, -1
        self.slots: dict[int, tuple[Tensor, Tensor]] = {}  # values (row, history, channel, *grid), records
        self.made: dict[int, tuple[Tensor, Tensor]] = {}  # by row, of the optimiser step that is being made
        self.leads: dict[int, int] = {}  # of the starts of its rows

    @property
    def slot(self) -> int:
        """Where the batch is that the optimiser step at hand goes on from, and that it replaces."""
        return self.step % self.replay.steps if self.replay else 0

    def at(self, step: int) -> None:
        """Know the number of the optimiser step that is about to be made, or goes on with another pass."""
        if step != self.step:
            self.step, self.made, self.leads = step, {}, {}

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
        self.leads |= {row: int(records[row, -1]) for row, kept in zip(rows, is_kept, strict=True) if kept}
        kept = values[places]
        return tuple(_joined(state, kept[:, number], is_kept) for number, state in enumerate(history))

    def note(self, memory: tuple[State, ...], rows: Sequence[int], length: int) -> None:
        """Take the last States of the forecasts of one pass, as many as the history; length: timesteps from the start.

        Each State is (batch, channel, *grid).
        """
        values = torch.stack([state.values.detach() for state in memory], dim=1)
        leads = torch.tensor([self.leads.get(row, 0) + length for row in rows])
        records = torch.cat([seconds_of(memory), leads[:, None]], dim=1)
        self.made |= {row: (values[k], records[k]) for k, row in enumerate(rows)}

    def follow(self) -> None:
        """Keep what all passes and processes made of an optimiser step, in place of what it was made from."""
        if not self.made or self.replay is None:
            return
        rows = torch.tensor(list(self.made))
        values, records = (torch.stack(parts) for parts in zip(*self.made.values(), strict=True))
        self.made = {}
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
        found = [n for n in range(last) if f"values {n}" in tensors]
        self.slots = {n: (tensors[f"values {n}"].cpu(), tensors[f"records {n}"].cpu()) for n in found}


def seconds_of(states: Sequence[State]) -> Tensor:
    """The times of States of a batch in seconds since 1970, (batch, state)."""
    return torch.from_numpy(np.stack([state.time.astype(np.int64) for state in states], axis=1))


def _joined(state: State, kept: Tensor, chosen: Tensor) -> State:
    """A State with the values `kept` of the samples that are `chosen`, (batch,)."""
    mask = chosen.reshape(-1, *[1] * (kept.ndim - 1)).to(state.values.device)
    return replace(state, values=torch.where(mask, kept.to(state.values.device), state.values))


def gathered(part: Tensor) -> Tensor:
    """The rows of all processes one after another, (processes x row, ...); of one process, its own."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return part
    parts = [torch.empty_like(part) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, part.contiguous())
    return torch.cat(parts)
