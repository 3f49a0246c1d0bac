"""CRPS of an ensemble at several scales, as a loss: of the fields, and of their means over ever larger boxes.

    L = sum_k v_k CRPS(mean over boxes of k x k points) / sum_k v_k

A box has the area of the points in it that count, and weighs so much. A score of points alone is blind to errors that
members share over a region; means over boxes see them. As the multi-scale loss of AIFS-CRPS (Lang et al. 2025, arXiv
2506.10868); area-pooled CRPS: Price et al. 2025, doi 10.1038/s41586-024-08252-9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.scores.counted_points import CountedPoints
from emulators.scores.ensemble import Kind, mean_difference, spread_weight
from emulators.state import State
from emulators.world import World


class MultiscaleCRPS(nn.Module):
    """Compute the multi-scale CRPS of each case: an ensemble (member, batch, ...) and its truth (batch, ...).

    scales: sides of the boxes in points, 1 for the fields themselves. shares: of the scales; default: equal. kind,
    alpha, points, scale, variable_weights, level_weights: as in `emulators.losses.crps.CRPS`. Without members it is the
    mean absolute error at these scales.
    """

    area_map: Tensor

    def __init__(
        self,
        world: World,
        *,
        scales: Sequence[int] = (1, 2, 4, 8),
        shares: Sequence[float] | None = None,
        kind: Kind = "almost_fair",
        alpha: float = 0.95,
        points: Mapping[str, str] | None = None,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__()
        if not scales or min(scales) < 1:
            raise ValueError(f"Expected boxes of at least 1 point on rows of latitude; got {scales} on {world.grid!r}.")
        shares = [1.0] * len(scales) if shares is None else list(shares)
        if len(shares) != len(scales) or min(shares) < 0 or sum(shares) == 0:
            raise ValueError(f"Expected one share for each of scales {list(scales)}, none negative; got {shares}.")
        spread_weight(kind, 2, alpha)  # raises ValueError for an unknown kind
        self.scales = {int(k): share / sum(shares) for k, share in zip(scales, shares, strict=True)}
        self.kind, self.alpha = kind, alpha
        self.points = CountedPoints(world, points, scale, variable_weights, level_weights)
        self.register_buffer("area_map", self.points.area.view(world.lat_lon.shape), persistent=False)

    def forward(self, prediction: State, target: State) -> Tensor:
        with torch.autocast(prediction.values.device.type, enabled=False):  # means in single precision
            error, counted = self.points.errors(prediction, target)
            has_members = len(prediction.lead) > len(target.lead)
            area = self.area_map.to(error.dtype)
            area = area.expand(error.shape[-3:]) if counted is None else area * counted
            means = sum(share * self._score(error, area, k, has_members) for k, share in self.scales.items())
            return (means * self.points.weights.to(error.dtype)).sum(-1)

    def _score(self, error: Tensor, area: Tensor, side: int, has_members: bool) -> Tensor:
        """Return the mean score of boxes, (*lead, channel)."""
        if side > 1:
            error, area = _boxes(error * area, side), _boxes(area, side)
            error = error / area.clamp(min=1e-12)
        if has_members:
            weight = spread_weight(self.kind, len(error), self.alpha)
            score = error.abs().mean(0) - 0.5 * weight * mean_difference(error)
        else:
            score = error.abs()
        return (score * area).sum((-2, -1)) / area.sum((-2, -1)).clamp(min=1e-12)


def _boxes(fields: Tensor, side: int) -> Tensor:
    """Return sums over boxes, (..., lat, lon) to (..., boxes, boxes); the last ones hold what is left."""
    rows = fields.reshape(-1, 1, *fields.shape[-2:])
    sides = [min(side, size) for size in fields.shape[-2:]]
    sums = F.avg_pool2d(rows, sides, ceil_mode=True, divisor_override=1)
    return sums.view(*fields.shape[:-2], *sums.shape[-2:])
