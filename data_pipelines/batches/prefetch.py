"""Buffers: memory that batches are read into, used again as soon as nobody holds a tensor of it any more.

New memory costs page faults, as much as copying into it. It begins with a page, as chunks of a packed store do in their
file: between addresses that differ within a page the kernel copies at half the speed. On CUDA the buffers are pinned;
there PyTorch's own allocator keeps them, and waits for copies to the device that are still under way.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emulators.state import Window

PAGE = 4096


class BatchBuffers:
    """Gives float32 tensors of uninitialised memory. pinned: for copies to a CUDA device."""

    def __init__(self, pinned: bool = False) -> None:
        self.pinned = pinned
        self._free: list[np.ndarray] = []

    def tensor(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor of `shape`; its memory comes back when the last view of it is gone."""
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


AHEAD = 2  # batches made ready before they are asked for


def prefetched(
    batch: Callable[[int], Window], start: int, stop: int | None, wait: Callable[[float], None], ahead: int = AHEAD
) -> Iterator[Window]:
    """batch(start), batch(start + 1), ... made in one thread, `ahead` of the consumer; errors arrive in turn."""
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
            made, error = ready.get()
            wait(time.perf_counter() - begun)
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield made
            made = None  # its memory is free as soon as the consumer lets go of it
    finally:
        done.set()
        thread.join(timeout=5.0)


def _at_once(
    batch: Callable[[int], Window], start: int, stop: int | None, wait: Callable[[float], None]
) -> Iterator[Window]:
    """The same batches, each made when it is asked for."""
    step = start
    while stop is None or step < stop:
        begun = time.perf_counter()
        made: Window | None = batch(step)
        wait(time.perf_counter() - begun)
        assert made is not None
        yield made
        made = None  # its memory, still in the processor's cache, is what the next one is read into
        step += 1
