"""Constant tensors of which a process holds one copy, however many modules use them.

A network of eight blocks has sixteen transforms with the same tables; so have its moving average and its loss. Tables
are identified by their recipe, precision and device, also after `.to(device)`. Tables that no module uses any more are
kept up to a limit for the next module: at a quarter of a degree they are gigabytes. Numbers stay in float32 or float64,
whatever a module is cast to, and are computed in float64; indices stay integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

CACHED_BYTES = 2**30  # bytes of tables that outlast their modules


class Tables(nn.Module):
    """Hold buffers that are shared tables and no part of the module's state. On the meta device none is computed."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = _precision(dtype)
        self._recipes: dict[str, tuple[Callable[..., np.ndarray], tuple]] = {}
        self._shared: dict[str, SharedTable] = {}

    def share(self, name: str, shape: tuple[int, ...], make: Callable[..., np.ndarray], *arguments: Any) -> None:
        """Register a buffer `name` of `shape` with the numbers of make(*arguments); the arguments are hashable."""
        self._recipes[name] = make, arguments
        self._shared[name] = shared_table(shape, self.dtype, torch.empty(0).device, make, arguments)
        self.register_buffer(name, self._shared[name].table, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Tables:
        """Replace the tables by those of another device or precision; `.to`, `.double` and their like call this."""
        probe = fn(torch.empty(0, dtype=self.dtype, device=next(self.buffers()).device))
        self.dtype = _precision(probe.dtype)
        before, self._shared = self._shared, {}  # another one, for a copy of this module has the first
        for name, recipe in self._recipes.items():
            self._shared[name] = shared_table(tuple(before[name].table.shape), self.dtype, probe.device, *recipe)
            self._buffers[name] = self._shared[name].table
        return self

    def __deepcopy__(self, memo: dict) -> Tables:
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        twin.__dict__.update(self.__dict__)
        twin._buffers = dict(self._buffers)
        return twin


def _precision(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(eq=False)
class SharedTable:
    """Hold a table, for as long as a module refers to this."""

    table: Tensor

    @property
    def nbytes(self) -> int:
        """The size in memory, 0 on the meta device."""
        return 0 if self.table.is_meta else self.table.nbytes


class TableCache:
    """Cache tables by recipe: those in use, and the latest of the others up to CACHED_BYTES."""

    def __init__(self) -> None:
        self._held: WeakValueDictionary[tuple, SharedTable] = WeakValueDictionary()
        self._latest: dict[tuple, SharedTable] = {}
        self._bytes = 0
        self._lock = Lock()

    def __call__(self, *recipe: Any) -> SharedTable:
        """Return the table of a recipe, the arguments of `_table`."""
        table = self._held.get(recipe) or SharedTable(_table(*recipe))
        with self._lock:
            table = self._held.setdefault(recipe, table)
            if self._latest.pop(recipe, None) is None:
                self._bytes += table.nbytes
            self._latest[recipe] = table
            while self._bytes > CACHED_BYTES:
                self._bytes -= self._latest.pop(next(iter(self._latest))).nbytes
        return table


shared_table = TableCache()


def _table(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, make: Callable[..., np.ndarray], arguments: tuple
) -> Tensor:
    if device.type == "meta":
        return torch.empty(shape, dtype=dtype, device=device)
    with torch.device("cpu"), torch.inference_mode(False):  # a forecast may be the first to ask, a training the next
        table = torch.from_numpy(np.ascontiguousarray(make(*arguments)))
        return table.to(device=device, dtype=dtype if table.is_floating_point() else table.dtype)
