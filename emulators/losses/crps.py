"""Continuous ranked probability score of an ensemble, as a loss: sharp members that spread as the truth does.

    L = mean over channels and area of  w_c a_ij (E|x - y| - c/2 E|x - x'|) / s_c

over M members x of one truth y, c as in `emulators.scores.ensemble`: fair scores few members as infinitely many would
be scored (FGN: Alet et al. 2025, arXiv 2506.10772), but does not penalise one member that is wrong while the others
equal the truth; almost fair, alpha below 1, does (AIFS-CRPS: Lang et al. 2024, arXiv 2412.15832). Scales s_c, channel
weights w_c and cell areas a_ij as in the other losses. Without members it is the mean absolute error. Points that do
not count, or where the truth is missing, are left out of both terms, as in FGN.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emulators.scores.counted_points import CountedPoints
from emulators.scores.ensemble import Kind, mean_difference, spread_weight
from emulators.state import State
from emulators.world import World


class CRPS(nn.Module):
    """Compute the CRPS of each case: an ensemble (member, batch, ...) and its truth (batch, ...).

    kind: fair, almost_fair (with its alpha) or biased. points: {variable: land, sea, or the static variable that is 1
    where it counts}; those not named count everywhere. scale, variable_weights, level_weights: as in
    `emulators.scores.channel_weights.ChannelWeights`. A prediction with no more axes than the truth has no members.
    """

    def __init__(
        self,
        world: World,
        *,
        kind: Kind = "almost_fair",
        alpha: float = 0.95,
        points: Mapping[str, str] | None = None,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__()
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"Expected alpha, the share of the fair score, between 0 and 1; got {alpha}.")
        spread_weight(kind, 2, alpha)  # raises ValueError for an unknown kind
        self.kind, self.alpha = kind, alpha
        self.points = CountedPoints(world, points, scale, variable_weights, level_weights)

    def forward(self, prediction: State, target: State) -> Tensor:
        with torch.autocast(prediction.values.device.type, enabled=False):  # means in single precision
            error, counted = self.points.errors(prediction, target)
            if len(prediction.lead) == len(target.lead):
                score = error.abs()
            else:
                weight = spread_weight(self.kind, len(error), self.alpha)
                score = error.abs().mean(dim=0) - 0.5 * weight * mean_difference(error)
            return self.points.mean(score, counted)
