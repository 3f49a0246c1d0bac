"""Batches of windows: in an endless order that is a pure function of the seed, or once through.

Batch n of rank r holds the samples (n * ranks + r) * batch_size + (0 ... batch_size - 1) of an endless row of
permutations, the k-th drawn by a generator seeded with (seed, k); so a training resumed at step n goes on exactly.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from data_pipelines.windows import Windows
from emulators.state import Window

AHEAD = 2  # batches made ready before they are asked for


class Batches:
    """An endless iterable of batched Windows; iteration begins at step `start`.

    rollout: targets a window, a number or a function of the step (default: that of `windows`, which is the most).
    waited: seconds that consumers have waited for data so far.
    """

    def __init__(
        self,
        windows: Windows,
        batch_size: int,
        *,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        ranks: int = 1,
        shuffle: bool = True,
        rollout: int | Callable[[int], int] | None = None,
    ) -> None:
        _refuse(batch_size, rank, ranks)
        self.windows, self.batch_size, self.seed, self.start = windows, batch_size, seed, start
        self.rank, self.ranks, self.shuffle, self.rollout = rank, ranks, shuffle, rollout
        self.waited = 0.0
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def indices(self, step: int) -> np.ndarray:
        """The windows of this rank's batch at `step`."""
        first = (step * self.ranks + self.rank) * self.batch_size
        samples = np.arange(first, first + self.batch_size)
        epochs, places = np.divmod(samples, len(self.windows))
        return np.array([self._epoch(int(e))[p] for e, p in zip(epochs, places, strict=True)])

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            count = len(self.windows)
            order = np.random.default_rng([self.seed, epoch]).permutation(count) if self.shuffle else np.arange(count)
            self._order = (epoch, order)
        return self._order[1]

    def batch(self, step: int) -> Window:
        """This rank's batch at `step`."""
        rollout = self.rollout(step) if callable(self.rollout) else self.rollout
        return self.windows.window(self.indices(step), rollout)

    def __iter__(self) -> Iterator[Window]:
        return _ahead(self.batch, self.start, None, self._wait)

    def _wait(self, seconds: float) -> None:
        self.waited += seconds


class InOrder:
    """Each window of this rank once, in order, in batches; the last batch may be smaller. limit: batches at most."""

    def __init__(
        self, windows: Windows, batch_size: int, *, rank: int = 0, ranks: int = 1, limit: int | None = None
    ) -> None:
        _refuse(batch_size, rank, ranks)
        self.windows, self.batch_size = windows, batch_size
        self.own = np.arange(rank, len(windows), ranks)
        self.waited = 0.0
        whole = -(-self.own.size // batch_size)
        self._count = whole if limit is None else min(limit, whole)

    def __len__(self) -> int:
        return self._count

    def batch(self, step: int) -> Window:
        """Batch number `step`."""
        return self.windows.window(self.own[step * self.batch_size : (step + 1) * self.batch_size])

    def __iter__(self) -> Iterator[Window]:
        return _ahead(self.batch, 0, self._count, self._wait)

    def _wait(self, seconds: float) -> None:
        self.waited += seconds


def _refuse(batch_size: int, rank: int, ranks: int) -> None:
    if batch_size < 1 or not 0 <= rank < ranks:
        raise ValueError(f"Expected batch_size >= 1 and 0 <= rank < ranks; got {batch_size}, rank {rank} of {ranks}.")


def _ahead(
    batch: Callable[[int], Window], start: int, stop: int | None, wait: Callable[[float], None]
) -> Iterator[Window]:
    """batch(start), batch(start + 1), ... made in one thread, a little ahead of the consumer; errors arrive in turn."""
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(maxsize=AHEAD)
    done = threading.Event()

    def put(item: tuple[Any, BaseException | None]) -> None:
        while not done.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        step = start
        try:
            while not done.is_set() and (stop is None or step < stop):
                put((batch(step), None))
                step += 1
            put((None, StopIteration()))
        except BaseException as error:  # handed to the consumer, who raises it
            put((None, error))

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            begun = time.perf_counter()
            made, error = ready.get()
            wait(time.perf_counter() - begun)
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield made
    finally:
        done.set()
        thread.join(timeout=5.0)
