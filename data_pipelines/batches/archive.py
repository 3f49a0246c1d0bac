"""Archive: a dataset seen through a World, giving States at any of its times.

Fields are read as float32 and checked for missing values once. They are kept in memory where all of them fit; else
those of a packed store are read when asked for, and of a source with many times a chunk the latest chunks are kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.conventions.canonical import grid_of
from data_pipelines.conventions.durations import nearest_positions
from data_pipelines.conventions.periods import bounds
from data_pipelines.conventions.suggestions import suggestion
from data_pipelines.conventions.units import refuse_other_units
from data_pipelines.derived import forcings
from data_pipelines.reading.fields import Fields
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import World

BLOCK_BYTES = 64e6
LEAST_BLOCKS, MOST_BLOCKS = 4, 64  # chunks kept in memory of a source with many times in each
TOLERANCE = 0.1  # of a timestep: a time of the data stands for a time asked for where they are closer than this


class Archive:
    """The States that a canonical dataset holds of a World.

    dataset: as `data_pipelines.opening.datasets.open_dataset` gives it; where it has the dimension `member`, positions
    go through all times of the first, then of the second, and so on, and a time alone stands for that of the first.
    world: its grid and prognostic variables must be there; a diagnostic or a forcing that is neither there nor computed
    is named in `absent`. cache_gigabytes: memory that fields may take, all of them or some. persisted, repeated:
    forcings that beyond their last time keep the last value, or go through their last year again and again.
    """

    def __init__(
        self,
        dataset: xr.Dataset,
        world: World,
        *,
        cache_gigabytes: float = 4.0,
        persisted: Sequence[str] = (),
        repeated: Sequence[str] = (),
    ) -> None:
        self.dataset, self.world, self.grid = dataset, world, world.grid
        self.origin = str(dataset.attrs.get("origin", "the data"))
        if "time" not in dataset.dims:
            raise ValueError(f"{self.origin} has no times; expected a dimension `time` or a single date.")
        self.clock = dataset["time"].values.astype("datetime64[s]")
        self.members = dataset.sizes.get("member", 1)
        self.times = np.tile(self.clock, self.members)
        self.persisted, self.repeated = tuple(persisted), tuple(repeated)
        self._same_as_computed: dict[str, bool] = {}
        self._refuse_other_grid()
        wanted = [*world.prognostic, *world.diagnostic, *world.forcing]
        found = [v for v in wanted if v.name in dataset.data_vars or _is_computed(v)]
        self.absent = tuple(v.name for v in wanted if v not in found)
        self.variables = VariableSet(tuple(found))  # the channels of a gather, in this order
        for name in world.prognostic.names:
            if name in self.absent:
                raise ValueError(f"No variable '{name}' in {self.origin}; {suggestion(name, dataset.data_vars)}")
        there = [v for v in self.variables if v.name in dataset.data_vars]
        self.fields = Fields(dataset, self.variables, self.grid)
        for variable in there:
            own = str(dataset[variable.name].attrs.get("units", ""))
            refuse_other_units(variable.name, variable.units, own, self.origin)
        self.following = self._following()
        self.row_bytes = 4 * self.variables.size * int(np.prod(self.grid.shape))
        self._block = max(1, int(BLOCK_BYTES // max(self.row_bytes, 1)))
        self._lock = threading.Lock()
        self._held = np.zeros(self.times.size, dtype=bool)
        self._sound = np.zeros(self.times.size, dtype=bool)  # without missing values, as far as they were read
        self._memory: Tensor | None = None
        self._blocks: OrderedDict[int, np.ndarray] = OrderedDict()
        self.room = 0  # blocks of the source's chunks that are kept
        if self.times.size * self.row_bytes <= cache_gigabytes * 1e9:
            self._memory = torch.empty((self.times.size, self.variables.size, *self.grid.shape))
        elif self.fields.granule > 1:
            room = min(MOST_BLOCKS, int(cache_gigabytes * 1e9 // (self.fields.granule * self.row_bytes)))
            self.room = room if room >= LEAST_BLOCKS else 0

    @property
    def in_memory(self) -> bool:
        """True where fields are kept in memory once read."""
        return self._memory is not None

    @property
    def memory_bytes(self) -> int:
        """Bytes that fields take at most, batches aside."""
        if self._memory is not None:
            return self.times.size * self.row_bytes
        return self.room * self.fields.granule * self.row_bytes

    def reading_bytes(self, times: int) -> int:
        """Bytes that reading takes meanwhile besides these, at most, where so many times are asked for at once."""
        if self._memory is not None:
            times = min(self._block, self.times.size)
        elif self.room:
            times = self.fields.granule
        return self.row_bytes + self.fields.reading_bytes(times)

    @property
    def mixed(self) -> int:
        """Chunks of the source whose times are shuffled together: with their neighbours they stay in memory. 0: all."""
        return self.room // 2

    def on(self, world: World) -> Archive:
        """The same archive, memory shared, on a World that differs in its scales alone."""
        same = [getattr(world, n) == getattr(self.world, n) for n in ("prognostic", "diagnostic", "forcing")]
        if not all(same) or not world.grid.same_as(self.grid):
            raise ValueError("Expected a World of the same grid and variables; open a new Archive for another.")
        other = object.__new__(Archive)
        other.__dict__ = {**self.__dict__, "world": world}
        return other

    def index(self, times: np.ndarray) -> np.ndarray:
        """Positions of the nearest times, shape of the argument; ValueError names the first that is absent."""
        times = np.asarray(times, dtype="datetime64[s]")
        position = self._nearest(times)
        there = position >= 0
        if not there.all():
            first = times[~there][0] if times.ndim else times
            raise ValueError(
                f"No fields at {first} in {self.origin}, which holds {self.times.size} times from {self.times[0]} to "
                f"{self.times[-1]}; {(~there).sum()} of {there.size} times asked for are absent."
            )
        return position

    def has(self, times: np.ndarray) -> np.ndarray:
        """True for each time that the archive holds, bool, shape of the argument."""
        return self._nearest(times) >= 0

    def states(self, times: np.ndarray, variables: VariableSet | None = None) -> State:
        """Fields at `times`: lead () for one time, (batch,) for several. variables: default, all predicted."""
        variables = self.world.predicted if variables is None else variables
        absent = [name for name in variables.names if name not in self.variables]
        if absent:
            raise ValueError(f"{self.origin} has no {', '.join(absent)}; it has {', '.join(self.variables.names)}.")
        times = np.asarray(times, dtype="datetime64[s]")
        values = self.gather(np.atleast_1d(self.index(times)))
        state = State(values if times.ndim else values[0], self.variables, times).select(variables.names)
        return replace(state, variables=variables)

    def history(self, init_times: np.ndarray) -> tuple[State, ...]:
        """The known States a forecast from each of `init_times` begins with, oldest first."""
        init_times = np.asarray(init_times, dtype="datetime64[s]")
        return tuple(
            self.states(self.world.after(init_times, -back), self.world.prognostic)
            for back in reversed(range(self.world.history))
        )

    def forcing(self, times: np.ndarray) -> State:
        """What is prescribed at `times`: from the data where they go, computed where it follows from the time."""
        forcing, times = self.world.forcing, np.asarray(times, dtype="datetime64[s]")
        flat = np.atleast_1d(times)
        fields = torch.empty((flat.size, forcing.size, *self.grid.shape))
        there = self.has(flat)
        archived = [
            v for v in forcing if v.name in self.dataset.data_vars and not (self.goes_on(v) and not there.all())
        ]
        alike: dict[bytes, list[Variable]] = {}
        for var in archived:
            alike.setdefault(self.known(var, flat).tobytes(), []).append(var)
        for group in alike.values():
            some = self.states(self.known(group[0], flat), VariableSet(tuple(group)))
            for var in group:
                fields[:, forcing.slice(var.name)] = some.values[:, some.variables.slice(var.name)]
        for var in forcing:
            if var in archived:
                continue
            if not _is_computed(var):
                raise ValueError(f"Forcing '{var.name}' ({var.units}) is not in {self.origin}; open data that have it.")
            fields[:, forcing.slice(var.name)] = torch.from_numpy(forcings.moving([var.name], flat, self.grid))
        return State(fields if times.ndim else fields[0], forcing, times)

    def known(self, variable: Variable, times: np.ndarray) -> np.ndarray:
        """The times of the data whose fields stand for a forcing at `times`."""
        if variable.name in self.persisted:
            return np.minimum(times, self.clock[-1])
        return last_year(times, self.clock[-1]) if variable.name in self.repeated else times

    def goes_on(self, variable: Variable) -> bool:
        """True where the data's own values are those computed, so that these may continue them."""
        if not _is_computed(variable):
            return False
        if variable.name not in self._same_as_computed:
            time = self.times[:1]
            own = self.states(time, VariableSet((variable,))).values.numpy()
            computed = forcings.moving([variable.name], time, self.grid)
            self._same_as_computed[variable.name] = bool(np.allclose(own, computed, atol=2e-3 * np.abs(computed).max()))
        return self._same_as_computed[variable.name]

    def load(self, period: Sequence[str | int], report: Callable[[str, float], None] | None = None) -> None:
        """Read all of a period into memory, if there is room; report(message, fraction) is called as it goes."""
        positions = self.within(period)
        if self._memory is None or not positions.size:
            return
        for start in range(0, positions.size, self._block):
            self._fill(positions[start : start + self._block])
            if report:
                report("reading fields", min(1.0, (start + self._block) / positions.size))

    def within(self, period: Sequence[str | int]) -> np.ndarray:
        """Positions of the times from the start to the end of `period`, both inclusive ("2003": all of the year)."""
        first, last = bounds(period)
        return np.flatnonzero((self.times >= first) & (self.times <= last))

    def gather(self, positions: np.ndarray, out: np.ndarray | None = None) -> Tensor:
        """Fields at `positions` of the time axis, (position, channel, lat, lon) of `variables`; each time is read once.

        out: float32 array of this shape to read into, default a new one.
        """
        positions = np.asarray(positions)
        if out is None:
            out = np.empty((positions.size, self.variables.size, *self.grid.shape), dtype=np.float32)
        unique, first, inverse = np.unique(positions, return_index=True, return_inverse=True)
        if self._memory is not None:
            if not self._held[unique].all():
                self._fill(unique)
            # By numpy, in one thread: a second pool of OpenMP threads would spin beside the one that trains.
            np.take(self._memory.numpy(), positions, axis=0, out=out, mode="clip")
            return torch.from_numpy(out)
        if self.room:
            self._from_blocks(positions, out)
            return torch.from_numpy(out)
        self._read(unique, out, first)
        for row in np.flatnonzero(first[inverse] != np.arange(positions.size)):
            out[row] = out[first[inverse[row]]]
        return torch.from_numpy(out)

    def _from_blocks(self, positions: np.ndarray, out: np.ndarray) -> None:
        """The same out of blocks of the source's chunks, of which the latest `room` are kept."""
        granule = self.fields.granule
        with self._lock:
            for number in np.unique(positions // granule).tolist():
                block = self._blocks.pop(number, None)
                if block is None:
                    while len(self._blocks) >= self.room:
                        self._blocks.popitem(last=False)
                    members = np.arange(number * granule, min((number + 1) * granule, self.times.size))
                    block = np.empty((members.size, *out.shape[1:]), dtype=np.float32)
                    self._read(members, block)
                self._blocks[number] = block
                rows = np.flatnonzero(positions // granule == number)
                for row in rows:
                    out[row] = block[positions[row] - number * granule]

    def _fill(self, positions: np.ndarray) -> None:
        assert self._memory is not None
        with self._lock:
            for start, stop in _runs(positions[~self._held[positions]], self._block):
                self._read(np.arange(start, stop), self._memory[start:stop].numpy())
                self._held[start:stop] = True

    def _read(self, positions: np.ndarray, out: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Read ascending positions into rows of `out`; ValueError where a value is missing."""
        rows = np.arange(positions.size) if rows is None else rows
        unknown = ~self._sound[positions]
        if self.fields.read(positions, out, rows, bool(unknown.any())):
            self._sound[positions] = True
            return
        for n in np.flatnonzero(unknown):
            if not np.isfinite(out[rows[n]]).all():
                self._refuse_missing(out[rows[n]], positions[n])
            self._sound[positions[n]] = True

    def _refuse_missing(self, fields: np.ndarray, position: int) -> None:
        bad = ~np.isfinite(fields)
        channel = int(np.flatnonzero(bad.any(axis=(1, 2)))[0])
        name = next(v.name for v in self.variables if channel < self.variables.slice(v.name).stop)
        raise ValueError(
            f"'{self.variables.channels[channel]}' is missing (NaN or infinite) at {bad[channel].sum()} of "
            f"{bad[channel].size} points at {self.times[position]} in {self.origin}; leave out the variable "
            f"or the time, or give the data source a value: fill={{{name}: 0}}."
        )

    def _refuse_other_grid(self) -> None:
        found = grid_of(self.dataset)
        if found.same_as(self.grid):
            return
        lat, lon = (f"{a[0]:g}..{a[-1]:g}" for a in (found.latitude, found.longitude))
        own_lat, own_lon = (f"{a[0]:g}..{a[-1]:g}" for a in (self.grid.latitude, self.grid.longitude))
        raise ValueError(
            f"Expected the grid {self.grid!r} (latitude {own_lat}, longitude {own_lon}); {self.origin} is on {found!r} "
            f"(latitude {lat}, longitude {lon}). Regrid it first."
        )

    def _nearest(self, times: np.ndarray) -> np.ndarray:
        """Positions of the nearest times, -1 where none is within a tenth of a timestep."""
        return nearest_positions(self.clock, times, TOLERANCE * self.world.lead_time(1))

    def _following(self) -> np.ndarray:
        """For each position that of the time one timestep later, -1 where the archive has none."""
        position = self._nearest(self.world.after(self.clock, 1))
        own = np.arange(self.clock.size)
        following = np.where(position > own, position, -1)
        return np.concatenate(
            [np.where(following < 0, -1, following + member * own.size) for member in range(self.members)]
        )


def last_year(times: np.ndarray, last: np.datetime64) -> np.ndarray:
    """`times`, and for those after `last` the same moment of the year that ends there."""
    years = times.astype("datetime64[Y]")
    since, final = times - years.astype("datetime64[s]"), last.astype("datetime64[Y]")
    latest = final.astype("datetime64[s]") + since
    before = (final - 1).astype("datetime64[s]") + since
    return np.where(times <= last, times, np.where(latest <= last, latest, before))


def _is_computed(variable: Variable) -> bool:
    return variable.name in forcings.MOVING and variable.units == forcings.variable(variable.name).units


def _runs(positions: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """Sorted positions as half-open runs of neighbours, none longer than `longest`."""
    if not positions.size:
        return []
    breaks = np.flatnonzero(np.diff(positions) > 1) + 1
    edges = [0, *breaks.tolist(), positions.size]
    return [
        (int(positions[at]), int(positions[min(at + longest, b) - 1]) + 1)
        for a, b in pairwise(edges)
        for at in range(a, b, longest)
    ]
