"""Negative log likelihood of the truth under the normal distribution with the mean and deviation of an ensemble.

    L = mean over channels and area of  w_c a_ij (log(d / floor) + e^2 / (2 d^2) + q s^2),     d = s + floor

e is the error of the members' mean, s their deviation (divided by M), both in units of the channel's scale; floor keeps
the likelihood finite, q weighs the variance itself. Two members one deviation either side of the mean give a network's
own distribution exactly (objective=emission). As ClimODE is trained: Verma et al. 2024, arXiv 2404.10024; its floor is
0.001 of the range of a variable, and its q s^2 a sum over all points.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emulators.scores.channel_weights import AreaChannelWeights
from emulators.state import State
from emulators.world import World


class GaussianNLL(nn.Module):
    """Compute the negative log likelihood of each case: an ensemble (member, batch, ...) and its truth (batch, ...).

    floor: the least deviation, in units of the scale, above 0. variance: q, the weight of the variance, at least 0.
    scale, variable_weights, level_weights: as in `emulators.scores.channel_weights.ChannelWeights`. A prediction with
    no more axes than the truth has no spread.
    """

    def __init__(
        self,
        world: World,
        *,
        floor: float = 0.01,
        variance: float = 0.0,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__()
        if floor <= 0 or variance < 0:
            raise ValueError(f"Expected a positive floor and no negative weight of variance; got {floor}, {variance}.")
        self.floor, self.variance = floor, variance
        self.points = AreaChannelWeights(world, scale, variable_weights, level_weights)

    def forward(self, prediction: State, target: State) -> Tensor:
        with torch.autocast(prediction.values.device.type, enabled=False):  # means in single precision
            error = self.points.scaled(self.points.difference(prediction, target), prediction)
            spread = torch.zeros_like(error)
            if len(prediction.lead) > len(target.lead):
                mean = error.mean(dim=0)
                spread = _deviation(error - mean)
                error = mean
            d = spread + self.floor
            score = torch.log(d / self.floor) + 0.5 * (error / d).square() + self.variance * spread.square()
            return self.points.mean(score)


def _deviation(anomalies: Tensor) -> Tensor:
    """Return the root of the mean square over members, with a finite gradient where all agree."""
    return torch.linalg.vector_norm(anomalies, dim=0) / len(anomalies) ** 0.5
