"""Prescribed: overwrite predicted variables with prescribed ones, everywhere or by a mask.

    replace   x <- f where the mask is 1              blend   x <- (1 - m) x + m f

As ACE prescribes sea-surface temperature by ocean fraction (Watt-Meyer et al. 2023, arXiv 2310.02074), and as a
limited area takes its border from a larger model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from emulators.state import State
from emulators.world import World

AT_BOUNDARY, BOUNDARY_ZONE = "_at_boundary", "boundary_zone"


class Prescribed(nn.Module):
    """Overwrite predicted variables with forcing variables.

    variables: predicted variable -> forcing variable; None: every x whose forcing x_at_boundary there is, in the zone
    `boundary_zone` if no other mask is named. mask: forcing or static variable between 0 and 1, or None. invert: use
    1 - mask, as the ocean is where there is no land. blend: `replace` where the mask, rounded, is 1, or `blend` by its
    value.
    """

    fixed: Tensor | None

    def __init__(
        self,
        world: World,
        *,
        variables: Mapping[str, str] | None = None,
        mask: str | None = None,
        invert: bool = False,
        blend: Literal["replace", "blend"] = "replace",
    ) -> None:
        super().__init__()
        if blend not in ("replace", "blend"):
            raise ValueError(f"prescribed takes blend=replace or blend=blend; got '{blend}'.")
        if variables is None:
            variables, mask = _at_boundary(world), mask or BOUNDARY_ZONE
        for name, source in variables.items():
            if name not in world.predicted or source not in world.forcing:
                raise ValueError(
                    f"prescribed writes a forcing over a predicted variable; got {name}: {source}. Predicted are "
                    f"{', '.join(world.predicted.names)}; forcings are {', '.join(world.forcing.names) or 'none'}."
                )
            if world.predicted.variable(name).levels != world.forcing.variable(source).levels:
                raise ValueError(f"prescribed cannot write {source} over {name}: their levels differ.")
        if mask is not None and mask not in world.forcing and mask not in world.static:
            raise ValueError(f"prescribed needs its mask '{mask}' among the forcing or static variables.")
        self.variables, self.mask, self.invert, self.blend = dict(variables), mask, invert, blend
        self.changes = self.rests_on = tuple(self.variables)
        fixed = None
        if mask is not None and mask in world.static:
            row = world.static.slice(mask).start
            fixed = torch.as_tensor(np.asarray(world.static_fields)[row], dtype=torch.float32)
        self.register_buffer("fixed", fixed, persistent=False)

    def forward(self, before: State, after: State, forcing: State) -> State:
        changed = {}
        for name, source in self.variables.items():
            prescribed = forcing[source].to(after.values.dtype).expand_as(after[name])
            mask = self._mask(after, forcing)
            if mask is None:
                changed[name] = prescribed
                continue
            if after.variables.variable(name).levels:
                mask = mask.unsqueeze(after.channel_axis)
            if self.blend == "replace":
                changed[name] = torch.where(mask.round() == 1.0, prescribed, after[name])
            else:
                changed[name] = (1.0 - mask) * after[name] + mask * prescribed
        return after.with_(**changed)

    def _mask(self, after: State, forcing: State) -> Tensor | None:
        """Return the mask, (*lead, *grid), or None if there is none."""
        if self.mask is None:
            return None
        mask = (forcing[self.mask] if self.fixed is None else self.fixed).to(after.values.dtype)
        return 1.0 - mask if self.invert else mask


def _at_boundary(world: World) -> dict[str, str]:
    """Return the predicted variables that are prescribed at a boundary, and by which forcing."""
    names = {name: f"{name}{AT_BOUNDARY}" for name in world.predicted.names if f"{name}{AT_BOUNDARY}" in world.forcing}
    if not names:
        raise ValueError(
            f"prescribed: expected variables, or forcings named x{AT_BOUNDARY} of a predicted x; got "
            f"{', '.join(world.forcing.names) or 'none'}. Name variables={{predicted: forcing}}, or list the forcings "
            "that data.prescribe makes."
        )
    return names
