"""Training of DYffusion: first the interpolator between two states, then the forecaster from states that it makes.

    L_1 = loss(I(x_0, x_h, s), x_s),   0 < s < h          until `interpolation_steps`; then I rests and
    L_2 = loss(F(x_s, s), x_h),   x_s = I(x_0, x_h, s) or, at s = 0, x_0 itself,   0 <= s < h

s is drawn for each batch from torch's own generator, which a training seeds by optimiser step. The dropout of I stays
on in the second stage, so that F learns to forecast from what it will be given. Cachay et al. 2024, arXiv 2406.14798,
with absolute errors in both stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from emulators.interfaces import Loss, Objective
from emulators.state import State, Window
from emulators.world import World


@runtime_checkable
class Interpolating(Protocol):
    """A Step that forecasts to a horizon and interpolates between it and the start; see `emulators.steps.dyffusion`."""

    horizon: int

    def forecast(self, state: State, forcing: State, passed: int) -> State:
        """The State at the horizon."""
        ...

    def interpolated(self, first: State, end: State, forcing: State, passed: int, *, lag: int = 0) -> State:
        """The State after `passed` timesteps."""
        ...


class DYffusion(Objective):
    """Train interpolator and forecaster one after the other. interpolation_steps: optimiser steps of the first."""

    def __init__(self, world: World, *, interpolation_steps: int = 1000) -> None:
        if interpolation_steps < 1:
            raise ValueError(f"objective.interpolation_steps must be at least 1; got {interpolation_steps}.")
        self.horizon, self.interpolation_steps, self.step = world.history, interpolation_steps, 0

    @property
    def longest(self) -> int:
        """Timesteps that a window must hold: to the horizon."""
        return self.horizon

    def length(self, step: int) -> int:
        """The same at every optimiser step."""
        return self.horizon

    def at(self, step: int) -> None:
        """Know the number of the optimiser step, which tells the stage."""
        self.step = step

    def begin(self, step: Any) -> None:
        """Raise ValueError where the Step has no horizon."""
        if not isinstance(step, Interpolating):
            raise ValueError(f"{type(step).__name__} interpolates nothing; take step=dyffusion or another objective.")

    def __call__(
        self, step: torch.nn.Module, window: Window, losses: Mapping[str, Loss]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and its detached parts by stage and loss."""
        parted: Any = step
        first, end = window.history[-1], window.target[-1]
        first = first.select(parted.world.prognostic.names)
        stage = "interpolation" if self.step < self.interpolation_steps else "forecast"
        least = 1 if stage == "interpolation" else 0
        passed = int(torch.randint(least, self.horizon, ()))
        lag = int(torch.randint(2, ()))
        if stage == "interpolation":
            state = parted.interpolated(first, end, window.forcing[passed - 1 + lag], passed, lag=lag)
            target = window.target[passed - 1]
        else:
            state, target = self._forecast(parted, window, first, passed), end
        shares = {name: loss(state, target).mean() for name, loss in losses.items()}
        total = torch.stack([*shares.values()]).sum()
        return total, {f"{stage}_{name}": share.detach() for name, share in shares.items()}

    def _forecast(self, step: Any, window: Window, first: State, passed: int) -> State:
        """The forecast of the horizon from the state after `passed` timesteps, which the interpolator makes at rest."""
        state = first
        if passed:
            with torch.no_grad():
                interpolated = step.interpolated(first, window.target[-1], window.forcing[passed - 1], passed)
            state = interpolated.select(step.world.prognostic.names)
        return step.forecast(state, window.forcing[passed], passed)
