"""Rank histogram: how often, by area, the truth ranks k-th among the members, k = 0..M from below all to above all.

Flat if the truth could be one of the members; ties are shared evenly among the possible ranks. Hamill 2001,
doi 10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2; weighted by area as in WeatherBench-X.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from emulators.scores.ensemble import rank_shares
from emulators.scores.interfaces import Metric


class RankHistogram(Metric):
    """Compute the shares of the ranks, which add up to 1."""

    members = 1
    dims = ("rank",)
    perfect = math.nan
    definition = "share of area and inits at which the truth has each rank among the members"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return 1 at the rank of each point, (member + 1, ...)."""
        return {"rank_share": rank_shares(prediction, target)}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return means["rank_share"]
