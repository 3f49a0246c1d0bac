"""Constant tensors of which a process holds one copy, however many modules use them.

A network of eight blocks has sixteen transforms with the same tables; so have its moving average and its loss. Tables
are shared by what they hold, precision and device, also after `.to(device)`. Numbers keep to
float32 or float64, whatever a module is cast to, and are made in float64; indices stay integers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Tables(nn.Module):
    """A module whose buffers are shared tables, not part of its state. On the meta device none is made."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = _precision(dtype)
        self._recipes: dict[str, tuple[Callable[..., np.ndarray], tuple]] = {}

    def share(self, name: str, shape: tuple[int, ...], make: Callable[..., np.ndarray], *arguments: Any) -> None:
        """A buffer `name` of `shape` with the numbers of make(*arguments); the arguments are hashable."""
        self._recipes[name] = make, arguments
        table = _table(shape, self.dtype, torch.get_default_device(), make, arguments)
        self.register_buffer(name, table, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Tables:
        """What `.to`, `.double` and their like call: tables of the new kind are the ones that others have."""
        probe = fn(torch.empty(0, dtype=self.dtype, device=next(self.buffers()).device))
        self.dtype = _precision(probe.dtype)
        for name, recipe in self._recipes.items():
            shape = tuple(self.get_buffer(name).shape)
            self._buffers[name] = _table(shape, self.dtype, probe.device, *recipe)
        return self

    def __deepcopy__(self, memo: dict) -> Tables:
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        twin.__dict__.update(self.__dict__)
        twin._buffers = dict(self._buffers)
        return twin


def _precision(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@lru_cache(maxsize=1024)  # a network and its losses at a quarter of a degree have some 700
def _table(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, make: Callable[..., np.ndarray], arguments: tuple
) -> Tensor:
    if device.type == "meta":
        return torch.empty(shape, dtype=dtype, device=device)
    with torch.device("cpu"), torch.inference_mode(False):  # a forecast may be the first to ask, a training the next
        table = torch.from_numpy(np.ascontiguousarray(make(*arguments)))
        return table.to(device=device, dtype=dtype if table.is_floating_point() else table.dtype)
