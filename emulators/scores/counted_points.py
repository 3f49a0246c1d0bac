"""Points that count in a loss, variable by variable: land, sea, a mask of the data, and where the truth is known.

    L = mean over channels of  w_c sum_ij n_cij a_ij f_cij / sum_ij n_cij a_ij,    n = 1 where a point counts, else 0

FGN (Alet et al. 2025, arXiv 2506.10772) leaves such points out of both terms of a CRPS.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from emulators.scores.channel_weights import AreaChannelWeights
from emulators.state import State
from emulators.world import World

LAND = "land_sea_mask"


class CountedPoints(AreaChannelWeights):
    """Weigh channels and areas as AreaChannelWeights does, over the points that count.

    points: {variable: `land`, `sea`, or a static variable that is 1 where it counts}. Raises ValueError for a variable
    that is not predicted, or a mask that the World does not have.
    """

    mask: Tensor | None

    def __init__(
        self,
        world: World,
        points: Mapping[str, str] | None = None,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__(world, scale, variable_weights, level_weights)
        if unknown := [name for name in points or {} if name not in world.predicted]:
            raise ValueError(
                f"points names {', '.join(unknown)}, which is not predicted; known are "
                f"{', '.join(world.predicted.names)}."
            )
        mask = np.ones((world.output_channels, *world.grid.shape), dtype=bool)
        for name, where in (points or {}).items():
            mask[world.predicted.slice(name)] = _where(world, where)
        self.register_buffer("mask", torch.from_numpy(mask) if points else None, persistent=False)

    def counted(self, target: State) -> Tensor | None:
        """Return which points of a truth count, (*lead, channel, *grid); None where all do."""
        valid = ~torch.isnan(target.values)
        if self.mask is not None:
            return valid & self.mask
        return None if bool(valid.all()) else valid

    def errors(self, prediction: State, target: State) -> tuple[Tensor, Tensor | None]:
        """Return scaled errors, ([member,] *lead, channel, *grid), 0 where a point does not count, and which count."""
        error, counted = self.scaled(self.difference(prediction, target), prediction), self.counted(target)
        return error if counted is None else torch.where(counted, error, 0.0), counted

    def mean(self, values: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return the weighted mean over channels and the area that counts, (*lead, channel, *grid) -> (*lead)."""
        means = self.area_mean(values, counted)
        return (means * self.weights.to(values.dtype)).sum(dim=-1)

    def area_mean(self, values: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return the mean over the area that counts, (*lead, channel, *grid) -> (*lead, channel)."""
        area = self.area.to(values.dtype)
        if counted is None:
            return values.flatten(-self.rank) @ area
        size = counted.to(values.dtype).flatten(-self.rank) @ area
        return torch.where(counted, values, 0.0).flatten(-self.rank) @ area / size.clamp(min=1e-12)


def _where(world: World, where: str) -> np.ndarray:
    """Return the points, (*grid), that `where` names."""
    name = LAND if where in ("land", "sea") else where
    if name not in world.static or world.static_fields is None:
        raise ValueError(
            f"points: '{where}' needs the static variable '{name}'; there are "
            f"{', '.join(world.static.names) or 'none'}."
        )
    field = np.asarray(world.static_fields[world.static.slice(name)][0])
    return field < 0.5 if where == "sea" else field >= 0.5
