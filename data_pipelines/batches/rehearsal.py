"""Batches in which some samples are not drawn anew: of old data (rehearsal), or after predictions (replay).

Continual training on new data alone forgets the old (catastrophic forgetting; rehearsal: Robins 1995,
doi 10.1080/09540099550039318). Each sample of an optimiser step is of the old data with a chance of its own, drawn from
the seed and the number of the sample: the same however a step is split into passes and processes, and in a training
that is resumed. The same holds of samples whose window begins where the forecast of an earlier one ended
(`emulators.objectives.forecast`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from data_pipelines.batches.loader import ShuffledBatches
from data_pipelines.batches.windows import Windows
from emulators.interfaces import Replay
from emulators.state import State, Window

DRAW = 20_261_129  # tells the draws of rehearsal from those of the order of windows
REPLAY_DRAW = DRAW + 1


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
            batches.sound(batches.indices(step)[mask], rollout)
            for batches, mask in ((self, ~is_old), (self.old, is_old))
            if mask.any()
        ]
        return parts[0] if len(parts) == 1 else merged(parts[0], parts[1], is_old)


def merged(new: Window, old: Window, is_old: np.ndarray) -> Window:
    """Return one batch of the samples of two, in the order that `is_old`, (batch,), tells."""
    return Window(
        *(
            tuple(map(lambda new_state, old_state: _merged(new_state, old_state, is_old), *sides))
            for sides in ((new.history, old.history), (new.target, old.target), (new.forcing, old.forcing))
        )
    )


def _merged(new: State, old: State, is_old: np.ndarray) -> State:
    values = new.values.new_empty((is_old.size, *new.values.shape[1:]))
    time = np.empty(is_old.size, dtype=new.time.dtype)
    for state, mask in ((new, ~is_old), (old, is_old)):
        values[torch.as_tensor(mask)], time[mask] = state.values, state.time
    return replace(new, values=values, time=time)


class ReplayedBatches(ShuffledBatches):
    """Iterate endlessly over batches of windows, some of which begin where the forecast of an earlier one ended.

    windows: those that are drawn; those that follow a forecast may begin at any time of their period. samples: of an
    optimiser step. length: timesteps of the rollout at an optimiser step. The rest is as in ShuffledBatches.
    """

    def __init__(
        self,
        windows: Windows,
        batch_size: int,
        *,
        replay: Replay,
        samples: int,
        length: Callable[[int], int],
        **options: Any,
    ) -> None:
        self.fresh, self.replay = ShuffledBatches(windows, 1, **options), replay
        self.samples, self.length = samples, length
        every = Windows(windows.archive, windows.period, rollout=windows.rollout)
        firsts = every.positions[:, 0]
        self._places = np.searchsorted(firsts, windows.positions[:, 0])
        following = np.minimum(np.searchsorted(firsts, every.positions[:, 1]), len(firsts) - 1)
        self._next = np.where(firsts[following] == every.positions[:, 1], following, -1)
        super().__init__(every, batch_size, **options)

    def drawn(self, sample: int) -> int:
        """Return the window of a sample: that after the chain of forecasts that it goes on, or one drawn anew."""
        gap, chain = self.replay.steps * self.samples, [sample]
        while chain[-1] >= gap and self.continues(chain[-1]):
            chain.append(chain[-1] - gap)
        index, lead = self._places[self.fresh.drawn(chain.pop())], 0
        for number in reversed(chain):
            length = self.length(number // self.samples - self.replay.steps)
            index, lead = self._later(index, length), lead + length
            if index < 0 or lead > self.replay.leads:
                index, lead = self._places[self.fresh.drawn(number)], 0
        return int(index)

    def continues(self, sample: int) -> bool:
        """Return whether a sample is to go on from a prediction, where there is one."""
        return bool(np.random.default_rng([self.seed, REPLAY_DRAW, sample]).random() < self.replay.share)

    def _later(self, index: int, timesteps: int) -> int:
        """Return the window so many timesteps later, -1 where the period has none."""
        for _ in range(timesteps):
            index = self._next[index] if index >= 0 else -1
        return index

    def facts(self) -> dict[str, str]:
        """Describe where fields are read from, in what order, and how many samples go on from predictions."""
        replay = self.replay
        return super().facts() | {
            "order": self.fresh.randomness,
            "replayed": f"{replay.share:.0%} of the samples go on from predictions of {replay.steps} steps before, at "
            f"most {replay.leads} timesteps from the data",
        }
