"""Bounds: clip values outside a range to its edge; a share is at least 0 and at most 1.

    after_v = min(max(after_v, low), high)

With straight_through the backward pass ignores the clipping (Bengio et al. 2013, arXiv 1308.3432).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from emulators.state import State
from emulators.world import World

DEFAULT = {
    "total_cloud_cover": (0.0, 1.0),
    "low_cloud_cover": (0.0, 1.0),
    "medium_cloud_cover": (0.0, 1.0),
    "high_cloud_cover": (0.0, 1.0),
    "sea_ice_cover": (0.0, 1.0),
    "fraction_of_cloud_cover": (0.0, 1.0),
    "specific_humidity": (0.0, 1.0),
    "volumetric_soil_water_layer_1": (0.0, 1.0),
    "volumetric_soil_water_layer_2": (0.0, 1.0),
    "volumetric_soil_water_layer_3": (0.0, 1.0),
    "volumetric_soil_water_layer_4": (0.0, 1.0),
}


class Bounds:
    """Clip variables to limits.

    limits: variable -> [low, high], either null for no limit; null: the limits of all variables bounded by definition.
    straight_through: let gradients pass where a value was clipped.
    """

    def __init__(
        self,
        world: World,
        *,
        limits: Mapping[str, Sequence[float | None]] | None = None,
        straight_through: bool = False,
    ) -> None:
        if limits is None:
            limits = {name: pair for name, pair in DEFAULT.items() if name in world.predicted}
        self.limits = {name: _pair(name, pair) for name, pair in limits.items()}
        unknown = [name for name in self.limits if name not in world.predicted]
        if unknown:
            raise ValueError(
                f"bounds names {', '.join(unknown)}, which is not predicted; "
                f"the predicted variables are {', '.join(world.predicted.names)}."
            )
        self.changes = self.rests_on = tuple(self.limits)
        highs = [high for _, high in self.limits.values() if high is not None]
        self.keeps = ("Positivity",) if min(highs, default=0.0) >= 0.0 else ()
        self.straight_through = straight_through

    def __call__(self, before: State, after: State, forcing: State) -> State:
        cut = {name: self._cut(after[name], *pair) for name, pair in self.limits.items()}
        return after.with_(**cut) if cut else after

    def _cut(self, values: Tensor, low: float | None, high: float | None) -> Tensor:
        if self.straight_through:
            return values + (values.clamp(low, high) - values).detach()
        return values.clamp(low, high)


def _pair(name: str, pair: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Return (low, high) of one variable. Raises ValueError if they are no range."""
    low, high = pair if len(pair) == 2 else (None, None)
    if (low is None and high is None) or (low is not None and high is not None and low > high):
        raise ValueError(f"bounds of {name} are [low, high], one of which may be null; got {list(pair)}.")
    return low, high
