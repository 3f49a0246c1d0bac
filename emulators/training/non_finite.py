"""Find the origin of the first non-finite number, when a loss or a gradient is not finite.

The forward pass is repeated with a hook on every module; the first whose output is not finite while its input is finite
is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from emulators.state import State, Window

SHOWN = 6  # times of a batch that are listed


class BrokenStep(ValueError):
    """Report a training step whose loss or gradient is not finite."""


def batch_times(window: Window) -> str:
    """The initial times of a batch in words."""
    times = [str(time) for time in window.history[-1].time.reshape(-1)]
    more = f" and {len(times) - SHOWN} more" if len(times) > SHOWN else ""
    return ", ".join(times[:SHOWN]) + more


def first_non_finite(step: nn.Module, objective: Any, window: Window, losses: Mapping[str, Any]) -> str:
    """Name where the first non-finite number of a batch arises: data, weights, a module, or the loss."""
    for kind, states in {"history": window.history, "forcing": window.forcing, "target": window.target}.items():
        for state in states:
            broken = broken_channels(state)
            if broken:
                return f"the data: {', '.join(broken[:3])} of the {kind}"
    weights = [name for name, weight in step.named_parameters() if not weight.isfinite().all()]
    if weights:
        return f"the weights: {weights[0]} and {len(weights) - 1} more are broken already"
    found: list[str] = []
    hooks = [
        module.register_forward_hook(lambda _, given, made, name=name: _listen(name, given, made, found))
        for name, module in step.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            loss, _ = objective(step, window, losses)
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return f"the layer {found[0]}"
    return "nothing that a second try shows" if loss.isfinite() else "the loss itself"


def broken_channels(state: State) -> list[str]:
    """The channels of a State that hold a number that is not finite."""
    whole = state.values.movedim(state.channel_axis, 0).flatten(1).isfinite().all(dim=1)
    return [name for name, is_whole in zip(state.variables.channels, whole.tolist(), strict=True) if not is_whole]


def _listen(name: str, given: tuple[Any, ...], made: Any, found: list[str]) -> None:
    """Record a module whose output is not finite though its input is."""
    if not _is_whole(made) and all(map(_is_whole, given)):
        found.append(name)


def _is_whole(value: Any) -> bool:
    if isinstance(value, State):
        value = value.values
    if isinstance(value, Tensor):
        return (not value.is_floating_point() and not value.is_complex()) or bool(value.isfinite().all())
    if isinstance(value, tuple | list):
        return all(map(_is_whole, value))
    return True
