"""Measure what a training takes on one process: memory, floating-point operations and time, on a few of its steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emulators.interfaces import is_fitted_at_once
from emulators.state import Window
from emulators.training.flop_counter import Operations
from emulators.training.lightning_module import Training
from emulators.training.loss_terms import active

STEPS = 3  # timed, after one to warm up


@dataclass(frozen=True)
class Requirements:
    """Hold what one process of a training takes: bytes, operations a sample, seconds a step.

    activations: bytes a sample that a forward pass keeps for the backward pass. samples: of a pass.
    """

    parameters: int
    weights: int
    gradients: int
    moments: int
    averages: int
    activations: float
    operations: float
    seconds: float
    samples: int

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the batch."""
        return self.weights + self.gradients + self.moments + self.averages

    def largest(self, memory: float) -> int:
        """The most samples of a pass that fit into `memory` bytes."""
        return max(0, int((memory - self.fixed) / max(self.activations, 1.0)))


def measure(training: Training, window: Window, *, mixed: bool = False) -> Requirements:
    """Make a few steps on one window, on the device where both are. mixed: in bfloat16 where that is safe.

    ValueError where the network is fitted at once. The weights change.
    """
    if is_fitted_at_once(training.step.network):
        raise ValueError("This network is solved at once, not descended: there is nothing to plan.")
    trainable = [weight for weight in training.step.parameters() if weight.requires_grad]
    samples = window.history[0].lead[-1]
    with Operations() as counted:
        kept = kept_bytes(training, window)
    optimizer = training.optimizer(training.step)
    seconds = _seconds_a_step(training, optimizer, window, mixed)
    moments = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    return Requirements(
        parameters=sum(p.numel() * (2 if p.is_complex() else 1) for p in trainable),
        weights=_bytes_of(training.step.parameters()),
        gradients=_bytes_of(trainable),
        moments=_bytes_of(moments),
        averages=_bytes_of(training.averages.parameters()) if training.averages is not None else 0,
        activations=kept / samples,
        operations=counted.total / samples,
        seconds=seconds,
        samples=samples,
    )


def kept_bytes(training: Training, window: Window) -> float:
    """Bytes that a forward pass keeps for the backward pass, weights and buffers aside; the backward pass is made."""
    own = {t.untyped_storage().data_ptr() for t in (*training.parameters(), *training.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = _loss(training, window)
    loss.backward()
    return float(sum(kept.values()))


def _loss(training: Training, window: Window) -> Tensor:
    loss, _ = training.objective(training.step, window, active(training.losses, 0, training.plan.steps))
    return loss


def _seconds_a_step(training: Training, optimizer: Any, window: Window, mixed: bool) -> float:
    """The median time of an optimiser step."""
    device, times = training.device.type, []
    for _ in range(1 + STEPS):
        begun = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            loss = _loss(training, window)
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nelement() * tensor.element_size() for tensor in tensors)
