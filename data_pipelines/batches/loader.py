"""Batches of windows: in an endless order that is a pure function of the seed, or once through.

Batch n of rank r holds the samples (n * ranks + r) * batch_size + (0 ... batch_size - 1) of an endless row of epochs,
the k-th in an order drawn by a generator seeded with (seed, k); so a training resumed at step n goes on exactly. An
epoch is a permutation of all windows, or, where the source keeps many times in a chunk and not all fit in memory, of
the windows of a few chunks at a time, chunks in random order: each is then read about once an epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_pipelines.batches.prefetch import AHEAD, BatchBuffers, prefetched
from data_pipelines.batches.windows import Windows
from data_pipelines.reading.damaged_data import DamagedData
from emulators.state import Window

Damaged = Literal["stop", "skip"]


@dataclass(frozen=True)
class LoaderSettings:
    """How data are read. gigabytes: memory that fields may take; all are kept where they fit.

    ahead: batches made ready, by one thread, before they are asked for; 0: none, and no thread. damaged: where data
    cannot be read after several attempts, `stop`, or `skip` to take the next window in place of the damaged one.
    stride: of the windows every so many-th is an example.
    """

    gigabytes: float = 4.0
    ahead: int = AHEAD
    damaged: Damaged = "stop"
    stride: int = 1

    def __post_init__(self) -> None:
        if self.gigabytes < 0 or self.ahead < 0 or self.damaged not in ("stop", "skip") or self.stride < 1:
            raise ValueError(
                "Expected gigabytes and ahead of at least 0, damaged stop or skip, and a stride of at least 1; got "
                f"gigabytes={self.gigabytes}, ahead={self.ahead}, damaged={self.damaged}, stride={self.stride}."
            )


class ShuffledBatches:
    """An endless iterable of batched Windows; iteration begins at step `start`.

    rollout: targets a window, a number or a function of the step (default: that of `windows`, which is the most).
    pinned: memory from which a CUDA device copies by itself. waited: seconds that consumers have waited for data so
    far; busy: that reading took; made: batches; skipped: windows replaced because they cannot be read.
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
        reading: LoaderSettings | None = None,
    ) -> None:
        _refuse(batch_size, rank, ranks)
        self.windows, self.batch_size, self.seed, self.start = windows, batch_size, seed, start
        self.rank, self.ranks, self.shuffle, self.rollout = rank, ranks, shuffle, rollout
        self.reading, self.pinned = reading or LoaderSettings(), False
        self.waited, self.busy, self.made, self.skipped = 0.0, 0.0, 0, 0
        self.damaged: set[int] = set()
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))
        self._buffers = BatchBuffers()

    def indices(self, step: int) -> np.ndarray:
        """The windows of this rank's batch at `step`."""
        first = (step * self.ranks + self.rank) * self.batch_size
        samples = np.arange(first, first + self.batch_size)
        epochs, places = np.divmod(samples, len(self.windows))
        return np.array([self._epoch(int(e))[p] for e, p in zip(epochs, places, strict=True)])

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            self._order = (epoch, self._drawn(epoch) if self.shuffle else np.arange(len(self.windows)))
        return self._order[1]

    def _drawn(self, epoch: int) -> np.ndarray:
        random, archive = np.random.default_rng([self.seed, epoch]), self.windows.archive
        if archive.mixed < 2:
            return random.permutation(len(self.windows))
        block = self.windows.positions[:, 0] // archive.fields.granule
        there, block = np.unique(block, return_inverse=True)
        turn = random.permutation(there.size)[block] // archive.mixed
        return np.lexsort((random.random(block.size), turn))

    @property
    def randomness(self) -> str:
        """How random the order is, in words."""
        archive, count = self.windows.archive, len(self.windows)
        if not self.shuffle:
            return "as they come"
        if archive.mixed < 2:
            return f"each pass a random order of all {count:,} windows"
        chunks = f"{archive.mixed} chunks of {archive.fields.granule} times"
        return f"random among the windows of {chunks}, themselves in random order"

    def facts(self) -> dict[str, str]:
        """What will be read from where, in what order, and the memory it takes at most."""
        archive = self.windows.archive
        where = "all in memory" if archive.in_memory else "read when needed"
        if archive.mixed:
            where = f"the latest {archive.room} chunks of {archive.fields.granule} times in memory"
        if archive.fields.is_packed and not archive.in_memory:
            where = "straight from the packed store"
        return {
            "fields": f"{where}, {archive.memory_bytes / 1e9:.2f} GB" if archive.memory_bytes else where,
            "batches": f"{self.buffer_count} of {self.batch_bytes / 1e6:.1f} MB at a time, their memory used again; "
            f"{self.reading_bytes / 1e6:.1f} MB more to read one",
            "order": self.randomness,
        }

    @property
    def batch_bytes(self) -> int:
        """Bytes of the largest batch."""
        return self.batch_size * self.windows.positions.shape[1] * self.windows.archive.row_bytes

    @property
    def buffer_count(self) -> int:
        """Batches in memory at a time: ready ones, one being read, one in use, and the next in the trainer's hand."""
        return self.reading.ahead + 3 if self.reading.ahead else 2

    @property
    def reading_bytes(self) -> int:
        """Bytes that reading a batch takes meanwhile, at most."""
        return self.windows.archive.reading_bytes(self.batch_size * self.windows.positions.shape[1])

    @property
    def memory_bytes(self) -> int:
        """Bytes that fields and batches take at most."""
        return self.windows.archive.memory_bytes + self.buffer_count * self.batch_bytes + self.reading_bytes

    def pace(self) -> str:
        """How fast data were read so far, in words."""
        rate = self.made * self.batch_bytes / max(self.busy, 1e-9) / 1e9
        skipped = f", {self.skipped} damaged windows replaced" if self.skipped else ""
        return f"{self.made:,} batches read at up to {rate:.2g} GB/s, {self.waited:.1f} s waited for them{skipped}"

    def batch(self, step: int) -> Window:
        """This rank's batch at `step`; DamagedData where it cannot be read and this is not to be skipped."""
        rollout = self.rollout(step) if callable(self.rollout) else self.rollout
        begun = time.perf_counter()
        made = self._sound(self.indices(step), rollout)
        self.busy, self.made = self.busy + time.perf_counter() - begun, self.made + 1
        return made

    def _sound(self, indices: np.ndarray, rollout: int | None) -> Window:
        """These windows, or, where they are damaged and may be skipped, the next ones that are not."""
        while True:
            chosen = np.array([self._next_sound(int(index)) for index in indices])
            try:
                made = self.windows.window(chosen, rollout, self._buffers.tensor)
            except DamagedData:
                if self.reading.damaged == "stop":
                    raise
                self.damaged |= {int(index) for index in chosen if not _can_be_read(self.windows, index, rollout)}
                if len(self.damaged) == len(self.windows):
                    raise
                continue
            self.skipped += int((chosen != indices).sum())
            return made

    def _next_sound(self, index: int) -> int:
        while index in self.damaged:
            index = (index + 1) % len(self.windows)
        return index

    def __iter__(self) -> Iterator[Window]:
        self._buffers = BatchBuffers(self.pinned)
        return prefetched(self.batch, self.start, None, self._wait, self.reading.ahead)

    def _wait(self, seconds: float) -> None:
        self.waited += seconds


class SequentialBatches:
    """Each window of this rank once, in order, in batches; the last batch may be smaller. limit: batches at most.

    damaged: `skip` leaves out windows that cannot be read, as long as others of their batch can.
    """

    def __init__(
        self,
        windows: Windows,
        batch_size: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        limit: int | None = None,
        damaged: Damaged = "stop",
    ) -> None:
        _refuse(batch_size, rank, ranks)
        self.damaged = damaged
        self.windows, self.batch_size = windows, batch_size
        self.own = np.arange(rank, len(windows), ranks)
        self.waited, self._buffers = 0.0, BatchBuffers()
        whole = -(-self.own.size // batch_size)
        self._count = whole if limit is None else min(limit, whole)

    def __len__(self) -> int:
        return self._count

    @property
    def memory_bytes(self) -> int:
        """Bytes that its batches take at most, and reading them; not what the archive keeps."""
        archive, times = self.windows.archive, self.batch_size * self.windows.positions.shape[1]
        return (AHEAD + 3) * times * archive.row_bytes + archive.reading_bytes(times)

    def batch(self, step: int) -> Window:
        """Batch number `step`; DamagedData where it cannot be read and this is not to be skipped."""
        own = self.own[step * self.batch_size : (step + 1) * self.batch_size]
        try:
            return self.windows.window(own, memory=self._buffers.tensor)
        except DamagedData:
            sound = [index for index in own if _can_be_read(self.windows, index)] if self.damaged == "skip" else []
            if not sound:
                raise
            return self.windows.window(np.array(sound), memory=self._buffers.tensor)

    def __iter__(self) -> Iterator[Window]:
        return prefetched(self.batch, 0, self._count, self._wait)

    def _wait(self, seconds: float) -> None:
        self.waited += seconds


def _can_be_read(windows: Windows, index: int, rollout: int | None = None) -> bool:
    try:
        windows.window(np.array([index]), rollout)
    except DamagedData:
        return False
    return True


def _refuse(batch_size: int, rank: int, ranks: int) -> None:
    if batch_size < 1 or not 0 <= rank < ranks:
        raise ValueError(f"Expected batch_size >= 1 and 0 <= rank < ranks; got {batch_size}, rank {rank} of {ranks}.")
