"""Kernel energy score of an ensemble, as a loss: the CRPS of whole fields, which sees if members look like weather.

    L = E |x - y|^beta - c/2 E |x - x'|^beta,    |x|^2 = mean over area of (x / s)^2

channel by channel with a mean over them, or with one norm over all channels. 0 < beta < 2; beta = 1 is the energy
score. c as in `emulators.scores.ensemble`. Gneiting & Raftery 2007, doi 10.1198/016214506000001437; as a training loss:
Pacchiardi et al. 2024, arXiv 2112.08217.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emulators.scores.counted_points import CountedPoints
from emulators.scores.ensemble import Kind, kernel_score, root, spread_weight
from emulators.state import State
from emulators.world import World


class EnergyScore(nn.Module):
    """Compute the energy score of each case: an ensemble (member, batch, ...) and its truth (batch, ...).

    beta: exponent of the norm. jointly: one norm over all channels, by their weights. kind, alpha, points, scale,
    variable_weights, level_weights: as in `emulators.losses.crps.CRPS`. Without members it is |x - y|^beta.
    """

    def __init__(
        self,
        world: World,
        *,
        beta: float = 1.0,
        jointly: bool = False,
        kind: Kind = "almost_fair",
        alpha: float = 0.95,
        points: Mapping[str, str] | None = None,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__()
        if not 0.0 < beta < 2.0:
            raise ValueError(f"Expected beta, the exponent of the norm, between 0 and 2; got {beta}.")
        spread_weight(kind, 2, alpha)  # raises ValueError for an unknown kind
        self.beta, self.jointly, self.kind, self.alpha = beta, jointly, kind, alpha
        self.points = CountedPoints(world, points, scale, variable_weights, level_weights)

    def forward(self, prediction: State, target: State) -> Tensor:
        with torch.autocast(prediction.values.device.type, enabled=False):  # means in single precision
            error, counted = self.points.errors(prediction, target)

            def size(fields: Tensor) -> Tensor:
                return self._size(fields, counted)

            if len(prediction.lead) == len(target.lead):
                return size(error)
            return kernel_score(error, size, self.kind, self.alpha)

    def _size(self, fields: Tensor, counted: Tensor | None) -> Tensor:
        """Return the norms of fields to the power beta, (*lead, channel, *grid) -> (*lead)."""
        if self.jointly:
            return root(self.points.mean(fields.square(), counted), self.beta / 2.0)
        norms = root(self.points.area_mean(fields.square(), counted), self.beta / 2.0)
        return (norms * self.points.weights.to(norms.dtype)).sum(dim=-1)
