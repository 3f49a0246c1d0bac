"""Decode chunks of a local Zarr store straight into their place, several times as fast as zarr does.

xarray's lazy indexing takes care of order, direction and names. Arrays whose chunks are more than
bytes in one compression (shards, filters, other byte orders) are left to zarr.

If a variable is an array of chunks of whole fields, only transposed, flipped or cut by that indexing, the effect of the
indexing is found once (`ChunkField`); reading then needs no array between the file and the batch.
"""

from __future__ import annotations

import itertools
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import xarray as xr
from numcodecs import blosc

from data_pipelines.conventions.lazy_arrays import LazyArray, lazy_source, lazy_variable
from data_pipelines.files.fingerprints import CRC_BYTES, refuse_damage, refuse_lost_coordinates, sealed_root
from data_pipelines.reading.threads import Scratch, ScratchMemory

BLOSC_BYTES = struct.Struct("<I")  # of the whole chunk, in its header
LEAST_ROOM = 2**20 + 4096  # bytes of a chunk as it is stored, that are read in one call


class ChunkArray(LazyArray):
    """Read the chunks in a folder as an array.

    codec: of numcodecs, None for plain bytes. prefix, separator: of their names. fill: what absent chunks hold; None:
    all chunks must be there. checked: whether each chunk ends with its crc32c, which is verified when it is first read.
    """

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        dtype: np.dtype,
        *,
        fill: Any,
        codec: Any,
        prefix: str,
        separator: str,
        checked: bool = False,
    ) -> None:
        self.folder, self.shape, self.chunks, self.dtype = folder, shape, chunks, dtype
        self.fill, self.codec, self.prefix, self.separator = fill, codec, prefix, separator
        self.checked = checked
        self._verified = np.zeros([-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)], dtype=bool)

    def read(self, key: tuple[int | slice | np.ndarray, ...]) -> np.ndarray:
        """Return the values at `key`, decoding each chunk once."""
        wanted = [np.atleast_1d(np.arange(size)[k]) for size, k in zip(self.shape, key, strict=True)]
        out = np.empty([index.size for index in wanted], dtype=self.dtype)
        for pieces in itertools.product(*map(self._along, wanted, self.chunks)):
            number, inside, place = zip(*pieces, strict=True)
            self._read(out, number, inside, place)
        return out[tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)]

    @staticmethod
    def _along(index: np.ndarray, size: int) -> list[tuple[int, Any, Any]]:
        """(chunk, where in the chunk, where in the result) along one axis."""
        number = index // size
        overlaps = []
        for chunk in np.unique(number).tolist():
            places = np.flatnonzero(number == chunk)
            overlaps.append((chunk, as_slice(index[places] - chunk * size), as_slice(places)))
        return overlaps

    def _read(self, out: np.ndarray, number: tuple[int, ...], inside: tuple[Any, ...], place: tuple[Any, ...]) -> None:
        try:
            with open(self.path(number), "rb") as file:
                content = file.read()
        except FileNotFoundError:
            _put(out, place, self.absent(number))
            return
        content = self.sound(content, number)
        sliced = all(isinstance(index, slice) for index in (*inside, *place))
        whole = sliced and inside == tuple(slice(0, size) for size in self.chunks)
        target = out[place] if whole else None
        if target is not None and target.flags.c_contiguous and self.codec is not None:
            self.decode(content, target)
            return
        decoded = content if self.codec is None else self.codec.decode(content)
        chunk = np.frombuffer(decoded, dtype=self.dtype).reshape(self.chunks)
        _put(out, place, _taken(chunk, inside))

    def absent(self, number: tuple[int, ...]) -> Any:
        """Return what an absent chunk holds; OSError if it should be there."""
        if self.fill is None:
            raise OSError(f"{self.path(number)} is missing, though the store was complete; it was removed")
        return self.fill

    def sound(self, content: Any, number: tuple[int, ...]) -> Any:
        """Return the bytes of a chunk without their checksum; OSError if that is wrong."""
        if not self.checked:
            return content
        bare = memoryview(content)[:-CRC_BYTES]  # a slice of bytes would copy them
        if not self._verified[number]:
            try:
                refuse_damage(bare, content[-CRC_BYTES:])
            except OSError as error:
                raise OSError(f"{self.path(number)}: {error}; it was changed or damaged") from error
            self._verified[number] = True
        return bare

    def path(self, number: tuple[int, ...]) -> str:
        """Return the path of a chunk."""
        return f"{self.folder}/{self.prefix}{self.separator.join(map(str, number))}"

    def decode(self, content: Any, out: np.ndarray) -> None:
        """Decode the bytes of a chunk into a contiguous array of its size; ValueError if they are fewer or more."""
        if isinstance(self.codec, numcodecs.Blosc):
            declared = BLOSC_BYTES.unpack_from(content, 12)[0] if len(content) >= 16 else 16
            if declared != len(content):  # Blosc itself would read on behind the end
                raise ValueError(f"the chunk has {len(content)} bytes, its header tells of {declared}")
            blosc.decompress(content, out)
            return
        if self.codec is not None:
            self.codec.decode(content, out)
            return
        out[...] = np.frombuffer(content, dtype=self.dtype).reshape(out.shape)


def as_slice(index: np.ndarray) -> np.ndarray | slice:
    """Return consecutive indices, ascending or descending, as a slice, which needs no copy."""
    first, last = int(index[0]), int(index[-1])
    if (np.diff(index) == 1).all():
        return slice(first, last + 1)
    return slice(first, last - 1 if last else None, -1) if (np.diff(index) == -1).all() else index


def _taken(chunk: np.ndarray, index: tuple[Any, ...]) -> np.ndarray:
    """Index each axis by itself."""
    chunk = chunk[tuple(selector if isinstance(selector, slice) else slice(None) for selector in index)]
    for axis, selector in enumerate(index):
        if not isinstance(selector, slice):
            chunk = chunk.take(selector, axis)
    return chunk


def _put(out: np.ndarray, place: tuple[Any, ...], values: Any) -> None:
    if all(isinstance(selector, slice) for selector in place):
        out[place] = values
        return
    along = (np.arange(size)[selector] for selector, size in zip(place, out.shape, strict=True))
    out[np.ix_(*along)] = values


def with_direct_reads(dataset: xr.Dataset, folder: Path) -> xr.Dataset:
    """Let the fields of a dataset, opened by `xr.open_zarr(folder, decode_cf=False)`, be read by ChunkArray.

    ValueError if the store is sealed (`data_pipelines.files.fingerprints`) and its metadata or coordinates are damaged.
    """
    import zarr

    root = sealed_root(folder)
    if root is not None:
        refuse_lost_coordinates(folder, root)
    group = zarr.open_group(folder, mode="r")
    variables: dict[Any, xr.Variable] = {}
    for name, variable in dataset.variables.items():
        array = group.get(str(name)) if variable.ndim > 1 else None
        chunk_array = (
            _chunk_array(array, folder / str(name), root is not None) if isinstance(array, zarr.Array) else None
        )
        if chunk_array is not None and chunk_array.shape == variable.shape:
            variables[name] = lazy_variable(variable.dims, chunk_array, _without_idle_fill(variable), variable.encoding)
    return dataset.assign({n: v for n, v in variables.items() if n in dataset.data_vars}).assign_coords(
        {n: v for n, v in variables.items() if n in dataset.coords}
    )


def _without_idle_fill(variable: xr.Variable) -> dict[Any, Any]:
    """Return the attributes without a fill value of NaN, which changes nothing."""
    return {
        name: value
        for name, value in variable.attrs.items()
        if not (name in ("_FillValue", "missing_value") and variable.dtype.kind == "f" and value != value)
    }


def _chunk_array(array: Any, folder: Path, complete: bool) -> ChunkArray | None:
    """Return a ChunkArray for a Zarr array; None if its chunks are more than bytes in one compression and a checksum.

    complete: whether every chunk was written.
    """
    checked = False
    metadata, dtype = array.metadata, np.dtype(array.dtype)
    if dtype.kind not in "iuf" or dtype.byteorder == ">":
        return None
    if metadata.zarr_format == 2:
        if metadata.filters or metadata.order != "C":
            return None
        codec, prefix, separator = metadata.compressor, "", metadata.dimension_separator
    else:
        names = [type(item).__name__ for item in metadata.codecs]
        checked = names[-1] == "Crc32cCodec"
        names = names[:-1] if checked else names
        if names[:1] != ["BytesCodec"] or len(names) > 2 or array.shards is not None:
            return None
        packers = {
            "BloscCodec": numcodecs.Blosc,
            "ZstdCodec": numcodecs.Zstd,
            "GzipCodec": numcodecs.GZip,
        }
        if names[1:] and names[1] not in packers:
            return None
        codec = packers[names[1]]() if names[1:] else None  # what decoding needs is in the bytes
        encoding = metadata.chunk_key_encoding
        if encoding.name != "default":
            return None
        separator = encoding.separator
        prefix = f"c{separator}"
    fill = None if complete else np.asarray(0 if array.fill_value is None else array.fill_value, dtype=dtype)
    layout = {"prefix": prefix, "separator": separator}
    return ChunkArray(folder, array.shape, array.chunks, dtype, fill=fill, codec=codec, checked=checked, **layout)


@dataclass(frozen=True)
class ChunkField:
    """Read a variable (time, ...) that is stored in chunks of whole fields.

    moments: position on the array's time axis for each time. axis: that axis. fixed: position on each axis that the
    variable lacks. order: the array's other axes, in the order of the variable's. indexers: the positions on each.
    """

    array: ChunkArray
    moments: np.ndarray
    axis: int
    fixed: dict[int, int]
    order: tuple[int, ...]
    indexers: tuple[slice | np.ndarray, ...]

    def parts(self, positions: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """List each chunk that holds some of the times at `positions`, with the indices of these."""
        numbers = self.moments[positions] // self.array.chunks[self.axis]
        order = np.argsort(numbers, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
        return [(int(numbers[group[0]]), group) for group in groups]

    def read(
        self,
        number: int,
        positions: np.ndarray,
        out: np.ndarray,
        rows: np.ndarray,
        memory: ScratchMemory,
        given_up: threading.Event,
        holds: Callable[[np.ndarray], bool] | None = None,
    ) -> bool:
        """Fill out[rows[n]], a field each, with the times at positions[n], all in chunk `number`.

        given_up: set when the caller has stopped waiting, so that nothing is written. holds: tests a
        field while it is in the processor's cache; True if all pass.
        """
        with memory.lent() as scratch:
            self._read(number, positions, out, rows, given_up, scratch)
            return holds is not None and all(holds(out[row]) for row in rows)

    def _read(
        self,
        number: int,
        positions: np.ndarray,
        out: np.ndarray,
        rows: np.ndarray,
        given_up: threading.Event,
        scratch: Scratch,
    ) -> None:
        array = self.array
        content = chunk_content(f"{self.path[0]}{number}{self.path[1]}", scratch)
        if given_up.is_set():
            return
        place = self.place(number)
        if content is None:
            out[rows] = array.absent(place)
            return
        content = array.sound(content, place)
        size = int(np.prod(array.chunks))
        chunk = scratch.array("decoded", size, array.dtype)[:size].reshape(array.chunks)
        array.decode(content, chunk)
        for row, moment in zip(rows, self.moments[positions] - number * array.chunks[self.axis], strict=True):
            np.copyto(out[row], self._field(chunk, int(moment)))

    def place(self, number: int) -> tuple[int, ...]:
        """Return the place of chunk `number` among the array's chunks."""
        place = [0] * len(self.array.shape)
        place[self.axis] = number
        return tuple(place)

    @cached_property
    def path(self) -> tuple[str, str]:
        """Path prefix and suffix around the chunk number."""
        numbers = [0] * len(self.array.shape)
        before, behind = numbers[: self.axis], numbers[self.axis + 1 :]
        separator = self.array.separator
        return (
            self.array.path(()) + "".join(f"{n}{separator}" for n in before),
            "".join(f"{separator}{n}" for n in behind),
        )

    @property
    def scratch_bytes(self) -> int:
        """Bytes that one reader needs besides the array that it reads into."""
        decoded = int(np.prod(self.array.chunks)) * self.array.dtype.itemsize
        stored = max(LEAST_ROOM, decoded + CRC_BYTES)
        return stored if self.is_as_stored else stored + decoded

    @cached_property
    def is_as_stored(self) -> bool:
        """True if a chunk holds one field exactly as it is wanted, in single precision."""
        sizes = [self.array.chunks[n] for n in self.order]
        whole = all(
            isinstance(index, slice) and index == slice(0, n) for index, n in zip(self.indexers, sizes, strict=True)
        )
        in_order = self.order == tuple(sorted(self.order)) and not self.fixed
        single = self.array.dtype == np.float32
        return single and whole and in_order and self.array.chunks[self.axis] == 1

    def _field(self, chunk: np.ndarray, moment: int) -> np.ndarray:
        """Return one time of a chunk in the variable's order of dimensions."""
        single = self.fixed | {self.axis: moment}
        field = chunk[tuple(single.get(n, slice(None)) for n in range(chunk.ndim))]
        remaining = sorted(self.order)
        field = field.transpose([remaining.index(n) for n in self.order])
        field = field[tuple(index if isinstance(index, slice) else slice(None) for index in self.indexers)]
        for axis, index in enumerate(self.indexers):
            if not isinstance(index, slice):
                field = field.take(index, axis)
        return field


def chunk_content(path: str, scratch: Scratch) -> np.ndarray | None:
    """Read the stored bytes of a chunk into scratch memory; None if there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        room = scratch.array("stored", LEAST_ROOM, np.dtype(np.uint8))
        size = os.preadv(descriptor, [room.data], 0)
        if size == room.size:  # there may be more
            size = os.fstat(descriptor).st_size
            room = scratch.array("stored", size, room.dtype)
            if os.preadv(descriptor, [room.data], 0) != size:
                raise OSError("the file could not be read to its end")
        return room[:size]
    finally:
        os.close(descriptor)


def chunk_field(variable: xr.Variable, levels: list[int] | slice | None) -> ChunkField | None:
    """Find out how to read a variable (time[, level], latitude, longitude) by chunks of whole fields.

    levels: positions on its second dimension; None if it has no levels. None if the variable is stored otherwise.
    """
    source = lazy_source(variable)
    array = source.array if source is not None else None
    if source is None or not isinstance(array, ChunkArray) or variable.dims[:1] != ("time",):
        return None
    positions, (axis, *order) = source.positions(), source.order
    chunks = zip(array.chunks, array.shape, strict=True)
    if any(chunk < size for n, (chunk, size) in enumerate(chunks) if n != axis):
        return None
    indices = [positions[n] for n in order]
    if levels is not None:
        indices[0] = indices[0][levels]
    fixed = {n: int(index[0]) for n, index in enumerate(positions) if n not in source.order}
    return ChunkField(
        array, positions[axis], axis, fixed, tuple(order), tuple(as_slice(selected) for selected in indices)
    )
