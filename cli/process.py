"""What a process takes of its machine: threads, and memory it keeps."""

from __future__ import annotations

import ctypes

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST = 2**31 - 1


def settle(threads: int | None) -> None:
    """Use `threads` CPU threads (None: as many as PyTorch finds), and keep freed memory for the next step.

    glibc hands large freed blocks back to the kernel, and each step of a training then faults its activations in anew:
    a third of the time of a small SFNO on two cores. Where the C library has no mallopt, nothing changes.
    """
    if threads:
        torch.set_num_threads(threads)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    if mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25):  # older versions allow no more
        mallopt(M_TRIM_THRESHOLD, LARGEST)
