"""Zero-mean moisture advection: let the wind move moisture between columns without creating any.

    A <- A - <A>,    <.> the global mean

as in ACE (Watt-Meyer et al. 2024, arXiv 2411.11268).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emulators.physics import fluxes
from emulators.state import State
from emulators.world import World


class ZeroMeanMoistureAdvection(nn.Module):
    """Subtract the global mean from the advection of moisture.

    advection: name of the variable; default, the first usual name that is predicted.
    """

    area: Tensor

    def __init__(self, world: World, *, advection: str | None = None) -> None:
        super().__init__()
        if not world.grid.is_global:
            raise ValueError(f"Moisture enters and leaves a limited area; got a {world.grid!r}.")
        names = fluxes.ROLES["moisture advection"][1] if advection is None else (advection,)
        self.name = next((name for name in names if name in world.predicted), "")
        if not self.name:
            raise ValueError(
                f"zero_mean_moisture_advection needs {fluxes.names_of(['moisture advection'])} among the predicted "
                f"variables; they are {', '.join(world.predicted.names)}."
            )
        self.changes = self.rests_on = (self.name,)
        area = torch.as_tensor(world.grid.weights / world.grid.weights.sum(), dtype=torch.float64)
        self.register_buffer("area", area, persistent=False)

    def forward(self, before: State, after: State, forcing: State) -> State:
        exact = after[self.name].double()
        mean = (exact * self.area).sum(tuple(range(-after.rank, 0)), keepdim=True)
        return after.with_(**{self.name: (exact - mean).to(after.values.dtype)})
