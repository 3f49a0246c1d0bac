"""Floating-point operations, counted as they run: products of matrices, convolutions, attention, Fourier transforms.

A multiplication and an addition count two, a product of complex numbers four times as many as one of real numbers, a
Fourier transform of N complex numbers 5 N log2 N, of real ones half of it. Norms, activations and sums count nothing.
Shapes are all that is looked at: networks on the meta device are counted as others are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from emulators.state import Window
from emulators.terms import active

if TYPE_CHECKING:
    from emulators.training import Training

aten = torch.ops.aten
PRODUCTS = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm)


def counter() -> FlopCounterMode:
    """A context that counts what is run within; `get_total_flops()` of it says how many."""
    counted: dict[Any, Any] = {operator: _product(flop_registry[operator]) for operator in PRODUCTS}
    counted |= {aten._fft_c2c: _complex_transform, aten._fft_r2c: _real_transform, aten._fft_c2r: _inverse_transform}
    return FlopCounterMode(display=False, custom_mapping=counted)


def _raw(formula: Callable[..., int]) -> Callable[..., int]:
    """A formula that is handed tensors, not shapes."""
    formula._get_raw = True  # type: ignore[attr-defined]
    return formula


def _product(formula: Callable[..., int]) -> Callable[..., int]:
    """The count of a product of matrices, real or complex."""

    def counted(*operands: Any, out_val: Any = None, **more: Any) -> int:
        is_complex = any(isinstance(one, Tensor) and one.is_complex() for one in operands)
        return (4 if is_complex else 1) * formula(*operands, out_val=out_val, **more)

    return _raw(counted)


@_raw
def _complex_transform(field: Tensor, dims: list[int], *_: Any, **__: Any) -> int:
    return round(5 * field.numel() * math.log2(max(1, math.prod(field.shape[dim] for dim in dims))))


@_raw
def _real_transform(field: Tensor, dims: list[int], *_: Any, **__: Any) -> int:
    return _complex_transform(field, dims) // 2


@_raw
def _inverse_transform(_: Tensor, dims: list[int], *__: Any, out_val: Tensor, **___: Any) -> int:
    return _complex_transform(out_val, dims) // 2


def affordable(training: Training, batch: Callable[[int], Window], processes: int = 1) -> int:
    """How many optimiser steps `training.plan.flops` pay for; ValueError where not a single one.

    batch: the window of a pass. Counted, forward and backward, is the first pass of each length of rollout; the weights
    and buffers of the training are left as they were.
    """
    plan, objective = training.plan, training.objective
    found: dict[int, int] = {}

    def cost(step: int) -> int:
        """Of an optimiser step, over all passes and processes."""
        length = objective.length(step)
        if length not in found:
            losses = active(training.losses, step, max(step + 1, plan.steps))
            with torch.random.fork_rng(devices=[]), counter() as counted:
                loss, _ = objective(copy.deepcopy(training.step), batch(step * plan.accumulate), losses)
                loss.backward()
            found[length] = int(counted.get_total_flops()) * plan.accumulate * processes
        return found[length]

    steps, left = 0, (plan.flops or 0.0) - cost(0)
    while left >= 0:
        steps += 1
        left -= cost(steps)
    if not steps:
        raise ValueError(f"training.flops={plan.flops:.3g} does not pay for a step, which takes {cost(0):.3g}.")
    return steps
