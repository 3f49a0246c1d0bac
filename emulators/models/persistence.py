"""Persistence: the next state equals the last one; the baseline that every emulator has to beat.

prognostic(t + dt) = prognostic(t),   diagnostic = its mean over the training period
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from emulators.world import World


class Persistence(nn.Module):
    """Repeat the last state: (batch, input channel, *grid) to (batch, output channel, *grid), without parameters.

    output: how the Step reads the network's output: `residual` (the output is zero) or `absolute` (it is the last known
    state).
    """

    def __init__(self, world: World, *, output: Literal["residual", "absolute"] = "residual") -> None:
        super().__init__()
        if output not in ("residual", "absolute"):
            raise ValueError(f"Expected output to be 'residual' or 'absolute'; got '{output}'.")
        self.output = output
        self.prognostic, self.diagnostic = world.prognostic.size, world.diagnostic.size
        self.start = (world.history - 1) * world.prognostic.size

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        last = fields[:, self.start : self.start + self.prognostic]
        if self.output == "residual":
            last = torch.zeros_like(last)
        mean = torch.zeros_like(last[:, :1]).expand(-1, self.diagnostic, *last.shape[2:])
        return torch.cat([last, mean], dim=1)
