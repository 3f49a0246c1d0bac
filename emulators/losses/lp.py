"""Area-weighted L^p losses: mean squared error, mean absolute error, and Huber's joint of the two.

    L = mean over channels and area of  w_c a_ij f((prediction - target) / s_c),    f(e) = |e|^p
    Huber  f(e) = e^2 / 2 where |e| < delta, else delta (|e| - delta / 2)

s_c is the channel's scale in the training period; the channel weights w_c and the cell areas a_ij have mean 1.
Huber 1964, doi 10.1214/aoms/1177703732.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.state import State
from emulators.weights import Channels
from emulators.world import World


class Lp(nn.Module):
    """One number a lead element of two States of the world's predicted variables.

    p: the exponent, at least 1. huber: delta of the Huber loss, which takes the place of p.
    scale, variable_weights, level_weights: as in `emulators.weights.Channels`.
    """

    area: Tensor

    def __init__(
        self,
        world: World,
        *,
        p: float = 2.0,
        huber: float | None = None,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__()
        if p < 1 or (huber is not None and huber <= 0):
            raise ValueError(f"Expected p of at least 1 and a positive huber; got p={p} and huber={huber}.")
        self.p, self.huber = p, huber
        self.channels = Channels(world, scale, variable_weights, level_weights)
        area = torch.as_tensor(world.grid.weights.reshape(-1) / world.grid.weights.size, dtype=torch.float32)
        self.register_buffer("area", area, persistent=False)

    def forward(self, prediction: State, target: State) -> Tensor:
        with torch.autocast(prediction.values.device.type, enabled=False):  # means in single precision
            error = self.channels.scaled(self.channels.difference(prediction, target))
            means = self._size(error).flatten(-prediction.rank) @ self.area.to(error.dtype)
            return self.channels.mean(means)

    def _size(self, error: Tensor) -> Tensor:
        if self.huber is not None:
            return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.huber)
        if self.p == 2:
            return error.square()
        return error.abs() if self.p == 1 else error.abs().pow(self.p)
