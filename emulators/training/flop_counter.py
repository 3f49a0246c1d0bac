"""Floating-point operations, counted as they run: products of matrices, convolutions, attention, Fourier transforms.

A multiplication and an addition count two, a product of complex numbers four times as many as one of real numbers, a
Fourier transform of N complex numbers 5 N log2 N, of real ones half of it. Norms, activations and sums count nothing,
nor does what attention makes anew for its gradient: every way to compute it counts the same. Shapes are all that is
looked at: networks on the meta device are counted as others are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from emulators.state import Window
from emulators.training.loss_terms import active

if TYPE_CHECKING:
    from emulators.training.lightning_module import Training


aten = torch.ops.aten


class Operations(TorchDispatchMode):
    """Count what runs within, as `total`.

    Torch's FlopCounterMode fails on modules whose inputs are weights under `no_grad`, as in Aurora: it tracks modules.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        formula = FORMULAS.get(func._overloadpacket)
        if formula is None:
            with self:  # what is made of other operators, which inference mode does not take apart by itself
                out = func.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        out = func(*args, **(kwargs or {}))
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _product(formula: Callable[..., int]) -> Callable[..., int]:
    """The count of a product of matrices, real or complex."""

    def counted(*operands: Any, out_val: Tensor, **more: Any) -> int:
        return (4 if out_val.is_complex() else 1) * formula(*operands, out_val=out_val, **more)

    return counted


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Scores, and the weighted sum of the values."""
    return 2 * query.numel() * key.shape[-2] + 2 * query[..., 0].numel() * value[0, 0].numel()


def _attention_backward(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any) -> int:
    return 2 * _attention(query, key, value)


def _complex_transform(field: Tensor, dims: list[int], *_: Any, **__: Any) -> int:
    return round(5 * field.numel() * math.log2(max(1, math.prod(field.shape[dim] for dim in dims))))


def _real_transform(field: Tensor, dims: list[int], *_: Any, **__: Any) -> int:
    return _complex_transform(field, dims) // 2


def _inverse_transform(_: Tensor, dims: list[int], *__: Any, out_val: Tensor, **___: Any) -> int:
    return _complex_transform(out_val, dims) // 2


ATTENTION = (
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention,
    aten._scaled_dot_product_flash_attention_for_cpu,
)
ATTENTION_BACKWARD = (
    aten._scaled_dot_product_flash_attention_backward,
    aten._scaled_dot_product_efficient_attention_backward,
    aten._scaled_dot_product_cudnn_attention_backward,
    aten._scaled_dot_product_flash_attention_for_cpu_backward,
)
FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    **{operator: _product(flop_registry[operator]) for operator in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm)},
    aten.addmm_: _product(flop_registry[aten.addmm]),
    aten.baddbmm_: _product(flop_registry[aten.baddbmm]),
    **dict.fromkeys(ATTENTION, _attention),
    **dict.fromkeys(ATTENTION_BACKWARD, _attention_backward),
    aten._fft_c2c: _complex_transform,
    aten._fft_r2c: _real_transform,
    aten._fft_c2r: _inverse_transform,
}


def steps_within_flops(training: Training, batch: Callable[[int], Window], processes: int = 1) -> int:
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
            with torch.random.fork_rng(devices=[]), Operations() as operations:
                loss, _ = objective(copy.deepcopy(training.step), batch(step * plan.accumulate), losses)
                loss.backward()
            found[length] = operations.total * plan.accumulate * processes
        return found[length]

    steps, left = 0, (plan.flops or 0.0) - cost(0)
    while left >= 0:
        steps += 1
        left -= cost(steps)
    if not steps:
        raise ValueError(f"training.flops={plan.flops:.3g} does not pay for a step, which takes {cost(0):.3g}.")
    return steps
