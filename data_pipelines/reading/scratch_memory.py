"""Memory for content on its way from a file to a batch, used again and again by a few readers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


class Scratch:
    """Hold the arrays of one reader by name."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = arrays

    def array(self, name: str, size: int, dtype: np.dtype) -> np.ndarray:
        """Return at least `size` numbers, with what was left in them."""
        held = self._arrays.get(name)
        if held is None or held.dtype != dtype or held.size < size:
            held = self._arrays[name] = np.empty(size, dtype=dtype)
        return held


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
