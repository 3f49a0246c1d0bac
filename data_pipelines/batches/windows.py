"""Windows: sequences of consecutive States, one timestep apart, that serve as examples; initial times of forecasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from data_pipelines.conventions.durations import duration_text, initial_times, thinned, unbroken_until
from emulators.state import State, Window

if TYPE_CHECKING:
    from data_pipelines.batches.archive import Archive
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
            count = archive.within(period).size
            raise ValueError(
                f"The split {period[0]} to {period[1]} has no window of {self.world.history + rollout} times, one "
                f"timestep ({duration_text(self.world.timestep)}) apart; {archive.origin} holds {count} times there, "
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
        world, history = self.world, self.world.history
        rollout = self.rollout if rollout is None else rollout
        if not 1 <= rollout <= self.rollout:
            raise ValueError(f"These windows hold 1 to {self.rollout} targets; got rollout {rollout}.")
        positions = self.positions[np.asarray(indices), : history + rollout].T
        fields = memory((*positions.shape, self.archive.variables.size, *world.grid.shape))
        self.archive.gather(positions.reshape(-1), fields.flatten(0, 1).numpy())
        times = self.archive.times[positions]

        def states(variables: VariableSet, numbers: range) -> tuple[State, ...]:
            channels = self.archive.channels(variables)
            return tuple(State(fields[n][:, channels], variables, times[n], len(world.grid.shape)) for n in numbers)

        targets = range(history, history + rollout)
        return Window(
            history=states(world.prognostic, range(history)),
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


def forecast_inits(
    dates: str | Sequence[object] | None,
    archive: Archive,
    splits: Mapping[str, Sequence[str]],
    steps: int,
    every: str,
    warn: Callable[[str], None],
) -> np.ndarray:
    """Initial times, of `dates` or as `default_inits`; ValueError where the data lack what a forecast needs.

    dates: `latest` is the last time of the data.
    """
    if dates == "latest":
        inits = archive.times[-1:]
    else:
        inits = initial_times(dates) if dates else default_inits(archive, splits, steps, every, warn)
    refuse_missing_times(archive, inits, steps)
    return inits


def default_inits(
    archive: Archive, splits: Mapping[str, Sequence[str]], steps: int, every: str, warn: Callable[[str], None]
) -> np.ndarray:
    """Initial times from the test split, `every` so often, whose truth lies within it to the last lead.

    warn: called with a sentence where no truth reaches so far, and only the first time is taken.
    """
    if not splits.get("test"):
        raise ValueError(
            "These data have no test split to take initial times from; give init=2003-01-01, for instance."
        )
    period = splits["test"]
    world, times = archive.world, np.unique(archive.times[archive.within(period)])
    available = [archive.has(world.after(times, -back)) for back in range(world.history)]
    times = times[np.logical_and.reduce(available)]
    if not times.size:
        raise ValueError(f"The test split {period[0]} to {period[1]} holds no time to start from; give init=... .")
    complete = times[world.after(times, steps) <= np.minimum(times[-1], unbroken_until(archive.clock, times))]
    if not complete.size:
        warn(f"The lead is longer than the test split {period[0]} to {period[1]}; one forecast, from its first time.")
    return thinned(complete, every) if complete.size else times[:1]


def refuse_missing_times(archive: Archive, inits: np.ndarray, steps: int) -> None:
    """ValueError where the data lack a known state, or a forcing that only they can give, for these forecasts."""
    world = archive.world
    for back in range(world.history):
        archive.index(world.after(inits, -back))
    for variable in world.forcing:
        if variable.name in archive.absent:
            raise ValueError(f"Forcing '{variable.name}' is not in {archive.origin}; open data that have it.")
        if variable.name not in archive.dataset.data_vars or archive.matches_computed(variable):
            continue
        for lead in range(1, steps + 1):
            times = archive.source_times(variable, world.after(inits, lead), inits)
            present = archive.has(times)
            if not present.all():
                raise ValueError(
                    f"Forcing '{variable.name}' ends before the forecast does: nothing at {times[~present][0]} in "
                    f"{archive.origin}. Shorten lead, start earlier, or, where the data end there, keep the last value "
                    f"with persisted=[{variable.name}], or go through the last year again and again with "
                    f"repeated=[{variable.name}]."
                )
