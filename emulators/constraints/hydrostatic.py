"""Hydrostatic: compute geopotential from temperature and humidity.

    Phi <- Phi - imbalance(Phi, T, q)

with the imbalance of `emulators.physics.hydrostatics`. On pressure levels the mean geopotential of a column stays as
predicted: of all balanced columns this is the nearest. On sigma or hybrid levels the surface gives the height.
"""

from __future__ import annotations

from torch import nn

from emulators.physics.hydrostatics import Hydrostatics
from emulators.state import State
from emulators.world import World


class Hydrostatic(nn.Module):
    """Replace geopotential by one in hydrostatic balance.

    topography: False for a flat planet (sigma and hybrid levels).
    """

    changes = ("geopotential",)

    def __init__(self, world: World, *, topography: bool = True) -> None:
        super().__init__()
        self.balance = Hydrostatics(world, topography=topography)
        self.rests_on = self.balance.uses

    def forward(self, before: State, after: State, forcing: State) -> State:
        old = after["geopotential"]
        return after.with_(geopotential=(old.double() - self.balance.imbalance(after)).to(old.dtype))
