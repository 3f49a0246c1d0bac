"""Area-weighted L^p losses: mean squared error, mean absolute error, and Huber's joint of the two.

    L = mean over channels and area of  w_c a_ij f((prediction - target) / s_c),    f(e) = |e|^p
    Huber  f(e) = e^2 / 2 where |e| < delta, else delta (|e| - delta / 2)
    logarithmic  l(prediction / s_c) - l(target / s_c) in place of the difference,    l(x) = sign(x) log(1 + |x|)

s_c is the channel's scale in the training period; the channel weights w_c and the cell areas a_ij have mean 1.
Huber 1964, doi 10.1214/aoms/1177703732.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.scores.channel_weights import AreaChannelWeights
from emulators.scores.counted_points import CountedPoints
from emulators.state import State
from emulators.world import World


class Lp(nn.Module):
    """Compute an L^p or Huber loss for each lead element of two States.

    p: the exponent, at least 1. huber: delta of the Huber loss, which replaces p. points: {variable: land, sea, or the
    static variable that is 1 where it counts}, as in `emulators.losses.crps.CRPS`; those not named count everywhere.
    logarithmic: variables compared by their logarithms, such as rain, most of which falls in few places.
    scale, variable_weights, level_weights: as in `emulators.scores.channel_weights.ChannelWeights`.
    """

    def __init__(
        self,
        world: World,
        *,
        p: float = 2.0,
        huber: float | None = None,
        logarithmic: Sequence[str] = (),
        points: Mapping[str, str] | None = None,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__()
        if p < 1 or (huber is not None and huber <= 0):
            raise ValueError(f"Expected p of at least 1 and a positive huber; got p={p} and huber={huber}.")
        if unknown := [name for name in logarithmic if name not in world.predicted]:
            names = ", ".join(world.predicted.names)
            raise ValueError(f"logarithmic names {', '.join(unknown)}, which is not predicted; known are {names}.")
        self.p, self.huber, self.logarithmic = p, huber, tuple(logarithmic)
        weights = scale, variable_weights, level_weights
        self.points = CountedPoints(world, points, *weights) if points else AreaChannelWeights(world, *weights)

    def forward(self, prediction: State, target: State) -> Tensor:
        with torch.autocast(prediction.values.device.type, enabled=False):  # means in single precision
            error = self.points.scaled(self.points.difference(prediction, target), prediction)
            if self.logarithmic:
                error = self._with_logarithms(error, prediction, target)
            if isinstance(self.points, CountedPoints):
                return self.points.mean(self._size(error), self.points.counted(target))
            return self.points.mean(self._size(error))

    def _with_logarithms(self, error: Tensor, prediction: State, target: State) -> Tensor:
        """Return the errors, replaced by those of logarithms for the variables in `logarithmic`."""
        predicted, true = (_logarithm(self.points.scaled(state.values, prediction)) for state in (prediction, target))
        is_logarithmic = [
            variable.name in self.logarithmic for variable in prediction.variables for _ in variable.channels
        ]
        mask = torch.tensor(is_logarithmic, device=error.device).reshape(-1, *[1] * prediction.rank)
        return torch.where(mask, predicted - true, error)

    def _size(self, error: Tensor) -> Tensor:
        if self.huber is not None:
            return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.huber)
        if self.p == 2:
            return error.square()
        return error.abs() if self.p == 1 else error.abs().pow(self.p)


def _logarithm(x: Tensor) -> Tensor:
    """Return sign(x) log(1 + |x|)."""
    return x.abs().log1p().copysign(x)
