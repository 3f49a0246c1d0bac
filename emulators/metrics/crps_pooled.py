"""CRPS of an ensemble pooled over discs: of their means, or of their largest values.

    CRPS(pool(X), pool(y)),    pool the mean over area, or the maximum, within a radius of each point

It sees whether members agree in space, as scores of single points cannot: the mean of a disc is sharp only where
members are wrong at different places. Price et al. 2025, doi 10.1038/s41586-024-08252-9, with radii of 120 to 3800 km;
CRPS as in `emulators.scores.ensemble`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from emulators.scores.ensemble import mean_difference
from emulators.scores.interfaces import Metric
from emulators.scores.neighbourhoods import Neighbourhood


class PooledCRPS(Metric):
    """Compute the fair CRPS of means or maxima over discs.

    radius: of the discs, km. pool: mean or maximum.
    """

    members = 2
    exponent = 1

    def __init__(self, *, radius: float = 1000.0, pool: Literal["mean", "maximum"] = "mean") -> None:
        if pool not in ("mean", "maximum"):
            raise ValueError(f"`pool` is mean or maximum; got '{pool}'.")
        self.radius, self.pool = radius, pool
        self.definition = f"E|X - y| - E|X - X'| / 2, fair, X and y the {pool} over discs of radius {radius:g} km"
        self.names = tuple(f"{term} {pool} {radius:g} km" for term in ("absolute_member_error", "mean_difference"))

    def local(
        self, near: Neighbourhood, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return members and truth pooled over the disc around each point."""
        pooled = near.mean if self.pool == "mean" else near.maximum
        return pooled(prediction), pooled(target)

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return terms of pooled fields, each of the shape of `target`."""
        error = prediction - target
        return dict(zip(self.names, (error.abs().mean(dim=0), mean_difference(error)), strict=True))

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        error, spread = (means[name] for name in self.names)
        return error - 0.5 * spread
