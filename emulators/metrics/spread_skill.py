"""Spread over skill: sqrt(<V> / <(mean x - y)^2 - V/M>), 1 where the truth could be one of the members.

Below 1 the ensemble is overconfident, above 1 too wide; without the debiased denominator a perfect ensemble would score
sqrt(M / (M + 1)) (`UnbiasedSpreadSkillRatio` of WeatherBench-X). Fortin et al. 2014, doi 10.1175/JHM-D-14-0008.1.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.ensemble import debiased_squared_error, spread_skill, variance
from emulators.scores.interfaces import Metric


class SpreadSkill(Metric):
    """Compute the ratio of the spread to the debiased error of the ensemble mean."""

    members = 2
    vector = True
    perfect = 1.0
    definition = "sqrt(mean variance / mean of ((ensemble mean - truth)^2 - variance / M))"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return pointwise terms, each of the shape of `target`."""
        return {
            "variance": variance(prediction) + 0.0 * target,
            "debiased_squared_error": debiased_squared_error(prediction, target),
        }

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return spread_skill(means["variance"], means["debiased_squared_error"])
