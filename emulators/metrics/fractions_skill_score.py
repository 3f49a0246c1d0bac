"""Fractions skill score: does an event cover the right share of a neighbourhood, wherever in it?

    FSS = 1 - <(P - O)^2> / (<P^2> + <O^2>)

O is the share of the disc around a point in which the event came about, P that share in the forecast, averaged over
members. 1 is perfect, 0 no overlap; useful from (1 + frequency) / 2 up. The event is that the field exceeds a
climatological quantile of the valid time, or an amount. Roberts & Lean 2008, doi 10.1175/2007MWR2123.1; of ensembles,
Schwartz et al. 2010, doi 10.1175/2009WAF2222267.1.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.events import Threshold, event
from emulators.scores.interfaces import Metric
from emulators.scores.neighbourhoods import Neighbourhood


class FractionsSkillScore(Metric):
    """Compute the fractions skill score of a forecast or an ensemble.

    radius: of the neighbourhoods, km. quantile, threshold, gaussian: as in `EventScore`.
    """

    members = 1
    perfect = 1.0

    def __init__(
        self,
        *,
        radius: float = 1000.0,
        quantile: float | None = None,
        threshold: float | None = None,
        gaussian: bool = False,
    ) -> None:
        self.radius, self.threshold = radius, Threshold(quantile, threshold, gaussian)
        self.needs = self.threshold.needs
        place = f"{self.threshold} within {radius:g} km"
        self.definition = f"1 - <(P - O)^2> / (<P^2> + <O^2>), shares P and O {place}"
        self.names = tuple(f"{term} {place}" for term in ("fraction_error", "fraction_reference"))

    def local(
        self, near: Neighbourhood, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the shares of the disc around each point in which the event is forecast and came about."""
        limit = self.threshold.field(climatology)
        return near.mean(event(prediction, limit).mean(dim=0, keepdim=True)), near.mean(event(target, limit))

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return terms of shares, each of the shape of `target`."""
        share = prediction.mean(dim=0)
        terms = (share - target).square(), share.square() + target.square()
        return dict(zip(self.names, terms, strict=True))

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        error, reference = (means[name] for name in self.names)
        return 1.0 - error / reference
