"""Rehearsal: batches in which some samples come from the data that a network was trained on before.

Continual training on new data alone forgets the old (catastrophic forgetting; rehearsal: Robins 1995,
doi 10.1080/09540099550039318). Each sample of an optimiser step is of the old data with a chance of its own, drawn from
the seed and the number of the sample: the same however a step is split into passes and processes, and in a training
that is resumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from data_pipelines.batches.loader import ShuffledBatches
from data_pipelines.batches.windows import Windows
from emulators.state import State, Window

DRAW = 20_261_129  # tells the draws of rehearsal from those of the order of windows


@dataclass(frozen=True)
class Rehearsal:
    """Say which old data are rehearsed, and how often.

    share: chance of a sample to be of the old data, 0 (none) to below 1. run: folder of the run whose data they are;
    None: the run that the weights come from.
    """

    share: float = 0.0
    run: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"rehearsal.share is the chance of a sample, from 0 to below 1; got {self.share}.")


class RehearsedBatches(ShuffledBatches):
    """Iterate endlessly over shuffled batches of windows, some of which are of old data.

    old: windows of the old data, as long as the new ones. share: chance of a sample to be one of them. The rest is as
    in ShuffledBatches.
    """

    def __init__(self, windows: Windows, batch_size: int, *, old: Windows, share: float, **options: Any) -> None:
        self.old, self.share = ShuffledBatches(old, batch_size, **options), share
        super().__init__(windows, batch_size, **options)

    def divide(self, rank: int, ranks: int, *, pinned: bool = False) -> None:
        """Take the batches of process number `rank` of `ranks`, of both data."""
        super().divide(rank, ranks, pinned=pinned)
        self.old.divide(rank, ranks, pinned=pinned)

    def is_old(self, step: int) -> np.ndarray:
        """Return which samples of this rank's batch at `step` are of the old data, (batch,)."""
        first = (step * self.ranks + self.rank) * self.batch_size
        numbers = range(first, first + self.batch_size)
        return np.array([np.random.default_rng([self.seed, DRAW, n]).random() < self.share for n in numbers])

    def facts(self) -> dict[str, str]:
        """Describe where fields are read from, in what order, and how many are of the old data."""
        return super().facts() | {
            "rehearsed": f"{self.share:.0%} of the samples, from {len(self.old.windows):,} windows of the old data"
        }

    @property
    def memory_bytes(self) -> int:
        """Upper bound on the bytes of fields and batches, of both data."""
        return super().memory_bytes + self.old.memory_bytes

    def read(self, step: int, rollout: int | None) -> Window:
        """Read this rank's samples at `step`, each from its own data."""
        is_old = self.is_old(step)
        parts = [
            batches.sound(batches.indices(step)[chosen], rollout)
            for batches, chosen in ((self, ~is_old), (self.old, is_old))
            if chosen.any()
        ]
        return parts[0] if len(parts) == 1 else merged(parts[0], parts[1], is_old)


def merged(new: Window, old: Window, is_old: np.ndarray) -> Window:
    """Return one batch of the samples of two, in the order that `is_old`, (batch,), tells."""
    return Window(
        *(
            tuple(map(lambda one, other: _merged(one, other, is_old), *sides))
            for sides in ((new.history, old.history), (new.target, old.target), (new.forcing, old.forcing))
        )
    )


def _merged(new: State, old: State, is_old: np.ndarray) -> State:
    values = new.values.new_empty((is_old.size, *new.values.shape[1:]))
    time = np.empty(is_old.size, dtype=new.time.dtype)
    for state, chosen in ((new, ~is_old), (old, is_old)):
        values[torch.as_tensor(chosen)], time[chosen] = state.values, state.time
    return replace(new, values=values, time=time)
