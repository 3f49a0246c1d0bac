"""Archive: a dataset seen through a World, giving States at any of its times.

Fields are read in blocks of time as float32, checked for missing values, and kept in memory where all of them fit;
a batch is then one gather along time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines import forcings
from data_pipelines.conventions import grid_of
from data_pipelines.naming import nearest
from data_pipelines.units import refuse_other_units
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import World

BLOCK_BYTES = 64e6
TOLERANCE = 0.1  # of a timestep: a time of the data stands for a time asked for where they are closer than this


class Archive:
    """The States that a canonical dataset holds of a World.

    dataset: as `data_pipelines.store.open_dataset` gives it. world: its grid and prognostic variables must be there;
    a diagnostic or a forcing that is neither there nor computed is named in `absent`. cache_gigabytes: fields are kept
    in memory where they need no more than this. persisted: forcings that beyond their last time keep the last value.
    """

    def __init__(
        self,
        dataset: xr.Dataset,
        world: World,
        *,
        cache_gigabytes: float = 4.0,
        persisted: Sequence[str] = (),
    ) -> None:
        self.dataset, self.world, self.grid = dataset, world, world.grid
        self.origin = str(dataset.attrs.get("origin", "the data"))
        if "time" not in dataset.dims:
            raise ValueError(f"{self.origin} has no times; expected a dimension `time` or a single date.")
        self.times = dataset["time"].values.astype("datetime64[s]")
        self.persisted = tuple(persisted)
        self._same_as_computed: dict[str, bool] = {}
        self._refuse_other_grid()
        wanted = [*world.prognostic, *world.diagnostic, *world.forcing]
        found = [v for v in wanted if v.name in dataset.data_vars or _is_computed(v)]
        self.absent = tuple(v.name for v in wanted if v not in found)
        self.variables = VariableSet(tuple(found))  # the channels of a gather, in this order
        for name in world.prognostic.names:
            if name in self.absent:
                raise ValueError(f"No variable '{name}' in {self.origin}; {nearest(name, dataset.data_vars)}")
        there = [v for v in self.variables if v.name in dataset.data_vars]
        self._levels = {v.name: self._level_index(v) for v in there}
        for variable in there:
            own = str(dataset[variable.name].attrs.get("units", ""))
            refuse_other_units(variable.name, variable.units, own, self.origin)
        self.following = self._following()
        row_bytes = 4 * self.variables.size * int(np.prod(self.grid.shape))
        self._block = max(1, int(BLOCK_BYTES // max(row_bytes, 1)))
        self._lock = threading.Lock()
        self._held = np.zeros(self.times.size, dtype=bool)
        self._memory: Tensor | None = None
        if self.times.size * row_bytes <= cache_gigabytes * 1e9:
            self._memory = torch.empty((self.times.size, self.variables.size, *self.grid.shape))

    @property
    def in_memory(self) -> bool:
        """True where fields are kept in memory once read."""
        return self._memory is not None

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
        position, there = self._nearest(times)
        if not there.all():
            first = times[~there][0] if times.ndim else times
            raise ValueError(
                f"No fields at {first} in {self.origin}, which holds {self.times.size} times from {self.times[0]} to "
                f"{self.times[-1]}; {(~there).sum()} of {there.size} times asked for are absent."
            )
        return position

    def has(self, times: np.ndarray) -> np.ndarray:
        """True for each time that the archive holds, bool, shape of the argument."""
        return self._nearest(np.asarray(times, dtype="datetime64[s]"))[1]

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
            v for v in forcing if v.name in self.dataset.data_vars and not (self._goes_on(v) and not there.all())
        ]
        for group, held in (
            ([v for v in archived if v.name not in self.persisted], flat),
            ([v for v in archived if v.name in self.persisted], np.minimum(flat, self.times[-1])),
        ):
            if group:
                some = self.states(held, VariableSet(tuple(group)))
                for var in group:
                    fields[:, forcing.slice(var.name)] = some.values[:, some.variables.slice(var.name)]
        for var in forcing:
            if var in archived:
                continue
            if not _is_computed(var):
                raise ValueError(f"Forcing '{var.name}' ({var.units}) is not in {self.origin}; open data that have it.")
            fields[:, forcing.slice(var.name)] = torch.from_numpy(forcings.moving([var.name], flat, self.grid))
        return State(fields if times.ndim else fields[0], forcing, times)

    def _goes_on(self, variable: Variable) -> bool:
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

    def gather(self, positions: np.ndarray) -> Tensor:
        """Fields at `positions` of the time axis, a new tensor (position, channel, lat, lon) of `variables`."""
        positions = np.asarray(positions)
        unique, inverse = np.unique(positions, return_inverse=True)
        if self._memory is not None:
            if not self._held[unique].all():
                self._fill(unique)
            # By numpy, in one thread: a second pool of OpenMP threads would spin beside the one that trains.
            return torch.from_numpy(self._memory.numpy()[positions])
        values = torch.cat([self._read(start, stop) for start, stop in _runs(unique, self._block)])
        return values if np.array_equal(unique, positions) else values.index_select(0, torch.from_numpy(inverse))

    def _fill(self, positions: np.ndarray) -> None:
        assert self._memory is not None
        with self._lock:
            for start, stop in _runs(positions[~self._held[positions]], self._block):
                self._memory[start:stop] = self._read(start, stop)
                self._held[start:stop] = True

    def _read(self, start: int, stop: int) -> Tensor:
        """Fields at consecutive positions, from the dataset or computed, shape (time, channel, lat, lon)."""
        values = np.empty((stop - start, self.variables.size, *self.grid.shape), dtype=np.float32)
        for variable in self.variables:
            part = values[:, self.variables.slice(variable.name)]
            if variable.name not in self.dataset.data_vars:
                part[:] = forcings.moving([variable.name], self.times[start:stop], self.grid)
                continue
            part[:] = self._field(variable.name, start, stop).reshape(part.shape)
            if not np.isfinite(part).all():
                self._refuse_missing(variable, part, start)
        return torch.from_numpy(values)

    def _field(self, name: str, start: int, stop: int) -> np.ndarray:
        field, levels = self.dataset[name], self._levels[name]
        if levels is not None:
            field = field.isel(level=levels)
        try:
            if "time" in field.dims:
                return np.asarray(field.isel(time=slice(start, stop)).values, dtype=np.float32)
            return np.broadcast_to(np.asarray(field.values, dtype=np.float32), (stop - start, *field.shape))
        except Exception as error:
            raise ValueError(
                f"Cannot read '{name}' at {self.times[start]} to {self.times[stop - 1]} from {self.origin}: a chunk or "
                f"file is damaged or incomplete, fetch it again ({type(error).__name__}: {str(error)[:160]})."
            ) from error

    def _refuse_missing(self, variable: Variable, part: np.ndarray, start: int) -> None:
        bad = ~np.isfinite(part)
        time, channel = (int(axis[0]) for axis in np.nonzero(bad.any(axis=(2, 3))))
        raise ValueError(
            f"'{variable.channels[channel]}' is missing (NaN or infinite) at {bad[time, channel].sum()} of "
            f"{bad[time, channel].size} points at {self.times[start + time]} in {self.origin}; leave out the variable "
            f"or the time, or give the data source a value: fill={{{variable.name}: 0}}."
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

    def _level_index(self, variable: Variable) -> list[int] | slice | None:
        """Where the variable's levels lie in the dataset; None where the variable has none."""
        has_levels = "level" in self.dataset[variable.name].dims
        if has_levels != bool(variable.levels):
            raise ValueError(
                f"Expected '{variable.name}' {'with levels' if variable.levels else 'without levels'}; "
                f"{self.origin} has it {'with' if has_levels else 'without'} them."
            )
        if not has_levels:
            return None
        there = np.asarray(self.dataset["level"].values, dtype=float)
        index = [int(np.abs(there - level).argmin()) for level in variable.levels]
        for level, i in zip(variable.levels, index, strict=True):
            if not np.isclose(there[i], level, rtol=1e-5):
                raise ValueError(
                    f"Variable '{variable.name}' has no level {level:g} in {self.origin}; the nearest is {there[i]:g} "
                    "(give the data source `levels` to interpolate)."
                )
        consecutive = index == list(range(index[0], index[0] + len(index)))
        return slice(index[0], index[-1] + 1) if consecutive else index

    def _nearest(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the nearest times, and whether they are near enough."""
        right = np.clip(np.searchsorted(self.times, times), 0, self.times.size - 1)
        left = np.maximum(right - 1, 0)
        position = np.where(abs(self.times[left] - times) <= abs(self.times[right] - times), left, right)
        return position, np.asarray(abs(self.times[position] - times) <= TOLERANCE * self.world.lead_time(1))

    def _following(self) -> np.ndarray:
        """For each position that of the time one timestep later, -1 where the archive has none."""
        position, there = self._nearest(self.world.after(self.times, 1))
        own = np.arange(self.times.size)
        return np.where(there & (position > own), position, -1)


def bounds(period: Sequence[str | int]) -> tuple[np.datetime64, np.datetime64]:
    """First and last second of [start, end]; an end given as a year, month or day includes all of it."""
    try:
        first, last = (np.datetime64(str(text)) for text in period)
        start = first.astype("datetime64[s]")
        end = (last + 1).astype("datetime64[s]") - np.timedelta64(1, "s")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected a period [start, end] such as ['2001-01-01', '2002-12-31']; got {period}."
        ) from error
    if end < start:
        raise ValueError(f"The period {period[0]} to {period[1]} ends before it begins.")
    return start, end


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
