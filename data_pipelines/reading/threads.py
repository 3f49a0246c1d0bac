"""Processors, the threads that read with their memory, and the error for data that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import numpy as np


def processors() -> int:
    """Count the processors that this process may use: those it is bound to where the system has such a list."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def reading_threads() -> ThreadPoolExecutor:
    """Return the one pool of threads in which fields are read and decoded, whatever the store.

    It has more threads than there are processors, as those that wait for a network compute nothing. A task may submit
    tasks of its own if it does not need them to be begun, as `PackedStore.read` does.
    """
    return ThreadPoolExecutor(min(16, 4 * processors()), thread_name_prefix="reading")


@contextmanager
def one_thread() -> Iterator[None]:
    """Run PyTorch on one thread and without gradients: small fields gain nothing from more, and the result is
    reproducible.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)


class Scratch:
    """Hold the arrays of one reader by name."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = arrays

    def array(self, name: str, size: int, dtype: np.dtype) -> np.ndarray:
        """Return at least `size` numbers, with what was left in them."""
        buffer = self._arrays.get(name)
        if buffer is None or buffer.dtype != dtype or buffer.size < size:
            buffer = self._arrays[name] = np.empty(size, dtype=dtype)
        return buffer


class ScratchMemory:
    """Lend arrays to readers and take them back: new memory costs as much as decoding into it.

    Threads may share it; it holds as much as was lent at the same time.
    """

    def __init__(self) -> None:
        self._free: list[dict[str, np.ndarray]] = []

    @contextmanager
    def lent(self) -> Iterator[Scratch]:
        """Lend the arrays of one reader until the end of the block."""
        try:
            arrays = self._free.pop()
        except IndexError:
            arrays = {}
        try:
            yield Scratch(arrays)
        finally:
            self._free.append(arrays)


WAITS = (0.1, 1.0, 5.0)  # seconds before a failed read is tried again
TIMEOUT = 120.0  # seconds after which a read counts as failed


class DamagedData(OSError, ValueError):
    """Name data that could not be read or decoded several times in a row, so that they can be fetched again."""

    def __init__(self, store: str, variable: str, time: np.datetime64 | str, cause: BaseException) -> None:
        while isinstance(cause, DamagedData) and cause.__cause__ is not None:  # raised by a layer below
            cause = cause.__cause__
        reason = " ".join(str(cause).split())[:160]
        super().__init__(
            f"Cannot read '{variable}' at {time} from {store}: a chunk or file is damaged or incomplete, fetch it "
            f"again ({type(cause).__name__}: {reason})."
        )
        self.store, self.variable, self.time = store, variable, time
