"""Fields: the channels of some variables at positions of a dataset's time axis, read straight into an array.

Where the variables are those of a packed store, whole chunks of it are; else each variable is read through xarray.
Variables that the dataset lacks are computed, where they follow from time and grid (`data_pipelines.forcings`).
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cached_property, partial

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import origin_of
from data_pipelines.derived import forcings
from data_pipelines.reading import threads
from data_pipelines.reading.packed_store import ChannelRun, PackedStore, channel_runs
from data_pipelines.reading.packed_view import packed_store_of
from data_pipelines.reading.plausibility import ChannelLimits
from data_pipelines.reading.threads import DamagedData, ScratchMemory, processors, reading_threads
from data_pipelines.reading.zarr_chunks import ChunkField, as_slice, chunk_content, chunk_field
from emulators.grid import Grid
from emulators.variables import Variable, VariableSet

FLOATS = 6  # fields in double precision that a computed one takes meanwhile


class Fields:
    """Read the fields of `variables` from a canonical dataset, channels in their order.

    granule: times that share a chunk of the source, so that one costs as much as all of them.
    """

    def __init__(self, dataset: xr.Dataset, variables: VariableSet, grid: Grid) -> None:
        self.dataset, self.variables, self.grid = dataset, variables, grid
        self.origin = origin_of(dataset)
        self.members = dataset.sizes.get("member", 1)
        self.times = np.tile(dataset["time"].values.astype("datetime64[s]"), self.members)
        self.archived = VariableSet(tuple(v for v in variables if v.name in dataset.data_vars))
        self._levels = {v.name: self._level_index(v) for v in self.archived}
        self._store: PackedStore | None = None
        self._runs: tuple[ChannelRun, ...] = ()
        self._chunked: dict[str, ChunkField] = {}
        self._scratch = ScratchMemory()
        self.granule = 1
        packed = packed_store_of(dataset, self.archived)
        if packed is None:
            self.granule = max((_times_a_chunk(dataset[v.name]) for v in self.archived), default=1)
            if "member" not in dataset.dims:
                chunked = {n: chunk_field(dataset[n].variable, levels) for n, levels in self._levels.items()}
                self._chunked = {name: field for name, field in chunked.items() if field is not None}
            return
        self._store, channels = packed
        first = {v.name: variables.slice(v.name).start for v in self.archived}
        self._runs = channel_runs(
            (c, first[name] + n) for name, numbers in channels.items() for n, c in enumerate(numbers)
        )

    @property
    def is_packed(self) -> bool:
        """True if the fields are read straight from a packed store."""
        return self._store is not None

    def reading_bytes(self, times: int) -> int:
        """Upper bound on the bytes that reading `times` fields at once needs besides the array they are read into."""
        points = times * int(np.prod(self.grid.shape))
        computed = FLOATS * 8 * points if len(self.archived) < len(self.variables) else 0
        if self._store is not None:
            return computed + self._store.reading_bytes(self._runs)
        in_place = processors() * max((field.scratch_bytes for field in self._chunked.values()), default=0)
        through_xarray = 0
        for variable in self.archived:
            if variable.name not in self._chunked:
                field = self.dataset[variable.name]
                levels = field.sizes.get("level", 1)  # those not wanted are read, too
                through_xarray += points * levels * (4 + 2 * max(4, field.dtype.itemsize)) + _chunk_bytes(field)
        return computed + in_place + through_xarray

    def read(
        self,
        positions: np.ndarray,
        out: np.ndarray,
        rows: np.ndarray | slice = slice(None),
        limits: ChannelLimits | None = None,
    ) -> bool:
        """Fill out[rows[n]] with the fields at positions[n], which ascend; out: float32 (row, channel, *grid).

        DamagedData names what cannot be read. limits: compare with these where that is cheap; True if all were
        compared and none is missing or beyond.
        """
        sound = False
        if self._store is not None:
            sound = self._store.read(positions, out, self._runs, rows, limits)
        jobs = {}
        if self._store is None:  # variables side by side: decoding and waiting for a network are shared among threads
            waiting, sound = self._not_in_place(positions, out, np.arange(len(out))[rows], limits)
            pool = reading_threads()
            jobs = {v.name: pool.submit(self._field, v.name, positions) for v in self.archived if v.name in waiting}
        for variable in self.variables:
            block = out[:, self.variables.slice(variable.name)]
            if variable.name not in self.archived:
                block[rows] = forcings.moving([variable.name], self.times[positions], self.grid)
            elif variable.name in jobs:
                field = self._awaited(variable.name, positions, jobs.pop(variable.name))
                block[rows] = field if variable.levels else field[:, None]
        return sound

    @cached_property
    def _as_stored(self) -> list[tuple[str, ChunkField, slice | int]]:
        """The variables whose chunks hold fields exactly as they are wanted, with the channels that they fill."""
        stored: list[tuple[str, ChunkField, slice | int]] = []
        for name, field in self._chunked.items():
            if field.is_as_stored:
                stored.append((name, field, self._channels(name)))
        return stored

    def _channels(self, name: str) -> slice | int:
        """Return the channels that a variable fills: an int if it has no levels."""
        channels = self.variables.slice(name)
        return channels if self.variables.variable(name).levels else channels.start

    def _not_in_place(
        self, positions: np.ndarray, out: np.ndarray, rows: np.ndarray, limits: ChannelLimits | None
    ) -> tuple[set[str], bool]:
        """Read straight into `out` what lies in chunks of whole fields; the names of what is not there after it.

        What could not be read is among these, to be tried again patiently, and named where that fails too. And whether
        nothing is among these, and all numbers are within `limits`.
        """
        unsound: list[str] = []
        waiting = set(self.archived.names) - set(self._chunked)
        given_up = threading.Event()
        tasks: deque[tuple[str, ChunkField, np.ndarray, int, np.ndarray]] = deque()
        whole = deque(zip(positions.tolist(), rows.tolist(), strict=True)) if self._as_stored else deque()
        for name, field in self._chunked.items():
            if field.is_as_stored:
                continue
            place = out[:, self._channels(name)]
            tasks.extend((name, field, place, *part) for part in field.parts(positions))

        def work() -> None:
            while whole:
                try:
                    position, row = whole.popleft()
                except IndexError:  # another thread was faster
                    break
                failed, valid = read_as_stored(self._as_stored, position, out[row], self._scratch, given_up, limits)
                waiting.update(failed)
                if not valid:
                    unsound.append(str(position))
            while tasks:
                try:
                    name, field, place, number, some = tasks.popleft()
                except IndexError:  # another thread was faster
                    return
                try:
                    holds = partial(limits.hold, channels=self._channels(name)) if limits is not None else None
                    if not field.read(number, positions[some], place, rows[some], self._scratch, given_up, holds):
                        unsound.append(name)
                except Exception:
                    waiting.add(name)

        jobs = [reading_threads().submit(work) for _ in range(min(processors(), len(whole) + len(tasks)))]
        if concurrent.futures.wait(jobs, timeout=threads.TIMEOUT).not_done:
            given_up.set()  # what comes after all must not be written into memory that is used again
            tasks.clear()
            whole.clear()
            waiting |= set(self._chunked)
        return waiting, limits is not None and not waiting and not unsound

    def _awaited(self, name: str, positions: np.ndarray, job: Future[np.ndarray]) -> np.ndarray:
        """Wait for the field that a thread reads; try again if that fails or takes too long."""
        for wait in (*threads.WAITS, None):
            try:
                return job.result(timeout=threads.TIMEOUT)
            except Exception as error:
                if wait is None and len(positions) > 1 and not isinstance(error, TimeoutError):
                    return np.concatenate([self._alone(name, position) for position in positions])
                if wait is None:
                    raise DamagedData(self.origin, name, self._told(positions), error) from error
                time.sleep(wait)
                job = reading_threads().submit(self._field, name, positions)
        raise AssertionError("unreachable")

    def _alone(self, name: str, position: int) -> np.ndarray:
        """Read one variable at one position; DamagedData names both."""
        try:
            return self._field(name, np.array([position]))
        except Exception as error:
            raise DamagedData(self.origin, name, self.times[position], error) from error

    def _field(self, name: str, positions: np.ndarray) -> np.ndarray:
        """Read one variable at ascending positions, float32, time first."""
        field, levels = self.dataset[name].variable, self._levels[name]
        if "member" in field.dims:
            member, positions = np.divmod(positions, self.dataset.sizes["time"])
            by_member = [(field.isel(member=m), positions[member == m]) for m in np.unique(member).tolist()]
            return np.concatenate([self._values(member_field, levels, times) for member_field, times in by_member])
        return self._values(field, levels, positions % self.dataset.sizes["time"])

    @staticmethod
    def _values(field: xr.Variable, levels: list[int] | slice | None, positions: np.ndarray) -> np.ndarray:
        """Read a variable of one member at ascending positions of its times."""
        if levels is not None:
            field = field.isel(level=levels)
        if "time" not in field.dims:
            values = np.asarray(field.values, dtype=np.float32)
            return np.broadcast_to(values, (len(positions), *values.shape))
        return np.asarray(field.isel(time=as_slice(positions)).values, dtype=np.float32)

    def _told(self, positions: np.ndarray) -> str:
        first, last = self.times[positions[0]], self.times[positions[-1]]
        return str(first) if first == last else f"{first} to {last}"

    def _level_index(self, variable: Variable) -> list[int] | slice | None:
        """Find the variable's levels in the dataset; None if it has none."""
        has_levels = "level" in self.dataset[variable.name].dims
        if has_levels != bool(variable.levels):
            raise ValueError(
                f"Expected '{variable.name}' {'with levels' if variable.levels else 'without levels'}; "
                f"{self.origin} has it {'with' if has_levels else 'without'} them."
            )
        if not has_levels:
            return None
        levels = np.asarray(self.dataset["level"].values, dtype=float)
        index = [int(np.abs(levels - level).argmin()) for level in variable.levels]
        for level, i in zip(variable.levels, index, strict=True):
            if not np.isclose(levels[i], level, rtol=1e-5):
                raise ValueError(
                    f"Variable '{variable.name}' has no level {level:g} in {self.origin}; the nearest is {levels[i]:g} "
                    "(give the data source `levels` to interpolate)."
                )
        consecutive = index == list(range(index[0], index[0] + len(index)))
        return slice(index[0], index[-1] + 1) if consecutive else index


def read_as_stored(
    fields: Sequence[tuple[str, ChunkField, slice | int]],
    position: int,
    out: np.ndarray,
    memory: ScratchMemory,
    given_up: threading.Event,
    limits: ChannelLimits | None = None,
) -> tuple[list[str], bool]:
    """Fill out (channel, lat, lon) with one time of fields that are as stored: (name, field, its channels) each.

    Returns the names of those that could not be read, and whether all numbers are known to be within `limits`.
    """
    failed: list[str] = []
    sound = limits is not None
    with memory.lent() as scratch:
        for name, field, channels in fields:
            before, behind = field.path
            try:
                content = chunk_content(f"{before}{field.moments.item(position)}{behind}", scratch)
                if given_up.is_set():
                    return failed, False
                target, place = out[channels], field.place(field.moments.item(position))
                if content is None:
                    target[...] = field.array.absent(place)
                else:
                    field.array.decode(field.array.sound(content, place), target)
            except Exception:  # told by whoever tries again
                failed.append(name)
            else:
                sound = sound and limits is not None and limits.hold(target, channels)
    return failed, sound


def _chunk_bytes(field: xr.DataArray) -> int:
    """Return the bytes of a stored chunk of a field; 0 if it has no chunks."""
    chunks = field.encoding.get("chunks") or field.encoding.get("chunksizes")
    return field.dtype.itemsize * int(np.prod(chunks)) if chunks else 0


def _times_a_chunk(field: xr.DataArray) -> int:
    """Return the number of times in a stored chunk of a field."""
    if "time" not in field.dims:
        return 1
    preferred = field.encoding.get("preferred_chunks") or {}
    chunks = field.encoding.get("chunks") or field.encoding.get("chunksizes") or (1,)
    return int(preferred.get("time", chunks[0]))
