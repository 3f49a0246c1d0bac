"""Buffers: memory that batches are read into, used again as soon as nobody holds a tensor of it any more.

New memory costs page faults, as much as copying into it. It begins with a page, as chunks of a packed store do in their
file: between addresses that differ within a page the kernel copies at half the speed. On CUDA the buffers are pinned;
there PyTorch's own allocator keeps them, and waits for copies to the device that are still under way.
"""

from __future__ import annotations

import weakref

import numpy as np
import torch
from torch import Tensor

PAGE = 4096


class Buffers:
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
