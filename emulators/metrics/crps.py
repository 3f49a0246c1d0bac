"""Continuous ranked probability score of an ensemble: <E|X - y| - c/2 E|X - X'|>.

It is the mean absolute error of a forecast that is a distribution. fair: independent of the ensemble's size, the CRPS
of WeatherBench 2 and WeatherBench-X. biased: of the ensemble as it is, 1/M^2, as properscoring and xskillscore compute.
almost_fair: alpha of the one and 1 - alpha of the other (Lang et al. 2024, arXiv 2412.15832). Formulas and references
in `emulators.scores.ensemble`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.ensemble import Kind, mean_difference, spread_weight
from emulators.scores.interfaces import Metric


class CRPS(Metric):
    """Compute the CRPS of an ensemble.

    kind: fair, biased or almost_fair, the last with its alpha.
    """

    members = 2
    exponent = 1

    def __init__(self, *, kind: Kind = "fair", alpha: float = 0.95) -> None:
        spread_weight(kind, 2, alpha)  # raises ValueError for an unknown kind
        self.kind, self.alpha = kind, alpha
        self.definition = f"E|X - y| - E|X - X'| / 2, {kind.replace('_', ' ')}" + (
            f" with alpha {alpha:g}" if kind == "almost_fair" else ""
        )

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return pointwise terms, each of the shape of `target`."""
        error = prediction - target
        spread = mean_difference(error)
        return {
            "absolute_member_error": error.abs().mean(dim=0),
            "mean_difference": spread,
            "weighted_difference": spread * spread_weight("biased", prediction.shape[0]),
        }

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        fair, biased = means["mean_difference"], means["weighted_difference"]
        share = {"fair": 1.0, "biased": 0.0, "almost_fair": self.alpha}[self.kind]
        return means["absolute_member_error"] - 0.5 * (share * fair + (1.0 - share) * biased)
