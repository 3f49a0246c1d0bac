"""Processors and threads: how many this process may use, and the threads that read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache


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
