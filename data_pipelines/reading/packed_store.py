"""The packed store: all channels of a time as one chunk at a known place of a file, read straight into a batch.

    <store>/fields                        (time, channel, *grid), one time a chunk, many chunks a file;
                                          of several members all times of the first, then of the second, ...
    <store>/time, channel, latitude, ...  coordinates; one array of (latitude, longitude) a static channel

A Zarr v3 store (https://zarr-specs.readthedocs.io: sharding_indexed with the index at the start, crc32c behind every
chunk) that xarray and zarr read too. Half precision holds (x - offset) / scale, one offset and one scale a channel.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.files.fingerprints import refuse_damage, refuse_lost_coordinates, sealed_root
from data_pipelines.reading import threads
from data_pipelines.reading.encodings import Encoding
from data_pipelines.reading.plausibility import ChannelLimits
from data_pipelines.reading.threads import DamagedData, ScratchMemory, processors, reading_threads
from emulators.variables import VariableSet

FORMAT = 1
OPEN_FILES = 256  # a store of more files opens one for every read
ABSENT = np.uint64(2**64 - 1)
MOST_READERS = 4  # threads that read one batch side by side
PART_BYTES = 4_000_000  # what is worth a thread of its own
ANNOUNCED = 4  # chunks that the kernel is asked to read ahead of a thread


@dataclass(frozen=True)
class ChannelRun:
    """Locate a run of channels: `count` from `source` on in the store, read to channels from `target` on."""

    source: int
    count: int
    target: int


def channel_runs(channels: Iterable[tuple[int, int]]) -> tuple[ChannelRun, ...]:
    """Join pairs (source, target) of channels into runs, in the order of the store."""
    runs: list[ChannelRun] = []
    for source, target in sorted(channels):
        last = runs[-1] if runs else None
        if last and (source, target) == (last.source + last.count, last.target + last.count):
            runs[-1] = ChannelRun(last.source, last.count + 1, last.target)
        else:
            runs.append(ChannelRun(source, 1, target))
    return tuple(runs)


def is_packed_store(folder: Path) -> bool:
    """Return whether a folder holds a packed store."""
    try:
        return "packed_format" in json.loads((folder / "zarr.json").read_bytes())["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


class PackedStore:
    """Read the packed store at `path`; threads may share it. FileNotFoundError or ValueError if it is none.

    times: of every chunk, datetime64[s]. members: number of members, one after the other. variables: of the channels.
    static: name -> field of each static channel.
    """

    def __init__(self, path: str | Path) -> None:
        import zarr

        self.path = Path(path).expanduser()
        sealed = sealed_root(self.path)
        try:
            root = sealed or json.loads((self.path / "zarr.json").read_bytes())
            self.attributes: dict[str, Any] = root["attributes"]
            metadata = root["consolidated_metadata"]["metadata"]
            packed, described = int(self.attributes["packed_format"]), metadata["fields"]
        except FileNotFoundError as error:
            raise FileNotFoundError(f"No packed store at {self.path}; `emul data convert` makes one.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is no packed store; `emul data convert` makes one of any data.") from error
        if packed != FORMAT:
            raise ValueError(f"{self.path} has packed format {packed}, expected {FORMAT}; convert the data again.")
        self.shape: tuple[int, ...] = tuple(described["shape"])
        self.per_file = int(described["chunk_grid"]["configuration"]["chunk_shape"][0])
        self.variables = VariableSet.from_plain(self.attributes["variables"])
        self.static_variables = VariableSet.from_plain(self.attributes["static"])
        if sealed is not None:
            refuse_lost_coordinates(self.path, sealed)
        group = zarr.open_group(self.path, mode="r", use_consolidated=True)
        self.times = _numbers(group, "time")[: self.shape[0]].astype("datetime64[s]")
        self.members = int(self.attributes.get("members", 1))
        self.latitude, self.longitude = _numbers(group, "latitude"), _numbers(group, "longitude")
        cells = len(self.shape) == 3
        self.cell_area_weight = _numbers(group, "cell_area_weight") if cells else None
        self.static = {name: _numbers(group, name) for name in self.static_variables.channels}
        scaled = "scale" in metadata
        self.encoding = Encoding(
            self.attributes["stored_as"],
            self.attributes["compression"],
            _numbers(group, "offset") if scaled else None,
            _numbers(group, "scale") if scaled else None,
        )
        self._verified = np.zeros(self.shape[0], dtype=bool)
        self._files: dict[int, tuple[int, np.ndarray]] = {}
        self._given_up: list[int] = []  # descriptors that another thread may be reading yet
        self._lock = threading.Lock()
        self._scratch = ScratchMemory()

    def __del__(self) -> None:
        descriptors = [descriptor for descriptor, _ in getattr(self, "_files", {}).values()]
        for descriptor in (*descriptors, *getattr(self, "_given_up", ())):
            os.close(descriptor)

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return PackedStore, (self.path,)

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of one time before compression, without its checksum."""
        return int(np.prod(self.shape[1:])) * self.encoding.itemsize

    @property
    def file_count(self) -> int:
        return -(-self.shape[0] // self.per_file)

    def file(self, number: int) -> Path:
        """Return the path of file `number`, which holds the times from number * per_file on."""
        return self.path / "fields" / "c" / str(number) / "0" / "0" / "0"

    def channel(self, name: str, level: float | None) -> int:
        """Return the number of a channel; KeyError if the store lacks it."""
        variable = self.variables.variable(name)
        return self.variables.slice(name).start + (variable.levels.index(level) if level is not None else 0)

    def read(
        self,
        positions: np.ndarray,
        out: np.ndarray,
        channels: Sequence[ChannelRun] | None = None,
        rows: np.ndarray | slice = slice(None),
        limits: ChannelLimits | None = None,
    ) -> bool:
        """Fill out[rows[n]] with the time at positions[n]; out: float32 (row, channel, lat, lon), planes contiguous.

        The checksum of a chunk is verified when it is first read. DamagedData names store and time if that fails.
        limits: of the channels of `out`, compared while these are in the processor's cache; True if all are within.
        """
        wanted = (ChannelRun(0, self.shape[1], 0),) if channels is None else tuple(channels)
        places = np.arange(len(out))[rows].tolist()
        jobs = deque(zip(places, np.asarray(positions).tolist(), strict=True))
        count = max(1, min(_readers(), len(jobs) * self.chunk_bytes // PART_BYTES))
        beside = [reading_threads().submit(self._read_some, jobs, out, wanted, limits) for _ in range(count - 1)]
        sound = False
        try:
            sound = self._read_some(jobs, out, wanted, limits)
        finally:
            jobs.clear()
            begun = [task for task in beside if not task.cancel()]
            wait(begun)  # nobody writes into `out` after this
        return all([sound, *(task.result() for task in begun)])

    def _read_some(
        self, jobs: deque[tuple[int, int]], out: np.ndarray, wanted: Sequence[ChannelRun], limits: ChannelLimits | None
    ) -> bool:
        """Fill out[row] with the time at a position, for each pair of them that no other thread has taken.

        Returns whether all numbers are within `limits`, if these are given.
        """
        sound = limits is not None
        as_stored = self.encoding.is_plain and len(wanted) == 1 and wanted[0].count == self.shape[1]
        while jobs:
            try:
                row, position = jobs.popleft()
            except IndexError:
                break
            if not (as_stored and self._read_again(position, out[row, wanted[0].target :][: wanted[0].count])):
                self._announce(position, jobs)
                self._read_patiently(position, out[row], wanted)
            sound = sound and limits is not None and all(_held(out[row], run, limits) for run in wanted)
        return sound

    def _announce(self, position: int, jobs: deque[tuple[int, int]]) -> None:
        """Have the kernel begin to read this chunk and the next ones, as far as nobody has read them yet."""
        if sys.platform != "linux" or self._verified[position]:
            return
        positions = [position]
        with suppress(IndexError):  # other threads take jobs meanwhile
            positions.extend(jobs[number][1] for number in range(ANNOUNCED))
        for number, place in (divmod(each, self.per_file) for each in positions):
            entry = self._files.get(number)
            if entry is not None and entry[1][place, 0] != ABSENT:
                offset, size = entry[1][place].tolist()
                os.posix_fadvise(entry[0], offset, size, os.POSIX_FADV_WILLNEED)

    def _read_again(self, position: int, out: np.ndarray) -> bool:
        """Read all channels of a time that was verified before, in one call; False if that is not possible."""
        entry = self._files.get(position // self.per_file)
        if entry is None or not self._verified[position]:
            return False
        descriptor, index = entry
        try:
            return os.preadv(descriptor, [out.data], index.item(position % self.per_file, 0)) == self.chunk_bytes
        except OSError:
            return False

    def _read_patiently(self, position: int, out: np.ndarray, wanted: Sequence[ChannelRun]) -> None:
        for pause in (*threads.WAITS, None):
            try:
                return self._read_one(position, out, wanted)
            except (OSError, ValueError, RuntimeError) as error:
                if pause is None:
                    raise DamagedData(str(self.path), "fields", self.times[position], error) from error
                self._forget(position // self.per_file)
                time.sleep(pause)

    def _read_one(self, position: int, out: np.ndarray, wanted: Sequence[ChannelRun]) -> None:
        descriptor, index = self._open(position // self.per_file)
        try:
            offset, size = _place(index[position % self.per_file])
            first, whole = not self._verified[position], len(wanted) == 1 and wanted[0].count == self.shape[1]
            if self.encoding.is_plain and whole and first:
                chunk, tail = out[wanted[0].target :][: wanted[0].count], bytearray(4)
                _preadv(descriptor, [chunk, tail], offset)
                refuse_damage(chunk, tail)
            elif self.encoding.is_plain and not first:
                for run in wanted:
                    planes = out[run.target : run.target + run.count]
                    _preadv(descriptor, [planes], offset + run.source * (self.chunk_bytes // self.shape[1]))
            else:
                self._decode(descriptor, offset, size, first, out, wanted)
            self._verified[position] = True
        finally:
            if self.file_count > OPEN_FILES:
                os.close(descriptor)

    def reading_bytes(self, channels: Sequence[ChannelRun]) -> int:
        """Upper bound on the bytes that reading these channels needs besides the array they are read into."""
        whole = len(channels) == 1 and channels[0].count == self.shape[1]
        chunks = 2 if not self.encoding.is_plain else 0 if whole else 1  # as stored, and decoded
        return _readers() * chunks * (self.chunk_bytes + 4)

    def _decode(
        self, descriptor: int, offset: int, size: int, verify: bool, out: np.ndarray, wanted: Sequence[ChannelRun]
    ) -> None:
        """Read a chunk of `size` bytes, decode it and write the channels that are wanted into `out`."""
        with self._scratch.lent() as scratch:
            content = scratch.array("stored", size, np.dtype(np.uint8))[:size]
            _preadv(descriptor, [content], offset)
            if verify:
                refuse_damage(content[:-4], bytes(content[-4:]))
            chunk = self.encoding.decoded(content[:-4], self.shape[1:])
            for run in wanted:
                source = slice(run.source, run.source + run.count)
                self.encoding.spread(chunk[source], source, out[run.target : run.target + run.count])

    def _open(self, number: int) -> tuple[int, np.ndarray]:
        """Open a file; return its descriptor and index, the offset and bytes of each chunk."""
        with self._lock:
            if number in self._files:
                return self._files[number]
            descriptor = os.open(self.file(number), os.O_RDONLY)
            try:
                content = bytearray(16 * self.per_file + 4)
                _preadv(descriptor, [content], 0)
                refuse_damage(content[:-4], bytes(content[-4:]))
            except BaseException:
                os.close(descriptor)
                raise
            index = np.frombuffer(content[:-4], dtype="<u8").reshape(-1, 2)
            if self.file_count <= OPEN_FILES:
                self._files[number] = descriptor, index
            return descriptor, index

    def _forget(self, number: int) -> None:
        """Make the next read open a file again."""
        with self._lock:
            if number in self._files:
                self._given_up.append(self._files.pop(number)[0])

    def faults(self) -> list[str]:
        """Check all chunks; return a sentence for each damaged time."""
        damaged = []
        for number in range(self.file_count):
            first = number * self.per_file
            places = range(min(self.per_file, self.shape[0] - first))
            damaged += [
                f"{self.times[first + n]}: {why}" for n, why in faults_of_file(self.file(number), self.per_file, places)
            ]
        return damaged


def _held(fields: np.ndarray, run: ChannelRun, limits: ChannelLimits) -> bool:
    """Return whether the channels of a run are within their limits."""
    channels = slice(run.target, run.target + run.count)
    return limits.hold(fields[channels], channels)


def _readers() -> int:
    """Return the number of threads that read at the same time, including the caller's."""
    return min(MOST_READERS, processors())


def faults_of_file(path: Path, per_file: int, held: Iterable[int]) -> list[tuple[int, str]]:
    """Return (place, what is wrong) for each damaged chunk of a file."""
    damaged = []
    try:
        with open(path, "rb") as file:
            content = file.read(16 * per_file + 4)
            refuse_damage(content[:-4], content[-4:])
            index = np.frombuffer(content[:-4], dtype="<u8").reshape(-1, 2)
            for place in held:
                try:
                    offset, size = _place(index[place])
                    file.seek(offset)
                    content = file.read(size)
                    refuse_damage(content[:-4], content[-4:])
                except OSError as error:
                    damaged.append((place, str(error)))
    except OSError as error:
        return [(place, str(error)) for place in held]
    return damaged


def _numbers(group: Any, name: str) -> np.ndarray:
    return np.asarray(group[name][...])


def _place(entry: np.ndarray) -> tuple[int, int]:
    """Return offset and bytes of a chunk from the index of its file."""
    if entry[0] == ABSENT:
        raise OSError("this time was never written")
    return int(entry[0]), int(entry[1])


def _preadv(descriptor: int, parts: list[Any], offset: int) -> None:
    """Fill `parts` one after the other from `offset` on; OSError if the file is too short."""
    wanted = sum(memoryview(buffer).nbytes for buffer in parts)
    got = os.preadv(descriptor, parts, offset)
    if got == wanted:
        return
    if not got:
        raise OSError(f"the file ends {wanted} bytes early")
    views = [memoryview(buffer).cast("B") for buffer in parts]  # a read may stop half-way, as after 2 GB
    while got and views:
        if got >= len(views[0]):
            got, offset = got - len(views[0]), offset + len(views[0])
            views.pop(0)
            continue
        views[0], offset, got = views[0][got:], offset + got, 0
    _preadv(descriptor, views, offset)
