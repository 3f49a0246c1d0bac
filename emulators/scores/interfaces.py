"""Interfaces of scores: metrics, losses, and the accumulators that are fed with States.

A metric has statistics of single points, and a score from their means,

    score = value(<s_1>, <s_2>, ...),   < > the mean over area and initial times

so that sums of any batches, processes or runs add up to the whole (WeatherBench-X,
https://github.com/google-research/weatherbenchX). A metric subclasses this for the defaults; nothing else is inherited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from emulators.state import State
    from emulators.variables import VariableSet


class Product(NamedTuple):
    """Represent a statistic a b, which is averaged over area without being stored at each point; both of one shape."""

    first: Tensor
    second: Tensor

    def at_points(self) -> Tensor:
        """The statistic itself."""
        return self.first * self.second


class Products(NamedTuple):
    """Represent a statistic <a_m a_n> of all pairs of members, which is averaged without being stored at each point.

    fields: a, (member, ..., point); its mean has shape (member, member, ..., region).
    """

    fields: Tensor


Statistic = Tensor | Product | Products


class Metric(Protocol):
    """Score forecasts by statistics of single points and a value of their means.

    The name of a statistic means one formula in every metric.

    needs: climatological fields of the valid time that `statistics` reads: mean, std, quantile_<q>, seeps_threshold,
        seeps_dry_share.
    members: 0 where it reads one forecast (of an ensemble, the mean); else it reads (member, ...), at least that many.
    moments: of the members it reads only mean and variance, and not their number.
    by_init: the value is taken for each initial time and then averaged.
    vector: its statistics add over the components of a vector, so that it is defined for winds as a whole.
    radius: km; above 0 the fields are first made into those of the neighbourhood of each point, by `local`.
    dims: names of leading axes of the value, where it is more than a number.
    perfect: value at a perfect forecast, NaN where there is none. exponent: power of the variable's units.
    """

    needs: tuple[str, ...] = ()
    members: int = 0
    moments: bool = False
    by_init: bool = False
    vector: bool = False
    radius: float = 0.0
    dims: tuple[str, ...] = ()
    perfect: float = 0.0
    exponent: int = 0
    definition: str = ""

    def local(
        self, near: Any, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What `statistics` reads of each point, made of its neighbourhood; (..., point) and (row, point).

        near: an `emulators.scores.neighbourhoods.Neighbourhood` of `radius`.
        """
        return prediction, target

    def statistics(
        self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]
    ) -> Mapping[str, Statistic]:
        """Terms of each point, of the shape of `target` or with further leading axes; NaN where a field is missing."""
        ...

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """The score from the means of the terms."""
        ...


class Accumulator(Protocol):
    """Accumulate sums that add up across batches, processes and runs.

    What is added, and what follows from the sums (`scores`, `dataset`, ...), differs from one to the other.
    """

    def partial(self) -> Mapping[str, np.ndarray]:
        """The sums so far as arrays without objects, to be stored, sent, or added to another by `add_partial`."""
        ...

    def add_partial(self, partial: Mapping[str, np.ndarray], /) -> Any:
        """Add the sums of another accumulator of the same kind."""
        ...


class LeadScores(Accumulator, Protocol):
    """Accumulate scores of forecasts by lead, such as a Scorecard. variables: those that are scored."""

    variables: VariableSet

    def add(self, prediction: State, target: State, lead: int, /) -> Any:
        """Add forecasts of lead number `lead` (from 0) and their truth."""
        ...

    def add_partial(self, partial: Mapping[str, np.ndarray], first: int = 0) -> Any:
        """Add the sums of other forecasts, or of leads from number `first` on."""
        ...

    def scores(self, attributes: Mapping[str, object], /) -> Any:
        """The scores as an xarray.Dataset."""
        ...


class LeadBudgets(Accumulator, Protocol):
    """Accumulate budgets of a rollout by lead and initial time, and corrections of constraints, such as a Ledger.

    is_empty: True where there is nothing to record.
    """

    @property
    def is_empty(self) -> bool: ...

    def contents(self, state: State, /) -> dict[str, Tensor]:
        """Global means of what the columns hold, by name, float64 (*lead, 1, 1)."""
        ...

    def add(self, lead: int, state: State, contents: dict[str, Tensor] | None = None, /) -> Any:
        """Add the States of lead number `lead` (from 0); their `origin` holds the States before.

        contents: those of `state`, where they are known already.
        """
        ...

    def add_missing(self, lead: int, inits: int, /) -> Any:
        """Count a lead as missing for a number of initial times."""
        ...

    def record_corrections(self, step: Any, /) -> AbstractContextManager:
        """A context in which the corrections of the constraints of `step` are recorded."""
        ...

    def carried_state(self) -> dict[str, np.ndarray]:
        """The contents at the start and at the last lead, for `restore`."""
        ...

    def restore(self, carried: Mapping[str, np.ndarray], device: torch.device | str = "cpu") -> Any:
        """Continue from the `carried_state` of another that holds the leads before."""
        ...

    def add_partial(self, partial: Mapping[str, np.ndarray], first: int = 0) -> Any:
        """Add other initial times, or leads from number `first` on."""
        ...

    def results(self) -> Any:
        """The results so far, with `dataset(inits, truth)` and `summary()`."""
        ...


@dataclass(frozen=True, eq=False)
class Pair:
    """Hold forecasts of one lead and their truth, both a State of shape (init, channel, lat, lon).

    The prediction of an ensemble is (member, init, channel, lat, lon). lead: its number. inits: their initial times.
    known: of which of them the truth at the initial time is known, shape (init,). last: True for the last pair that is
    read in one go. read_start: reads the truth at the initial times that are known.
    """

    lead: int
    inits: np.ndarray
    prediction: State
    target: State
    known: np.ndarray
    last: bool
    read_start: Callable[[], State]

    @cached_property
    def start(self) -> State | None:
        """Truth at the initial times that are `known`, None where none is; read when first asked for."""
        return self.read_start() if self.known.any() else None


@dataclass(frozen=True)
class Reference:
    """Define a reference forecast, such as persistence.

    metrics: those computed for it. forecasts(pair, climatology): yields States, each with the rows of the pair that it
    belongs to; climatology holds fields of the valid times by name.
    """

    metrics: Mapping[str, Metric]
    forecasts: Callable[[Pair, Mapping[str, Tensor]], Iterator[tuple[State, np.ndarray]]]


class PairAccumulators(Protocol):
    """Feed several accumulators with the same pairs, such as an Evaluation."""

    def add(self, pair: Pair, climatology: Mapping[str, Tensor], /) -> Any:
        """Add forecasts of one lead and their truth. climatology: fields of the valid times by name."""
        ...

    def accumulators(self) -> dict[str, Accumulator]:
        """All accumulators by name."""
        ...
