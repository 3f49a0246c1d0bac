"""Metric: what a score must say of itself. Statistics of single points, and the score from their means.

    score = value(<s_1>, <s_2>, ...),   < > the mean over area and initial times

so that sums of any batches, processes or runs add up to the whole (WeatherBench-X,
https://github.com/google-research/weatherbenchX). A metric subclasses this for the defaults; nothing else is inherited.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from emulators.state import State


class Product(NamedTuple):
    """A statistic a b, which is averaged over area without being stored at each point; both of one shape."""

    first: Tensor
    second: Tensor

    def at_points(self) -> Tensor:
        """The statistic itself."""
        return self.first * self.second


class Products(NamedTuple):
    """A statistic <a_m a_n> of all pairs of members, which is averaged over area without being stored at each point.

    fields: a, (member, ..., point); its mean has shape (member, member, ..., region).
    """

    fields: Tensor


Statistic = Tensor | Product | Products


class Metric(Protocol):
    """A statistic's name stands for one formula in every metric.

    needs: climatological fields of the valid time that `statistics` reads: mean, std, quantile_<q>, seeps_threshold,
        seeps_dry_share.
    members: 0 where it reads one forecast (of an ensemble, the mean); else it reads (member, ...), at least that many.
    by_init: the value is taken for each initial time and then averaged.
    vector: its statistics add over the components of a vector, so that it is defined for winds as a whole.
    dims: names of leading axes of the value, where it is more than a number.
    perfect: value at a perfect forecast, NaN where there is none. exponent: power of the variable's units.
    """

    needs: tuple[str, ...] = ()
    members: int = 0
    by_init: bool = False
    vector: bool = False
    dims: tuple[str, ...] = ()
    perfect: float = 0.0
    exponent: int = 0
    definition: str = ""

    def statistics(
        self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]
    ) -> Mapping[str, Statistic]:
        """Terms of each point, of the shape of `target` or with further leading axes; NaN where a field is missing."""
        ...

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """The score from the means of the terms."""
        ...


class Loss(Protocol):
    """Two States in, one number a lead element out."""

    def __call__(self, prediction: State, target: State) -> Tensor: ...
