"""Pairs: forecasts and their truth, matched by valid time, a block at a time.

Valid time = initial time + lead, or what the forecast's own `valid_time` says. A pair whose truth does not exist is
counted and left out; so is, unless told otherwise, one whose truth lies beyond a gap in its times
(`intervals.unbroken_until`), since what follows may be another trajectory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import xarray as xr

from data_pipelines.conventions.canonical import grid_of
from data_pipelines.conventions.durations import duration_text, unbroken_until
from data_pipelines.conventions.suggestions import suggestion
from data_pipelines.conventions.units import refuse_other_units
from data_pipelines.reading.stacking import _near, channel_array, levels_of, on_grid
from data_pipelines.verification.truth import Reader
from emulators.state import State
from emulators.variables import Variable, VariableSet


@dataclass(frozen=True, eq=False)
class Pair:
    """Forecasts of one lead and their truth, both State of shape (init, channel, lat, lon); of an ensemble the
    prediction is (member, init, channel, lat, lon).

    lead: index into `Pairs.leads`. inits: their initial times. known: of which of them the truth at the initial time is
    known, shape (init,). last: whether it is the last of its block.
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
class Block:
    """Initial times and leads, as positions, that are read in one go."""

    inits: slice
    leads: slice


class Pairs:
    """Pairs of a forecast and a truth, both canonical datasets on the same grid.

    variables: names or {name: [levels]}; None: all that both hold. leads, inits: which of the forecast's; None: all.
    across_gaps: score against truth beyond a gap as well. megabytes: how much of the forecast is read at a time; twice
    that is held of the forecast, and of the truth.
    """

    def __init__(
        self,
        forecast: xr.Dataset,
        truth: xr.Dataset,
        *,
        variables: Sequence | None = None,
        levels: Sequence[float] | None = None,
        leads: np.ndarray | None = None,
        inits: np.ndarray | None = None,
        across_gaps: bool = False,
        megabytes: float = 512,
    ) -> None:
        self.grid, self.across_gaps = grid_of(forecast), across_gaps
        self.variables = shared_variables(forecast, truth, variables, levels)
        self.forecast = _chosen(_chosen(forecast, "prediction_timedelta", leads), "time", inits)
        self.truth = Reader(on_grid(truth, self.grid), self.variables, 2 * megabytes)
        self.inits = self.forecast["time"].values.astype("datetime64[s]")
        self.leads = self.forecast["prediction_timedelta"].values.astype("timedelta64[s]")
        self.valid = self.forecast["valid_time"].values.astype("datetime64[s]")
        self.index, self.starts = self.truth.find(self.valid), self.truth.find(self.inits)
        if not across_gaps:
            self.index[self.valid > unbroken_until(self.truth.times, self.inits)[:, None]] = -1
        self.members = forecast.sizes.get("member", 0)
        fields = self.variables.size * max(1, self.members)
        self.room = max(1, int(megabytes * 2**20 / (4 * fields * np.prod(self.grid.shape))))
        if not (self.index >= 0).any():
            have = self.truth.times
            raise ValueError(
                f"No valid time of the forecast ({self.valid.min()} to {self.valid.max()}) is in the truth "
                f"({f'{have.min()} to {have.max()}, {have.size} times' if have.size else 'it has no times'}); "
                "give a truth that covers the forecast."
            )

    @property
    def missing(self) -> int:
        """How many pairs (init and lead) lack their truth."""
        return int((self.index < 0).sum())

    @property
    def absent(self) -> np.ndarray:
        """The valid times that lack their truth, in order, datetime64[s]."""
        return np.unique(self.valid[self.index < 0])

    @property
    def total(self) -> int:
        """How many pairs (init and lead) can be scored."""
        return int((self.index >= 0).sum())

    def __iter__(self) -> Iterator[Pair]:
        return self.of(self.blocks())

    def blocks(self, share: int = 1, shares: int = 1) -> list[Block]:
        """What is read in one go, in order: as many initial times and leads as fit, where any has its truth.

        share, shares: only those of the initial times of one share (from 1) of several, as even as can be.
        """
        leads = min(len(self.leads), self.room)
        inits = max(1, self.room // leads)
        begin, end = (len(self.inits) * place // shares for place in (share - 1, share))
        found = [
            Block(slice(first, min(first + inits, end)), slice(start, start + leads))
            for first in range(begin, end, inits)
            for start in range(0, len(self.leads), leads)
        ]
        return [block for block in found if self.count(block)]

    def count(self, block: Block) -> int:
        """How many pairs (init and lead) of a block can be scored."""
        return int((self.index[block.inits, block.leads] >= 0).sum())

    def of(self, blocks: Sequence[Block]) -> Iterator[Pair]:
        """The pairs of some blocks."""
        with ThreadPoolExecutor(1) as reader:  # the next block of the forecast is read while this one is scored
            ahead: deque[tuple[Block, Future[torch.Tensor]]] = deque()
            for block in blocks:
                ahead.append((block, reader.submit(self._read, block)))
                if len(ahead) > 1:
                    yield from self._pairs(*ahead.popleft())
            while ahead:
                yield from self._pairs(*ahead.popleft())

    def _read(self, block: Block) -> torch.Tensor:
        """A block of the forecast, (lead, [member,] init, channel, lat, lon)."""
        part = self.forecast.isel(time=block.inits, prediction_timedelta=block.leads)
        member = ("member",) if self.members else ()
        return torch.from_numpy(channel_array(part, self.variables, ("prediction_timedelta", *member, "time")))

    def _pairs(self, block: Block, read: Future[torch.Tensor]) -> Iterator[Pair]:
        """The pairs of a block; the truth they share is read in one go where it fits."""
        rows, first = block.inits, block.leads.start
        index, starts = self.index[rows, block.leads], self.starts[rows]
        self._prefetch(index)
        values = read.result()
        leads = np.flatnonzero((index >= 0).any(axis=0))
        for lead in leads.tolist():
            there = np.flatnonzero(index[:, lead] >= 0)
            known = starts[there] >= 0

            def start(wanted: np.ndarray = starts[there][known]) -> State:
                self._prefetch(starts)
                return self.truth.read(wanted)

            yield Pair(
                first + lead,
                self.inits[rows][there],
                State(_rows(values[lead], there), self.variables, self.valid[rows, first + lead][there]),
                self.truth.read(index[there, lead]),
                known,
                lead == leads[-1],
                start,
            )

    def _prefetch(self, index: np.ndarray) -> None:
        """Reads the truth at `index` in one go, where it fits."""
        needed = np.unique(index[index >= 0])
        if needed.size <= self.truth.fields.room:
            self.truth.fields.prefetch(needed)


def _rows(values: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """Some initial times of (..., init, channel, lat, lon); not a copy where it is all of them."""
    return values if rows.size == values.shape[-4] else values[..., torch.from_numpy(rows), :, :, :]


def shared_variables(
    forecast: xr.Dataset, truth: xr.Dataset, wanted: Sequence | None = None, levels: Sequence[float] | None = None
) -> VariableSet:
    """What can be scored: variables, and levels of them, that both datasets hold and that are wanted."""
    both = [
        str(n) for n in forecast.data_vars if n in truth and {"time", "latitude", "longitude"} <= set(truth[n].dims)
    ]
    if not both:
        raise ValueError(
            "Forecast and truth share no variable: the forecast has "
            f"{', '.join(map(str, forecast.data_vars)) or 'none'}, "
            f"the truth {', '.join(map(str, truth.data_vars)) or 'none'}."
        )
    asked: dict[str, Sequence[float] | None] = {}
    for entry in wanted if wanted is not None else both:
        asked.update({entry: levels} if isinstance(entry, str) else {str(k): v for k, v in entry.items()})
    chosen = []
    for name, some in asked.items():
        if name not in both:
            where = "forecast" if name not in forecast else "truth"
            raise ValueError(f"Variable '{name}' is not in the {where}; {suggestion(name, both)}")
        have = levels_of(forecast[name])
        if bool(have) != ("level" in truth[name].dims):
            raise ValueError(f"'{name}' has levels in one of forecast and truth and none in the other.")
        near = _near(levels_of(truth[name]))
        shared = tuple(level for level in have if near(level))
        kept = shared if some is None else tuple(level for level in shared if _near(some)(level))
        if have and not kept:
            if wanted is None and shared:
                continue
            raise ValueError(
                f"'{name}' shares no level: forecast {list(have)}, truth {list(levels_of(truth[name]))}, "
                f"asked for {'all' if some is None else list(some)}."
            )
        units, own = (str(dataset[name].attrs.get("units", "")) for dataset in (forecast, truth))
        refuse_other_units(name, units, own, "the truth")
        chosen.append(Variable(name, own or units, kept))
    return VariableSet(tuple(chosen))


def _chosen(dataset: xr.Dataset, dim: str, wanted: np.ndarray | None) -> xr.Dataset:
    """The wanted values along `dim`; ValueError where one is not there."""
    if wanted is None:
        return dataset
    have = dataset[dim].values
    absent = np.setdiff1d(wanted.astype(have.dtype), have)
    if absent.size:
        raise ValueError(_absent(dim, absent, have))
    return dataset.isel({dim: np.flatnonzero(np.isin(have, wanted.astype(have.dtype)))})


def _absent(dim: str, absent: np.ndarray, have: np.ndarray) -> str:
    """What to say of leads or initial times that a forecast has not."""
    leads = dim == "prediction_timedelta"
    told = duration_text if leads else lambda time: str(np.datetime_as_string(time, "m"))
    key, words = ("leads", "leads") if leads else ("inits", "initial times")
    return (
        f"Expected {words} that the forecast has, {told(have[0])} to {told(have[-1])} ({have.size} of them); got "
        f"{', '.join(told(one) for one in absent[:3])}. Take some of those with {key}=[...], or all with {key}=all."
    )
