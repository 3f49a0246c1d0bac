"""Archive: read the fields of a dataset as States of a World, at any of the dataset's times.

Fields are read as float32 and checked for missing values once. If all of them fit into memory they are kept there;
otherwise those of a packed store are read when needed, and of a source with many times in a chunk the chunks read last
are kept.
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

from data_pipelines.conventions.attributes import grid_of, origin_of
from data_pipelines.conventions.dialects import variable_hint
from data_pipelines.conventions.durations import bounds, nearest_positions
from data_pipelines.conventions.units import refuse_other_units
from data_pipelines.derived import forcings
from data_pipelines.reading.fields import Fields
from data_pipelines.reading.plausibility import ChannelLimits, declared_ranges
from emulators.grid import place_text
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import World

BLOCK_BYTES = 64e6  # fields read in one call while memory is filled
FEWEST_CHUNKS, MOST_CHUNKS = 4, 64  # kept in memory of a source with many times in each
TOLERANCE = 0.1  # of a timestep, within which a time of the data is taken for the requested time


class Archive:
    """Read States of a World from a canonical dataset.

    dataset: as `data_pipelines.opening.datasets.open_dataset` returns it. If it has the dimension `member`, positions
    go through all times of the first member, then of the second, and so on; a time alone means that of the first.
    world: the dataset must hold its prognostic variables, on its grid. Diagnostic variables and forcings that it does
    not hold and that cannot be computed are listed in `absent`.
    cache_gigabytes: upper bound on the memory for fields that are kept.
    persisted, repeated: forcings that after the last time of the data keep their last value, or repeat the last year.
    held: forcings that keep the value of the initial time throughout a forecast.
    """

    def __init__(
        self,
        dataset: xr.Dataset,
        world: World,
        *,
        cache_gigabytes: float = 4.0,
        persisted: Sequence[str] = (),
        repeated: Sequence[str] = (),
        held: Sequence[str] = (),
    ) -> None:
        self.dataset, self.world, self.grid = dataset, world, world.grid
        self.origin = origin_of(dataset)
        if "time" not in dataset.dims:
            raise ValueError(f"{self.origin} has no times; expected a dimension `time` or a single date.")
        self.clock = dataset["time"].values.astype("datetime64[s]")
        self.members = dataset.sizes.get("member", 1)
        self.times = np.tile(self.clock, self.members)
        self.persisted, self.repeated, self.held = tuple(persisted), tuple(repeated), tuple(held)
        if unread := [name for name in held if name not in world.forcing]:
            raise ValueError(f"held: {', '.join(unread)} is no forcing; these are {', '.join(world.forcing.names)}.")
        self._matches_computed: dict[str, bool] = {}
        self._refuse_other_grid()
        expected = [*world.available]
        present = [v for v in expected if v.name in dataset.data_vars or _is_computed(v)]
        self.absent = tuple(v.name for v in expected if v not in present)
        self.variables = VariableSet(tuple(present))  # the channels of `gather`, in this order
        for name in world.prognostic.names:
            if name in self.absent:
                raise ValueError(f"No variable '{name}' in {self.origin}; {variable_hint(name, dataset.data_vars)}")
        self.fields = Fields(dataset, self.variables, self.grid)
        for variable in self.variables:
            if variable.name in dataset.data_vars:
                units = str(dataset[variable.name].attrs.get("units", ""))
                refuse_other_units(variable.name, variable.units, units, self.origin)
        self.following = self._following()
        self.row_bytes = 4 * self.variables.size * int(np.prod(self.grid.shape))
        self._block = max(1, int(BLOCK_BYTES // max(self.row_bytes, 1)))
        self._lock = threading.Lock()
        self._in_memory = np.zeros(self.times.size, dtype=bool)
        self._checked = np.zeros(self.times.size, dtype=bool)  # read before; nothing missing, nothing beyond its limits
        self._limits = ChannelLimits(self.variables, declared_ranges(dataset))
        self._memory: Tensor | None = None
        self._chunks: OrderedDict[int, np.ndarray] = OrderedDict()
        self.cached_chunks = 0  # chunks of the source that are kept in memory, at most
        if self.times.size * self.row_bytes <= cache_gigabytes * 1e9:
            self._memory = torch.empty((self.times.size, self.variables.size, *self.grid.shape))
        elif self.fields.granule > 1:
            count = min(MOST_CHUNKS, int(cache_gigabytes * 1e9 // (self.fields.granule * self.row_bytes)))
            self.cached_chunks = count if count >= FEWEST_CHUNKS else 0

    @property
    def in_memory(self) -> bool:
        """True if all fields are kept in memory once they are read."""
        return self._memory is not None

    @property
    def memory_bytes(self) -> int:
        """Upper bound on the bytes of the fields that are kept."""
        if self._memory is not None:
            return self.times.size * self.row_bytes
        return self.cached_chunks * self.fields.granule * self.row_bytes

    def reading_bytes(self, times: int) -> int:
        """Upper bound on the extra bytes needed to read `times` fields at once."""
        if self._memory is not None:
            times = min(self._block, self.times.size)
        elif self.cached_chunks:
            times = self.fields.granule
        return self.row_bytes + self.fields.reading_bytes(times)

    @property
    def shuffle_chunks(self) -> int:
        """Number of source chunks shuffled together, so that they fit in the cache; 0 shuffles the whole period."""
        return self.cached_chunks // 2

    def with_world(self, world: World) -> Archive:
        """Return the archive with a World that differs only in its scales; the memory is shared."""
        same = [world.by_role[role] == self.world.by_role[role] for role in ("prognostic", "diagnostic", "forcing")]
        if not all(same) or not world.grid.same_as(self.grid):
            raise ValueError("Expected a World of the same grid and variables; open a new Archive for another.")
        clone = object.__new__(Archive)
        clone.__dict__ = {**self.__dict__, "world": world}
        return clone

    def index(self, times: np.ndarray) -> np.ndarray:
        """Return the positions of the nearest times, in the shape of `times`; ValueError names the first absent one."""
        times = np.asarray(times, dtype="datetime64[s]")
        positions = self._nearest(times)
        absent = positions < 0
        if absent.any():
            first = times[absent][0] if times.ndim else times
            raise ValueError(
                f"No fields at {first} in {self.origin}, which holds {self.times.size} times from {self.times[0]} to "
                f"{self.times[-1]}; {absent.sum()} of {absent.size} times asked for are absent."
            )
        return positions

    def has(self, times: np.ndarray) -> np.ndarray:
        """Return whether the archive holds each time, bool, in the shape of `times`."""
        return self._nearest(times) >= 0

    def channels(self, variables: VariableSet) -> slice:
        """Return the channels of `gather` that hold `variables`, which must follow each other there."""
        slices = [self.variables.slice(name) for name in variables.names]
        if any(previous.stop != following.start for previous, following in pairwise(slices)):
            archived, requested = (", ".join(variable_set.names) for variable_set in (self.variables, variables))
            raise ValueError(f"Expected variables that follow each other in {archived}; got {requested}.")
        return slice(slices[0].start, slices[-1].stop) if slices else slice(0, 0)

    def states(self, times: np.ndarray, variables: VariableSet | None = None, member: int = 0) -> State:
        """Read the State at `times`, with lead () for one time and (batch,) for several.

        variables: default, all that the World predicts. member: of several in the data.
        """
        variables = self.world.predicted if variables is None else variables
        absent = [name for name in variables.names if name not in self.variables]
        if absent:
            raise ValueError(f"{self.origin} has no {', '.join(absent)}; it has {', '.join(self.variables.names)}.")
        times = np.asarray(times, dtype="datetime64[s]")
        values = self.gather(np.atleast_1d(self.index(times)) + member * self.clock.size)
        state = State(values if times.ndim else values[0], self.variables, times, len(self.grid.shape))
        return replace(state.select(variables.names), variables=variables)

    def history(self, init_times: np.ndarray, member: int = 0) -> tuple[State, ...]:
        """Read the States that a forecast from each of `init_times` starts with, oldest first."""
        init_times = np.asarray(init_times, dtype="datetime64[s]")
        return tuple(
            self.states(self.world.after(init_times, -back), self.world.prognostic, member)
            for back in reversed(range(self.world.history))
        )

    def forcing(self, times: np.ndarray, inits: np.ndarray | None = None) -> State:
        """Read the World's forcings at `times`; those that follow from the time are computed where the data end.

        inits: initial times of forecasts, one each, whose value those in `held` keep; None: all are of `times`.
        """
        forcing, times = self.world.forcing, np.asarray(times, dtype="datetime64[s]")
        flat = np.atleast_1d(times)
        fields = torch.empty((flat.size, forcing.size, *self.grid.shape))
        covered = self.has(flat).all()
        archived = [
            v for v in forcing if v.name in self.dataset.data_vars and (covered or not self.matches_computed(v))
        ]
        by_times: dict[bytes, list[Variable]] = {}  # variables that are read at the same times
        for variable in archived:
            by_times.setdefault(self.source_times(variable, flat, inits).tobytes(), []).append(variable)
        for group in by_times.values():
            state = self.states(self.source_times(group[0], flat, inits), VariableSet(tuple(group)))
            for variable in group:
                fields[:, forcing.slice(variable.name)] = state.values[:, state.variables.slice(variable.name)]
        for variable in forcing:
            if variable in archived:
                continue
            if not _is_computed(variable):
                raise ValueError(
                    f"Forcing '{variable.name}' ({variable.units}) is not in {self.origin}; open data that have it."
                )
            computed = forcings.moving([variable.name], flat, self.grid)
            fields[:, forcing.slice(variable.name)] = torch.from_numpy(computed)
        return State(fields if times.ndim else fields[0], forcing, times, len(self.grid.shape))

    def source_times(self, variable: Variable, times: np.ndarray, inits: np.ndarray | None = None) -> np.ndarray:
        """Return the times of the data whose fields are used for a forcing at `times` of forecasts from `inits`."""
        if inits is not None and variable.name in self.held:
            return np.broadcast_to(np.asarray(inits, dtype="datetime64[s]"), times.shape)
        if variable.name in self.persisted:
            return np.minimum(times, self.clock[-1])
        return last_year(times, self.clock[-1]) if variable.name in self.repeated else times

    def matches_computed(self, variable: Variable) -> bool:
        """Return whether a forcing in the data equals the computed one, so that this can be used where the data end."""
        if not _is_computed(variable):
            return False
        if variable.name not in self._matches_computed:
            time = self.times[:1]
            stored = self.states(time, VariableSet((variable,))).values.numpy()
            computed = forcings.moving([variable.name], time, self.grid)
            matches = np.allclose(stored, computed, atol=2e-3 * np.abs(computed).max())
            self._matches_computed[variable.name] = bool(matches)
        return self._matches_computed[variable.name]

    def load(self, period: Sequence[str | int], report: Callable[[str, float], None] | None = None) -> None:
        """Read all fields of a period into memory if they fit; report(message, fraction) is called as it goes."""
        positions = self.within(period)
        if self._memory is None or not positions.size:
            return
        for start in range(0, positions.size, self._block):
            self._fill(positions[start : start + self._block])
            if report:
                report("reading fields", min(1.0, (start + self._block) / positions.size))

    def within(self, period: Sequence[str | int]) -> np.ndarray:
        """Return the positions of the times from start to end of `period`, both inclusive ("2003": the whole year)."""
        first, last = bounds(period)
        return np.flatnonzero((self.times >= first) & (self.times <= last))

    def gather(self, positions: np.ndarray, out: np.ndarray | None = None) -> Tensor:
        """Read the fields at `positions` of the time axis, (position, channel, lat, lon); each time is read once.

        Channels are those of `variables`. out: float32 array of this shape to read into; default a new one.
        """
        positions = np.asarray(positions)
        if out is None:
            out = np.empty((positions.size, self.variables.size, *self.grid.shape), dtype=np.float32)
        unique, first, inverse = np.unique(positions, return_index=True, return_inverse=True)
        if self._memory is not None:
            if not self._in_memory[unique].all():
                self._fill(unique)
            # By numpy, in one thread: a second pool of OpenMP threads would spin beside the one that trains.
            np.take(self._memory.numpy(), positions, axis=0, out=out, mode="clip")
            return torch.from_numpy(out)
        if self.cached_chunks:
            self._read_through_cache(positions, out)
            return torch.from_numpy(out)
        self._read(unique, out, first)
        for row in np.flatnonzero(first[inverse] != np.arange(positions.size)):
            out[row] = out[first[inverse[row]]]
        return torch.from_numpy(out)

    def _read_through_cache(self, positions: np.ndarray, out: np.ndarray) -> None:
        """Read through an LRU cache of source chunks."""
        granule = self.fields.granule
        with self._lock:
            for number in np.unique(positions // granule).tolist():
                chunk = self._chunks.pop(number, None)
                if chunk is None:
                    while len(self._chunks) >= self.cached_chunks:
                        self._chunks.popitem(last=False)
                    within = np.arange(number * granule, min((number + 1) * granule, self.times.size))
                    chunk = np.empty((within.size, *out.shape[1:]), dtype=np.float32)
                    self._read(within, chunk)
                self._chunks[number] = chunk
                for row in np.flatnonzero(positions // granule == number):
                    out[row] = chunk[positions[row] - number * granule]

    def _fill(self, positions: np.ndarray) -> None:
        """Read those of sorted positions into memory that are not there yet."""
        assert self._memory is not None
        with self._lock:
            for start, stop in _runs(positions[~self._in_memory[positions]], self._block):
                self._read(np.arange(start, stop), self._memory[start:stop].numpy())
                self._in_memory[start:stop] = True

    def _read(self, positions: np.ndarray, out: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Read ascending positions into rows of `out`; ValueError if a value is missing or impossible."""
        rows = np.arange(positions.size) if rows is None else rows
        unchecked = ~self._checked[positions]
        if self.fields.read(positions, out, rows, self._limits if unchecked.any() else None):
            self._checked[positions] = True
            return
        for n in np.flatnonzero(unchecked):
            if not self._limits.hold(out[rows[n]]):
                self._refuse_missing(out[rows[n]], positions[n])
                self._refuse_impossible(out[rows[n]], positions[n])
            self._checked[positions[n]] = True

    def _refuse_missing(self, fields: np.ndarray, position: int) -> None:
        missing = ~np.isfinite(fields)
        if not missing.any():
            return
        channel = int(np.flatnonzero(missing.any(axis=tuple(range(1, missing.ndim))))[0])
        name = next(v.name for v in self.variables if channel < self.variables.slice(v.name).stop)
        raise ValueError(
            f"'{self.variables.channels[channel]}' is missing (NaN or infinite) at {missing[channel].sum()} of "
            f"{missing[channel].size} points at {self.times[position]} in {self.origin}; leave out the variable "
            f"or the time, or give the data source a value: fill={{{name}: 0}}."
        )

    def _refuse_impossible(self, fields: np.ndarray, position: int) -> None:
        """Raise ValueError if a value is outside the physical range of its variable, or apart from all others."""
        for channel, field in enumerate(fields):
            beyond = self._limits.beyond(field, channel)
            if beyond is None:
                continue
            name = next(v.name for v in self.variables if channel < self.variables.slice(v.name).stop)
            point = int(np.flatnonzero(beyond)[0])
            place = place_text(*(float(degrees[point]) for degrees in self.grid.points))
            value = f"{field.flat[point]:g} {self.variables.variable(name).units}".strip()
            units = self._limits.other_units(channel, field)
            if units:
                raise ValueError(
                    f"'{self.variables.channels[channel]}' is {value} at {place} at "
                    f"{self.times[position]} in {self.origin}, {self._limits.reason(channel)}; its values look like "
                    f"{units.partition(' ')[0]}: write data.units={{{name}: '{units}'}}, or where they are right "
                    f"data.ranges={{{name}: [{field.min():.4g}, {field.max():.4g}]}}."
                )
            low, high = min(float(field.min()), self._limits.low[channel]), max(field.max(), self._limits.high[channel])
            raise ValueError(
                f"'{self.variables.channels[channel]}' is {value} at {place} at "
                f"{self.times[position]} in {self.origin}, {self._limits.reason(channel)}; so are {beyond.sum()} of "
                f"{beyond.size} points. A number that stands for missing values belongs in the attribute "
                f"`missing_value`; other units are told with units={{{name}: ...}}; right values with "
                f"ranges={{{name}: [{low:.4g}, {high:.4g}]}}."
            )

    def _refuse_other_grid(self) -> None:
        grid = grid_of(self.dataset)
        if grid.same_as(self.grid):
            return
        lat, lon = (f"{a[0]:g}..{a[-1]:g}" for a in grid.points)
        own_lat, own_lon = (f"{a[0]:g}..{a[-1]:g}" for a in self.grid.points)
        raise ValueError(
            f"Expected the grid {self.grid!r} (latitude {own_lat}, longitude {own_lon}); {self.origin} is on {grid!r} "
            f"(latitude {lat}, longitude {lon}). Regrid it: emul data regrid, or for a forecast regrid=conservative."
        )

    def _nearest(self, times: np.ndarray) -> np.ndarray:
        """Return the positions of the nearest times, -1 where none is within a tenth of a timestep."""
        return nearest_positions(self.clock, times, TOLERANCE * self.world.lead_time(1))

    def _following(self) -> np.ndarray:
        """Return for each position that of the time one timestep later, -1 if the archive does not hold it."""
        position = self._nearest(self.world.after(self.clock, 1))
        current = np.arange(self.clock.size)
        following = np.where(position > current, position, -1)
        return np.concatenate(
            [np.where(following < 0, -1, following + member * current.size) for member in range(self.members)]
        )


def last_year(times: np.ndarray, last: np.datetime64) -> np.ndarray:
    """Replace times after `last` by the same moment of the year that ends there."""
    years = times.astype("datetime64[Y]")
    since, final = times - years.astype("datetime64[s]"), last.astype("datetime64[Y]")
    latest = final.astype("datetime64[s]") + since
    before = (final - 1).astype("datetime64[s]") + since
    return np.where(times <= last, times, np.where(latest <= last, latest, before))


def _is_computed(variable: Variable) -> bool:
    return variable.name in forcings.MOVING and variable.units == forcings.variable(variable.name).units


def _runs(positions: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """Split sorted positions into half-open runs of neighbours, none longer than `longest`."""
    if not positions.size:
        return []
    breaks = np.flatnonzero(np.diff(positions) > 1) + 1
    edges = [0, *breaks.tolist(), positions.size]
    return [
        (int(positions[at]), int(positions[min(at + longest, b) - 1]) + 1)
        for a, b in pairwise(edges)
        for at in range(a, b, longest)
    ]
