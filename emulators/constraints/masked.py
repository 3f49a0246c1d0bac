"""Masked: where data are missing, as sea-surface temperature on land, set the forecast to the data's fill value.

    x <- m x + (1 - m) v,   m = 1 where x has a value, rounded

The data hold v there too, so that prediction and target agree: such points add nothing to any loss and no gradient
passes through them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from emulators.state import State
from emulators.world import World


class Masked(nn.Module):
    """Set predicted variables to a value outside their masks.

    variables: predicted variable -> [its mask, a forcing or static variable; the value where the mask is 0].
    The masks are those that a data source adds (`data.masks`), the values those that it fills in (`data.fill`).
    """

    def __init__(self, world: World, *, variables: Mapping[str, tuple[str, float]]) -> None:
        super().__init__()
        self.variables = {name: (str(mask), float(value)) for name, (mask, value) in variables.items()}
        for name, (mask, _) in self.variables.items():
            if name not in world.predicted:
                raise ValueError(f"masked: '{name}' is not predicted; there are {', '.join(world.predicted.names)}.")
            if mask not in world.forcing and mask not in world.static:
                raise ValueError(
                    f"masked: the mask '{mask}' must be a forcing or static variable; let the data source add it, "
                    f"data.masks=[{name}], and list it."
                )
            if mask in world.static:
                row = world.static.slice(mask).start
                fixed = torch.as_tensor(np.asarray(world.static_fields)[row], dtype=torch.float32)
                self.register_buffer(f"mask_of_{name}", fixed, persistent=False)
        self.static_masks = set(world.static.names)
        self.changes = self.rests_on = tuple(self.variables)
        lowest = min((value for _, value in self.variables.values()), default=0.0)
        self.keeps = ("Positivity",) if lowest >= 0.0 else ()

    def forward(self, before: State, after: State, forcing: State) -> State:
        changed = {}
        for name, (mask, value) in self.variables.items():
            fraction = self.get_buffer(f"mask_of_{name}") if mask in self.static_masks else forcing[mask]
            has_value = fraction.round() == 1.0
            if after.variables.variable(name).levels:
                has_value = has_value.unsqueeze(after.channel_axis)
            changed[name] = torch.where(has_value, after[name], after[name].new_tensor(value))
        return after.with_(**changed)
