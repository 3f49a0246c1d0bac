"""PIT histogram: how often the probability integral transform F(y) of the truth falls into each of n equal bins.

F is the normal distribution with the mean and the spread of the members; where they coincide, a step. Flat if F is
calibrated, U-shaped if it is too narrow. The rank histogram is the same for the empirical distribution of the members.
Dawid 1984, doi 10.2307/2981683; Gneiting, Balabdaoui & Raftery 2007, doi 10.1111/j.1467-9868.2007.00587.x.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from emulators.scores.ensemble import gaussian_pit, histogram_shares
from emulators.scores.interfaces import Metric


class PITHistogram(Metric):
    """Compute the shares of the bins, which add up to 1. bins: of equal width from 0 to 1."""

    members = 2
    dims = ("pit_bin",)
    perfect = math.nan

    def __init__(self, *, bins: int = 10) -> None:
        if bins < 2:
            raise ValueError(f"A histogram has 2 bins or more; got {bins}.")
        self.bins, self.name = bins, f"pit_share_{bins}"
        self.definition = f"share of area and inits at which F(y) lies in each of {bins} bins, F normal"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return 1 at the bin of each point, (bin, ...)."""
        return {self.name: histogram_shares(gaussian_pit(prediction, target), self.bins)}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return means[self.name]
