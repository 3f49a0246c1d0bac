"""Windows: sequences of consecutive States, one timestep apart, that serve as training examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from data_pipelines.batches.archive import Archive
from data_pipelines.conventions.durations import duration_text
from emulators.state import State, Window
from emulators.variables import VariableSet
from emulators.world import World


class Windows:
    """Hold the windows of `period` = [start, end], both inclusive, that lie wholly within it and span no gap in time.

    rollout: number of targets in a window. stride: keep every stride-th window. ValueError if there is none.
    """

    def __init__(self, archive: Archive, period: Sequence[str | int], *, rollout: int = 1, stride: int = 1) -> None:
        if rollout < 1 or stride < 1:
            raise ValueError(f"rollout and stride count at least 1; got rollout {rollout}, stride {stride}.")
        if archive.absent:
            raise ValueError(f"{archive.origin} lacks {', '.join(archive.absent)}; data to learn from must have all.")
        self.archive, self.period, self.rollout, self.stride = archive, tuple(period), rollout, stride
        self.positions = self._chains()[::stride]  # (window, history + rollout)
        if not len(self.positions):
            held = archive.within(period).size
            raise ValueError(
                f"The split {period[0]} to {period[1]} has no window of {self.world.history + rollout} times, one "
                f"timestep ({duration_text(self.world.timestep)}) apart; {archive.origin} holds {held} times there, "
                f"and goes from {archive.times[0]} to {archive.times[-1]}."
            )

    @property
    def world(self) -> World:
        return self.archive.world

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def init_times(self) -> np.ndarray:
        """The time of the newest known State of each window, datetime64[s]."""
        return self.archive.times[self.positions[:, self.world.history - 1]]

    def window(
        self,
        indices: np.ndarray,
        rollout: int | None = None,
        memory: Callable[[tuple[int, ...]], Tensor] = torch.empty,
    ) -> Window:
        """Read the windows numbered `indices` as one batch.

        rollout: number of targets, at most (and by default) that of these Windows. memory: called with a shape, returns
        the tensor to read the fields into.
        """
        world, known = self.world, self.world.history
        rollout = self.rollout if rollout is None else rollout
        if not 1 <= rollout <= self.rollout:
            raise ValueError(f"These windows hold 1 to {self.rollout} targets; got rollout {rollout}.")
        positions = self.positions[np.asarray(indices), : known + rollout].T
        fields = memory((*positions.shape, self.archive.variables.size, *world.grid.shape))
        self.archive.gather(positions.reshape(-1), fields.flatten(0, 1).numpy())
        times = self.archive.times[positions]

        def states(variables: VariableSet, numbers: range) -> tuple[State, ...]:
            channels = self.archive.channels(variables)
            return tuple(State(fields[n][:, channels], variables, times[n]) for n in numbers)

        targets = range(known, known + rollout)
        return Window(
            history=states(world.prognostic, range(known)),
            target=states(world.predicted, targets),
            forcing=states(world.forcing, targets),
        )

    def _chains(self) -> np.ndarray:
        """Find the positions of the States of every window, oldest first, shape (window, history + rollout)."""
        inside = np.zeros(self.archive.times.size + 1, dtype=bool)  # the last entry stands for a missing time, -1
        inside[self.archive.within(self.period)] = True
        following = np.append(self.archive.following, -1)
        chain = [np.flatnonzero(inside)]
        for _ in range(self.world.history + self.rollout - 1):
            chain.append(following[chain[-1]])
        table = np.stack(chain, axis=1)
        return table[inside[table].all(axis=1)]
