"""Hydrostatic balance: the distance of a forecast's geopotential from that implied by its temperature.

    L = mean over levels and area of ((imbalance - imbalance_target) / s_k)^2

with the imbalance of `emulators.physics.hydrostatics` and s_k the geopotential's change over a timestep. The imbalance
of the target comes from its discrete levels; it is no error of the forecast.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emulators.physics.hydrostatics import Hydrostatics
from emulators.state import State
from emulators.world import World


class HydrostaticBalance(nn.Module):
    """Penalise departures from hydrostatic balance.

    topography: False for a flat planet (sigma and hybrid levels).
    """

    area: Tensor
    scale: Tensor

    def __init__(self, world: World, *, topography: bool = True) -> None:
        super().__init__()
        self.balance = Hydrostatics(world, part="hydrostatic_balance", topography=topography)
        variables = world.predicted.select(["geopotential"])
        kind = "tendency_std" if "geopotential" in world.prognostic else "std"
        scale = torch.as_tensor(world.scale(variables, kind), dtype=torch.float64)
        area = torch.as_tensor(world.grid.weights / world.grid.weights.sum(), dtype=torch.float64)
        self.register_buffer("scale", scale.reshape(-1, *[1] * area.ndim), persistent=False)
        self.register_buffer("area", area, persistent=False)

    def forward(self, prediction: State, target: State) -> Tensor:
        error = (self.balance.imbalance(prediction) - self.balance.imbalance(target)) / self.scale
        means = (error.square() * self.area).flatten(-prediction.rank).sum(-1)
        return means.mean(-1).to(prediction.values.dtype)
