"""SEEPS, the stable equitable error in probability space of precipitation: how often, and how far, its class is wrong.

Classes are dry, light and heavy; their limits and weights follow the climate of each point: p1, the share of dry cases,
and the amount that two of three wet cases stay below. Points with p1 outside 0.1..0.85 are left out.
Rodwell et al. 2010, doi 10.1002/qj.656, as in WeatherBench 2 and WeatherBench-X.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from emulators.scores.events import seeps
from emulators.scores.interfaces import Metric

DRY_SHARES = (0.1, 0.85)  # range of p1 in which points are scored


class SEEPS(Metric):
    """Compute SEEPS, for variables of which the climatology has thresholds.

    dry: the largest amount that counts as dry, in m: 1e-4 for sums over 6 h, 2.5e-4 for 24 h.
    """

    needs = ("seeps_threshold", "seeps_dry_share")

    def __init__(self, *, dry: float) -> None:
        if not dry >= 0:
            raise ValueError(f"`dry` is an amount of precipitation in m, at least 0; got {dry}.")
        self.dry = dry
        self.definition = (
            f"SEEPS, dry up to {1000 * dry:g} mm, points with a dry share of {DRY_SHARES[0]} to {DRY_SHARES[1]}"
        )

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return pointwise terms, each of the shape of `target`."""
        share = climatology["seeps_dry_share"]
        valid = (share >= DRY_SHARES[0]) & (share <= DRY_SHARES[1])
        score = seeps(prediction, target, self.dry, climatology["seeps_threshold"], torch.where(valid, share, 0.5))
        counted = valid.to(score) + 0.0 * (prediction + target)
        return {f"seeps_{self.dry:g}": torch.where(valid, score, counted), "seeps_points": counted}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return means[f"seeps_{self.dry:g}"] / means["seeps_points"]
