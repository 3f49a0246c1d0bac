"""Positivity: clip amounts of water, and other variables that cannot be negative, at zero.

    after_v = max(after_v, 0)

With straight_through the backward pass ignores the clipping (Bengio et al. 2013, arXiv 1308.3432), so that a value
below zero still has a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from emulators.physics.fluxes import ROLES, usual_name
from emulators.state import State
from emulators.world import World

DEFAULT = (
    "specific_humidity",
    "specific_cloud_liquid_water_content",
    "specific_cloud_ice_water_content",
    "specific_rain_water_content",
    "specific_snow_water_content",
    "total_column_water_vapour",
    *ROLES["precipitation"][1],  # over any number of hours
)


class Positivity:
    """Clip variables at zero.

    variables: default, the water variables that the world predicts, precipitation over any interval among them.
    straight_through: let gradients pass where a value was clipped.
    """

    def __init__(self, world: World, *, variables: Sequence[str] | None = None, straight_through: bool = False) -> None:
        if variables is None:
            variables = [v.name for v in world.predicted if usual_name(v.name) in DEFAULT and v.positive != "up"]
        unknown = [name for name in variables if name not in world.predicted]
        if unknown:
            raise ValueError(
                f"positivity names {', '.join(unknown)}, which is not predicted; "
                f"the predicted variables are {', '.join(world.predicted.names)}."
            )
        self.variables = self.changes = self.rests_on = tuple(variables)
        self.straight_through = straight_through

    def __call__(self, before: State, after: State, forcing: State) -> State:
        cut = {name: self._cut(after[name]) for name in self.variables}
        return after.with_(**cut) if cut else after

    def _cut(self, values: Tensor) -> Tensor:
        if self.straight_through:
            return values + (values.clamp(min=0.0) - values).detach()
        return values.clamp(min=0.0)
