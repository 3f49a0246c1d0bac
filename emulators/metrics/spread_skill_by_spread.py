"""Spread over skill where the spread is small, and where it is large: does the ensemble know when it is sure?

    r_k = sqrt(<V>_k / <(mean x - y)^2 - V / M>_k),    k the bin of s / c, s^2 = V, c the climatology's deviation

1 in every bin if the spread says how large the error will be; above 1 at large and below 1 at small spread, if its
differences mean nothing. Of few members some are close by chance, and small spreads come out below 1 in good ensembles
too: compare those of as many members. Leutbecher & Palmer 2008, doi 10.1016/j.jcp.2007.02.014.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from emulators.scores.ensemble import debiased_squared_error, spread_skill, variance
from emulators.scores.interfaces import Metric


class SpreadSkillBySpread(Metric):
    """Compute spread over skill in bins of spread.

    bins: of equal width in spread over the climatology's standard deviation, the last one open. largest: where it
    begins.
    """

    needs = ("std",)
    members = 2
    dims = ("spread_bin",)
    perfect = math.nan

    def __init__(self, *, bins: int = 10, largest: float = 1.0) -> None:
        if bins < 2 or largest <= 0.0:
            raise ValueError(f"Expected 2 bins or more and a positive largest; got {bins} and {largest:g}.")
        self.bins, self.width = bins, largest / (bins - 1)
        self.definition = f"sqrt(mean variance / debiased squared error) by spread, {bins} bins of {self.width:g} std"
        self.names = tuple(f"{term} in {bins} bins of {self.width:g}" for term in ("variance", "debiased_error"))

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return terms in the bin of each point and 0 in the others, (bin, ...) each."""
        spread = variance(prediction)
        place = (spread.sqrt() / (climatology["std"] * self.width)).clamp(max=self.bins - 1.0).floor()
        number = torch.arange(self.bins, dtype=place.dtype, device=place.device).view(-1, *(1,) * place.ndim)
        inside = (place == number).to(spread.dtype) + 0.0 * (place + target)  # NaN where anything is missing
        return dict(
            zip(self.names, (inside * spread, inside * debiased_squared_error(prediction, target)), strict=True)
        )

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms, NaN in bins without points."""
        return spread_skill(*(means[name] for name in self.names))
