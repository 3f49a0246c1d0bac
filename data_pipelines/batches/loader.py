"""Batches of windows: endless and shuffled, in an order that depends on the seed alone, or once in order.

Batch n of rank r holds the samples (n * ranks + r) * batch_size + (0 ... batch_size - 1) of an endless sequence of
epochs. The k-th epoch is drawn by a generator seeded with (seed, k), so that a training resumed at step n continues
exactly. An epoch is a permutation of all windows; if the source has many times in a chunk and not all fit in memory, it
permutes the windows of a few chunks at a time, chunks in random order, so that each chunk is read about once an epoch.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from data_pipelines.batches.windows import Windows
from data_pipelines.reading.threads import DamagedData
from emulators.state import Window

if TYPE_CHECKING:
    from data_pipelines.batches.archive import Archive

Damaged = Literal["stop", "skip"]
AHEAD = 2  # batches read before the consumer needs them
PAGE = 4096


@dataclass(frozen=True)
class LoaderSettings:
    """Say how batches are read.

    gigabytes: memory for fields; all are kept if they fit.
    ahead: batches that a thread reads before they are needed; 0 reads without a thread.
    damaged: if data cannot be read after several attempts, `stop`, or `skip` to use the next window instead.
    stride: use every stride-th window.
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
    """Iterate endlessly over shuffled batches of windows, from batch number `start` on.

    rollout: number of targets in a window, or a function of the batch number; default, and at most, that of `windows`.
    rank, ranks: this process and the number of processes that share the batches; see `divide`.
    Counters: `waited`, seconds that the consumer waited for data; `busy`, seconds spent reading; `batches_read`;
    `skipped`, windows replaced because they are damaged.
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
        rollout: int | Callable[[int], int] | None = None,
        reading: LoaderSettings | None = None,
    ) -> None:
        self.windows, self.batch_size, self.seed, self.start = windows, batch_size, seed, start
        self.rollout, self.reading = rollout, reading or LoaderSettings()
        self.divide(rank, ranks)
        self.waited, self.busy, self.batches_read, self.skipped = 0.0, 0.0, 0, 0
        self.damaged: set[int] = set()
        self._orders: dict[int, np.ndarray] = {}  # of the latest two epochs
        self._buffers = BatchBuffers()

    def divide(self, rank: int, ranks: int, *, pinned: bool = False) -> None:
        """Take the batches of process number `rank` of `ranks`, once these are known.

        pinned: read into memory from which a CUDA device copies by itself.
        """
        if self.batch_size < 1 or not 0 <= rank < ranks:
            raise ValueError(
                f"Expected batch_size >= 1 and 0 <= rank < ranks; got {self.batch_size}, rank {rank} of {ranks}."
            )
        self.rank, self.ranks, self.pinned = rank, ranks, pinned

    def indices(self, step: int) -> np.ndarray:
        """Return the numbers of the windows in this rank's batch at `step`."""
        first = (step * self.ranks + self.rank) * self.batch_size
        return np.array([self.drawn(number) for number in range(first, first + self.batch_size)])

    def drawn(self, sample: int) -> int:
        """Return the number of the window that is drawn for a sample of the endless sequence of epochs."""
        epoch, place = divmod(sample, len(self.windows))
        if epoch not in self._orders:
            self._orders = {**dict(list(self._orders.items())[-1:]), epoch: self._drawn(epoch)}
        return int(self._orders[epoch][place])

    def _drawn(self, epoch: int) -> np.ndarray:
        random, archive = np.random.default_rng([self.seed, epoch]), self.windows.archive
        if archive.shuffle_chunks < 2:
            return random.permutation(len(self.windows))
        block = self.windows.positions[:, 0] // archive.fields.granule
        blocks, block = np.unique(block, return_inverse=True)
        group = random.permutation(blocks.size)[block] // archive.shuffle_chunks
        return np.lexsort((random.random(block.size), group))

    @property
    def randomness(self) -> str:
        """A phrase that says how random the order is."""
        archive, count = self.windows.archive, len(self.windows)
        if archive.shuffle_chunks < 2:
            return f"each pass a random order of all {count:,} windows"
        chunks = f"{archive.shuffle_chunks} chunks of {archive.fields.granule} times"
        return f"random among the windows of {chunks}, themselves in random order"

    def facts(self) -> dict[str, str]:
        """Describe where fields are read from, in what order, and the memory that this needs at most."""
        archive = self.windows.archive
        storage = "all in memory" if archive.in_memory else "read when needed"
        if archive.shuffle_chunks:
            storage = f"the latest {archive.cached_chunks} chunks of {archive.fields.granule} times in memory"
        if archive.fields.is_packed and not archive.in_memory:
            storage = "straight from the packed store"
        return {
            "fields": f"{storage}, {archive.memory_bytes / 1e9:.2f} GB" if archive.memory_bytes else storage,
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
        """Number of batches in memory at a time: those ready, one being read, one in use, one held by the trainer."""
        return self.reading.ahead + 3 if self.reading.ahead else 2

    @property
    def reading_bytes(self) -> int:
        """Upper bound on the extra bytes needed to read a batch."""
        return self.windows.archive.reading_bytes(self.batch_size * self.windows.positions.shape[1])

    @property
    def memory_bytes(self) -> int:
        """Upper bound on the bytes of fields and batches."""
        return self.windows.archive.memory_bytes + self.buffer_count * self.batch_bytes + self.reading_bytes

    def pace(self) -> str:
        """Return a phrase that says how fast data were read so far."""
        rate = self.batches_read * self.batch_bytes / max(self.busy, 1e-9) / 1e9
        skipped = f", {self.skipped} damaged windows replaced" if self.skipped else ""
        return (
            f"{self.batches_read:,} batches read at up to {rate:.2g} GB/s, {self.waited:.1f} s waited for them{skipped}"
        )

    def batch(self, step: int) -> Window:
        """Read this rank's batch at `step`; DamagedData if that fails and damaged windows are not skipped."""
        rollout = self.rollout(step) if callable(self.rollout) else self.rollout
        begun = time.perf_counter()
        window = self.read(step, rollout)
        self.busy, self.batches_read = self.busy + time.perf_counter() - begun, self.batches_read + 1
        return window

    def read(self, step: int, rollout: int | None) -> Window:
        """Read this rank's samples at `step`, of `rollout` targets."""
        return self.sound(self.indices(step), rollout)

    def sound(self, indices: np.ndarray, rollout: int | None) -> Window:
        """Read these windows, or, if they are damaged and may be skipped, the next ones that are not."""
        while True:
            readable = np.array([self._next_sound(int(index)) for index in indices])
            try:
                window = self.windows.window(readable, rollout, self._buffers.tensor)
            except DamagedData:
                if self.reading.damaged == "stop":
                    raise
                self.damaged |= {int(index) for index in readable if not _is_readable(self.windows, index, rollout)}
                if len(self.damaged) == len(self.windows):
                    raise
                continue
            self.skipped += int((readable != indices).sum())
            return window

    def _next_sound(self, index: int) -> int:
        while index in self.damaged:
            index = (index + 1) % len(self.windows)
        return index

    def __iter__(self) -> Iterator[Window]:
        self._buffers = BatchBuffers(self.pinned)
        return prefetched(self.batch, self.start, None, self._add_wait, self.reading.ahead)

    def _add_wait(self, seconds: float) -> None:
        self.waited += seconds


class SequentialBatches:
    """Iterate once over batches of all windows, in order; the last batch may be smaller.

    damaged: `skip` leaves out windows that cannot be read, unless a batch has no other.
    """

    def __init__(self, windows: Windows, batch_size: int, *, damaged: Damaged = "stop") -> None:
        if batch_size < 1:
            raise ValueError(f"Expected batch_size >= 1; got {batch_size}.")
        self.windows, self.batch_size, self.damaged = windows, batch_size, damaged
        self.waited, self._buffers = 0.0, BatchBuffers()

    def __len__(self) -> int:
        return -(-len(self.windows) // self.batch_size)

    @property
    def memory_bytes(self) -> int:
        """Upper bound on the bytes of batches and of reading them, without the fields that the archive keeps."""
        archive, times = self.windows.archive, self.batch_size * self.windows.positions.shape[1]
        return (AHEAD + 3) * times * archive.row_bytes + archive.reading_bytes(times)

    def batch(self, step: int) -> Window:
        """Read batch number `step`; DamagedData if that fails and damaged windows are not skipped."""
        indices = np.arange(len(self.windows))[step * self.batch_size : (step + 1) * self.batch_size]
        try:
            return self.windows.window(indices, memory=self._buffers.tensor)
        except DamagedData:
            readable = [n for n in indices if _is_readable(self.windows, n)] if self.damaged == "skip" else []
            if not readable:
                raise
            return self.windows.window(np.array(readable), memory=self._buffers.tensor)

    def __iter__(self) -> Iterator[Window]:
        return prefetched(self.batch, 0, len(self), self._add_wait)

    def _add_wait(self, seconds: float) -> None:
        self.waited += seconds


def _is_readable(windows: Windows, index: int, rollout: int | None = None) -> bool:
    try:
        windows.window(np.array([index]), rollout)
    except DamagedData:
        return False
    return True


class BatchBuffers:
    """Allocate float32 tensors in memory that is used again as soon as nobody holds a view of it.

    New memory costs page faults, as much as copying into it. Arrays begin with a page, as chunks of a packed store do
    in their file: between addresses that differ within a page the kernel copies at half the speed.
    pinned: for copies to a CUDA device; PyTorch's own allocator keeps these, and waits for copies that are under way.
    """

    def __init__(self, pinned: bool = False) -> None:
        self.pinned = pinned
        self._free: list[np.ndarray] = []

    def tensor(self, shape: tuple[int, ...]) -> Tensor:
        """Return an uninitialised tensor of `shape`."""
        if self.pinned:
            return torch.empty(shape, pin_memory=True)
        size = int(np.prod(shape))
        memory = self._taken(size)
        view = memory[:size].reshape(shape)
        weakref.finalize(view, self._free.append, memory).atexit = False
        return torch.from_numpy(view)

    def _taken(self, size: int) -> np.ndarray:
        while self._free:
            memory = self._free.pop()
            if memory.size >= size:
                return memory  # one that is too small is given up
        memory = np.empty(4 * size + PAGE, dtype=np.uint8)
        start = -memory.ctypes.data % PAGE
        return memory[start : start + 4 * size].view(np.float32)


def prefetched(
    batch: Callable[[int], Window], start: int, stop: int | None, wait: Callable[[float], None], ahead: int = AHEAD
) -> Iterator[Window]:
    """Yield batch(start), batch(start + 1), ..., read by a thread, `ahead` of the consumer; errors arrive in order."""
    if not ahead:
        yield from _at_once(batch, start, stop, wait)
        return
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(maxsize=ahead)
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
            window, error = ready.get()
            wait(time.perf_counter() - begun)
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield window
            window = None  # its memory is free as soon as the consumer lets go of it
    finally:
        done.set()
        thread.join(timeout=5.0)


def _at_once(
    batch: Callable[[int], Window], start: int, stop: int | None, wait: Callable[[float], None]
) -> Iterator[Window]:
    """Yield the same batches, each read when it is needed."""
    step = start
    while stop is None or step < stop:
        begun = time.perf_counter()
        window: Window | None = batch(step)
        wait(time.perf_counter() - begun)
        assert window is not None
        yield window
        window = None  # its memory, still in the processor's cache, is what the next one is read into
        step += 1


def spread_batches(
    archive: Archive, period: Sequence[str], lead: int, cases: int, batch_size: int, damaged: Damaged = "stop"
) -> SequentialBatches:
    """Windows of `lead` timesteps of a validation split, at least `cases` of them at evenly spread initial dates."""
    stride = max(1, len(Windows(archive, period, rollout=lead)) // cases)
    windows = Windows(archive, period, rollout=lead, stride=stride)
    return SequentialBatches(windows, min(batch_size, cases), damaged=damaged)
