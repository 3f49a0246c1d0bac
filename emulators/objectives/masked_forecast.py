"""Masked forecasts: from a visible part of a state, the whole state, now or later.

    L = loss(step(visible part of x(t), k), x(t + k)),     k drawn from `intervals`, 0: what is hidden of x(t) itself

Whole units of the map are hidden, or as large a share of every unit, and the one or the other is drawn batch by batch.
Prithvi WxC's mixed objective of reconstruction and forecast (Schmude et al. 2024, arXiv 2409.13598), as He et al. 2022,
arXiv 2111.06377, hide pictures. Intervals and kinds of masks are drawn by optimiser step, masks sample by sample
(`layers.sample_draws`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emulators.interfaces import Loss, Network, Objective, optional
from emulators.layers.sample_draws import uniform
from emulators.state import State, Window
from emulators.world import World

MASKS = ("units", "tokens")


class MaskedForecast(Objective):
    """Train on forecasts and reconstructions of states of which the network sees a part.

    intervals: in timesteps of the World, 0 for reconstruction. hidden: share that is masked. masks: `units`, `tokens`
    or both.
    """

    def __init__(
        self,
        world: World,
        *,
        intervals: Sequence[int] = (0, 1, 2, 4),
        hidden: float = 0.5,
        masks: Sequence[str] = MASKS,
    ) -> None:
        if not intervals or min(intervals) < 0 or not 0.0 <= hidden < 1.0 or not masks or set(masks) - set(MASKS):
            raise ValueError(
                "objective.intervals must be lengths of 0 or more timesteps, objective.hidden a share in [0, 1) and "
                f"objective.masks some of {', '.join(MASKS)}; got {list(intervals)}, {hidden} and {list(masks)}."
            )
        self.intervals, self.hidden, self.masks = list(intervals), hidden, list(masks)

    @property
    def longest(self) -> int:
        """Timesteps that a window must hold: the first makes its last known state one with diagnostic variables."""
        return 1 + max(self.intervals)

    def length(self, step: int) -> int:
        """The same at every optimiser step."""
        return self.longest

    def begin(self, step: Any) -> None:
        """Raise ValueError where the network takes no masks, or the step does not know an interval."""
        network = step.network
        if not optional(network, Network, "units"):
            raise ValueError(f"{type(network).__name__} has no units to hide; take model=prithvi or another objective.")
        if 0 in self.intervals and step.output != "absolute":
            raise ValueError("What is now is no change: with 0 among objective.intervals take step.output=absolute.")
        step.refuse_intervals(self.intervals)

    def __call__(
        self, step: torch.nn.Module, window: Window, losses: Mapping[str, Loss]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and its detached parts by loss and interval in timesteps."""
        interval = self.intervals[int(torch.randint(len(self.intervals), ()))]
        history = (*window.history[1:], window.target[0])
        visible = self.visible(step, history[-1])
        state = step(history, window.forcing[interval], **visible)
        total, parts = torch.zeros((), device=state.values.device), {}
        for name, loss in losses.items():
            value = loss(state, window.target[interval]).mean()
            parts[f"{name}_{interval}"] = value.detach()
            total = total + value
        return total, parts

    def visible(self, step: Any, state: State) -> dict[str, Tensor]:
        """Draw the places that the network sees, for each case."""
        network = step.network
        kind = self.masks[int(torch.randint(len(self.masks), ()))]
        rows, count = (1, network.units) if kind == "units" else (network.units, network.tokens)
        visible_count = count - int(self.hidden * count)
        draws = uniform((int(np.prod(state.lead)), rows, count)).unflatten(0, state.lead)
        order = draws.argsort(-1)[..., :visible_count]
        return {kind: order.flatten(-2).to(state.values.device)}
