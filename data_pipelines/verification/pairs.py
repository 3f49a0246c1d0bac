"""Read pairs of forecast and truth, matched by valid time, a block at a time; truth comes through a cache of fields.

Valid time = initial time + lead, or what the forecast's own `valid_time` says. A pair whose truth does not exist is
counted and left out; so is, by default, one whose truth lies beyond a gap in its times (`durations.unbroken_until`),
since the times after it may belong to another trajectory.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr

from data_pipelines.conventions.attributes import (
    channel_array,
    grid_of,
    horizontal,
    level_index,
    on_grid,
    vertical_coordinate,
)
from data_pipelines.conventions.durations import bounds, nearest_positions, spacing, unbroken_until
from data_pipelines.conventions.valid_times import month_starts
from data_pipelines.reading.fields import Fields
from data_pipelines.reading.zarr_chunks import as_slice
from data_pipelines.verification.matching import shared_variables, with_labels
from emulators.scores.interfaces import Pair
from emulators.state import State
from emulators.statistics.climatology import HarmonicClimatology
from emulators.variables import Variable, VariableSet
from emulators.world import World, hours_of

SAMPLES = 4000  # fields that a climatology is fitted to


class FieldCache:
    """Cache fields by key, least recently used first out.

    make(keys): makes fields (key, ...) that are not in memory. room: number of fields that are kept.
    """

    def __init__(self, make: Callable[[np.ndarray], np.ndarray], room: int) -> None:
        self.make, self.room = make, max(1, room)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def prefetch(self, keys: np.ndarray) -> None:
        """Make the fields of `keys` that are not in memory, in one call."""
        absent = np.array(sorted({int(key) for key in keys} - set(self._kept)), dtype=np.int64)
        if absent.size:
            self._kept.update(zip(absent.tolist(), self.make(absent), strict=True))

    def __call__(self, keys: np.ndarray) -> torch.Tensor:
        """The fields of `keys`, shape (key, ...), not to be written to."""
        self.prefetch(keys)
        fields = []
        for key in keys.tolist():
            self._kept.move_to_end(key)
            fields.append(self._kept[key])
        while len(self._kept) > self.room:
            self._kept.popitem(last=False)
        return torch.from_numpy(fields[0][None] if len(fields) == 1 else np.stack(fields))


class Reader:
    """Read the States of a canonical dataset by time, through a cache.

    megabytes: of the most recently used fields that are kept in memory. Fields of float32 are read by the same `Fields`
    as those of training, wider ones through xarray.
    """

    def __init__(self, dataset: xr.Dataset, variables: VariableSet, megabytes: float = 1024) -> None:
        self.dataset, self.variables = dataset, variables
        self.times = dataset["time"].values.astype("datetime64[s]")
        step = spacing(self.times)
        months = step is not None and np.datetime_data(step)[0] == "M"
        self.tolerance = np.diff(self.times).min() / 10 if months else np.timedelta64(0, "s")
        field = 4 * variables.size * int(np.prod([dataset.sizes[dim] for dim in horizontal(dataset)]))
        self.fields = FieldCache(self.load, int(megabytes * 2**20 / field))
        self._direct = _direct_fields(dataset, variables)

    def load(self, index: np.ndarray) -> np.ndarray:
        """The fields at the ascending times of `index`, past the cache; (time, channel, lat, lon)."""
        if self._direct is None:
            return channel_array(self.dataset.isel(time=as_slice(index)), self.variables, ("time",))
        values = np.empty((index.size, self.variables.size, *self._direct.grid.shape), dtype=np.float32)
        self._direct.read(index, values)
        return values

    def find(self, times: np.ndarray) -> np.ndarray:
        """The index of each time, -1 where it does not exist; in monthly and yearly series, whose steps are uneven, of
        the nearest time where it lies within a tenth of a step."""
        if self.tolerance > 0:  # dated by the first or the last day, one month is the same month
            return nearest_positions(month_starts(self.times), month_starts(times), self.tolerance)
        return nearest_positions(self.times, times, self.tolerance)

    def read(self, index: np.ndarray) -> State:
        """The State at the times of `index`, shape (time, channel, lat, lon)."""
        return State(self.fields(index), self.variables, self.times[index], len(horizontal(self.dataset)))


def _direct_fields(dataset: xr.Dataset, variables: VariableSet) -> Fields | None:
    """Fields that read `variables` as they are stored; None where they are wider than float32 or in another order."""
    stored = []
    for variable in variables:
        field = dataset[variable.name]
        level = ("level",) if variable.levels else ()
        if field.dims != ("time", *level, *horizontal(dataset)) or np.result_type(field.dtype, "f4") != np.float32:
            return None
        levels = field["level"].values[level_index(field["level"].values, variable.levels)] if level else ()
        stored.append(replace(variable, levels=tuple(float(value) for value in levels)))
    return Fields(dataset, VariableSet(tuple(stored)), grid_of(dataset))


class CachedClimatology:
    """Cache the fields of a climatology, times -> (time, channel, lat, lon).

    climatology(times, *name): gives the mean, or the field of that name. room: number of fields that are kept. further:
    names besides the mean, such as `quantile_0.9`.
    """

    def __init__(self, climatology: Callable[..., torch.Tensor], room: int, further: Sequence[str] = ()) -> None:
        def latest(*name: str) -> FieldCache:
            return FieldCache(
                lambda s: climatology(s.astype("datetime64[s]"), *name).numpy(), room // (1 + len(further))
            )

        self._fields = {"mean": latest(), **{name: latest(name) for name in further}}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its fields: `mean` and the further ones."""
        return tuple(self._fields)

    def __call__(self, times: np.ndarray) -> torch.Tensor:
        """The mean at `times`."""
        return self._fields["mean"](np.asarray(times, dtype="datetime64[s]").astype(np.int64))

    def named(self, times: np.ndarray) -> dict[str, torch.Tensor]:
        """The mean and the further fields at `times`, by name."""
        seconds = np.asarray(times, dtype="datetime64[s]").astype(np.int64)
        return {name: fields(seconds) for name, fields in self._fields.items()}


def fit_climatology(truth: Reader, period: Sequence[str | int], room: int) -> tuple[CachedClimatology, str]:
    """Fit harmonics of the year and the day to the truth in a period; the climatology, and a phrase that describes it.

    room: number of fields that are read, and later kept in memory, at a time. At most `SAMPLES` fields are read.
    """
    first, last = bounds(period)
    index = np.flatnonzero((truth.times >= first) & (truth.times <= last))
    step = -(-index.size // SAMPLES) | 1  # odd, so that every hour of the day comes round
    index = index[::step]
    has_year = index.size and truth.times[index[-1]] - truth.times[index[0]] > np.timedelta64(330, "D")
    timestep = spacing(truth.times) or np.timedelta64(1, "D")
    fitted = HarmonicClimatology.for_timestep(timestep, annual=2 if has_year else 0)  # no cycle from a part of it
    block = max(1, min(64, room))
    for start in range(0, index.size, block):
        positions = index[start : start + block]
        fields = truth.load(positions)
        absent = np.isnan(fields).all(axis=(-2, -1))
        present = ~absent[:, ~absent.all(axis=0)].any(axis=1)  # sums are missing where the data begin
        fitted.accumulate(truth.times[positions][present], fields[present])
    kind = (
        f"{fitted.annual} harmonics of the year and {fitted.diurnal} of the day, fitted to {index.size} fields of the "
        f"training period {period[0]} to {period[1]}"
    )
    return CachedClimatology(fitted.solve().evaluate, room), kind


@dataclass(frozen=True)
class Block:
    """Hold the positions of initial times and leads that are read at once."""

    inits: slice
    leads: slice


class Pairs:
    """Read pairs of a forecast and a truth, both canonical datasets on the same grid.

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
        self.forecast = with_labels(with_labels(forecast, "prediction_timedelta", leads), "time", inits)
        self.truth = Reader(on_grid(truth, self.grid), self.variables, 2 * megabytes)
        self.inits = self.forecast["time"].values.astype("datetime64[s]")
        self.leads = self.forecast["prediction_timedelta"].values.astype("timedelta64[s]")
        self.valid = self.forecast["valid_time"].values.astype("datetime64[s]")
        if "time_means" in forecast.attrs:
            self._refuse_means(str(forecast.attrs["time_means"]))
        self.index, self.starts = self.truth.find(self.valid), self.truth.find(self.inits)
        if not across_gaps:
            self.index[self.valid > unbroken_until(self.truth.times, self.inits)[:, None]] = -1
        self.members = forecast.sizes.get("member", 0)
        self.statistics_of = int(
            forecast.attrs.get("ensemble_statistics", 0)
        )  # members, of which only moments are kept
        fields = self.variables.size * max(1, self.members)
        self.room = max(1, int(megabytes * 2**20 / (4 * fields * np.prod(self.grid.shape))))
        if not (self.index >= 0).any():
            times, assumed = self.truth.times, str(forecast.attrs.get("assumed", ""))
            raise ValueError(
                f"No valid time of the forecast ({self.valid.min()} to {self.valid.max()}) is in the truth "
                f"({f'{times.min()} to {times.max()}, {times.size} times' if times.size else 'it has no times'}); "
                f"give a truth that covers the forecast.{' ' if assumed else ''}{assumed}"
            )

    def _refuse_means(self, period: str) -> None:
        """ValueError where means over a period would be compared with a truth of shorter timesteps."""
        hours = hours_of(spacing(self.truth.times) or np.timedelta64(0, "s"))
        if hours < hours_of(np.timedelta64(int(period.removesuffix("mo")), "M")) - 96.0:  # months are not all as long
            raise ValueError(
                f"The forecast holds means over {period} (keep=monthly or annual), the truth a state every {hours:g} "
                "h; give a truth of the same means, or take keep=members."
            )

    @property
    def missing(self) -> int:
        """The number of pairs (init and lead) without truth."""
        return int((self.index < 0).sum())

    @property
    def absent(self) -> np.ndarray:
        """The valid times that lack their truth, in order, datetime64[s]."""
        return np.unique(self.valid[self.index < 0])

    @property
    def total(self) -> int:
        """The number of pairs (init and lead) that can be scored."""
        return int((self.index >= 0).sum())

    def first_fields(self) -> tuple[xr.Dataset, xr.Dataset]:
        """The datasets of forecast and truth at the first pair that can be scored."""
        init, lead = np.argwhere(self.index >= 0)[0]
        fields = self.forecast.isel(time=int(init), prediction_timedelta=int(lead))
        return fields, self.truth.dataset.isel(time=int(self.index[init, lead]))

    def world(self) -> World:
        """The World on which scores are computed: the forecast's grid, levels, and ground where the truth has it."""
        truth = self.truth.dataset
        names = [name for name in ("land_sea_mask", "geopotential_at_surface") if name in truth]
        fields = [truth[name].isel(time=0) if "time" in truth[name].dims else truth[name] for name in names]
        return World(
            self.grid,
            self.variables,
            self.leads[0],
            static=VariableSet(tuple(Variable(name) for name in names)),
            static_fields=np.stack([field.values.astype(np.float64) for field in fields]) if fields else None,
            vertical=vertical_coordinate(self.forecast),
        )

    def attributes(self) -> dict[str, str]:
        """The initial times and valid times that are scored, for the attributes of scores."""
        inits, scored = self.inits, (self.index >= 0).any(axis=1)
        return {
            "inits": f"{inits[0]} to {inits[-1]}",
            "inits_used": _times_text(inits[scored]),
            "inits_skipped": _times_text(inits[~scored]) or "none",
            "valid_times_missing": _times_text(self.absent) or "none",
            "pairs": f"{self.total} of {self.total + self.missing} (initial time x lead) scored",
        }

    def missing_note(self) -> str:
        """A sentence on the pairs that lack their truth; empty where none does."""
        if not self.missing:
            return ""
        absent = np.datetime_as_string(self.absent, "h").tolist()
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        return (
            f"{self.missing} of {self.missing + self.total} pairs of initial time and lead have no truth"
            f"{'' if self.across_gaps else ' before a gap'} and were left out, those valid at {', '.join(absent[:5])}"
            f"{more} (the truth runs from {self.truth.times[0]} to {self.truth.times[-1]})."
        )

    def __iter__(self) -> Iterator[Pair]:
        return self.of(self.blocks())

    def blocks(self, share: int = 1, shares: int = 1) -> list[Block]:
        """The blocks that are read at once, in order: as many initial times and leads as fit, where any has its truth.

        share, shares: only those of the initial times of one share (from 1) of several, as even as can be.
        """
        leads = min(len(self.leads), self.room)
        inits = max(1, self.room // leads)
        begin, end = (len(self.inits) * place // shares for place in (share - 1, share))
        candidates = [
            Block(slice(first, min(first + inits, end)), slice(start, start + leads))
            for first in range(begin, end, inits)
            for start in range(0, len(self.leads), leads)
        ]
        return [block for block in candidates if self.count(block)]

    def count(self, block: Block) -> int:
        """The number of pairs (init and lead) of a block that can be scored."""
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
        fields = self.forecast.isel(time=block.inits, prediction_timedelta=block.leads)
        member = ("member",) if self.members else ()
        return torch.from_numpy(channel_array(fields, self.variables, ("prediction_timedelta", *member, "time")))

    def _pairs(self, block: Block, read: Future[torch.Tensor]) -> Iterator[Pair]:
        """The pairs of a block; the truth they share is read in one go where it fits."""
        rows, first = block.inits, block.leads.start
        index, starts = self.index[rows, block.leads], self.starts[rows]
        self._prefetch(index)
        values, rank = read.result(), len(self.grid.shape)
        leads = np.flatnonzero((index >= 0).any(axis=0))
        for lead in leads.tolist():
            present = np.flatnonzero(index[:, lead] >= 0)
            has_start = starts[present] >= 0

            def start(wanted: np.ndarray = starts[present][has_start]) -> State:
                self._prefetch(starts)
                return self.truth.read(wanted)

            yield Pair(
                first + lead,
                self.inits[rows][present],
                State(
                    _rows(values[lead], present, rank), self.variables, self.valid[rows, first + lead][present], rank
                ),
                self.truth.read(index[present, lead]),
                has_start,
                lead == leads[-1],
                start,
            )

    def _prefetch(self, index: np.ndarray) -> None:
        """Read the truth at `index` at once, where it fits."""
        needed = np.unique(index[index >= 0])
        if needed.size <= self.truth.fields.room:
            self.truth.fields.prefetch(needed)


def _rows(values: torch.Tensor, rows: np.ndarray, rank: int) -> torch.Tensor:
    """Some initial times of (..., init, channel, *grid); not a copy where it is all of them."""
    axis = values.ndim - 2 - rank
    return values if rows.size == values.shape[axis] else values.index_select(axis, torch.from_numpy(rows))


def _times_text(times: np.ndarray) -> str:
    """`2020-01-01T00 to 2020-12-30T00 every 12 hours (730)` where the steps are even, else every time."""
    steps = np.unique(np.diff(times))
    if len(times) > 2 and len(steps) == 1:
        step = steps[0].astype("timedelta64[h]") if not steps[0].astype(int) % 3600 else steps[0]
        first, last = np.datetime_as_string(times[[0, -1]], "h")
        return f"{first} to {last} every {step} ({len(times)})"
    return " ".join(np.datetime_as_string(times, "h").tolist())
