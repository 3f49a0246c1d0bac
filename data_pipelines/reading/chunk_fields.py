"""Read fields of a local Zarr store, each chunk decoded straight into the batch, whatever its order of dimensions.

If a variable is an array of chunks of whole fields, only transposed, flipped or cut by xarray's lazy indexing, the
effect of the indexing is found once; reading then needs no array between the file and the batch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from data_pipelines.derived.lazy_arrays import lazy_source
from data_pipelines.files.fingerprints import CRC_BYTES
from data_pipelines.reading.plausibility import ChannelLimits
from data_pipelines.reading.threads import Scratch, ScratchMemory
from data_pipelines.reading.zarr_chunks import ChunkArray, as_slice

LEAST_ROOM = 2**20 + 4096  # bytes of a chunk as it is stored, that are read in one call


@dataclass(frozen=True)
class ChunkField:
    """Read a variable (time, ...) that is stored in chunks of whole fields.

    moments: position on the array's time axis for each time. axis: that axis. fixed: position on each axis that the
    variable lacks. order: the array's other axes, in the order of the variable's. chosen: the positions on each.
    """

    array: ChunkArray
    moments: np.ndarray
    axis: int
    fixed: dict[int, int]
    order: tuple[int, ...]
    chosen: tuple[slice | np.ndarray, ...]

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
            isinstance(index, slice) and index == slice(0, n) for index, n in zip(self.chosen, sizes, strict=True)
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
        field = field[tuple(index if isinstance(index, slice) else slice(None) for index in self.chosen)]
        for axis, index in enumerate(self.chosen):
            if not isinstance(index, slice):
                field = field.take(index, axis)
        return field


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
    axes = source.axes(variable.shape)
    if axes is None:
        return None
    axis = next((n for n, (to, _) in enumerate(axes) if to == 0), None)
    whole = all(
        chunk >= size for n, (chunk, size) in enumerate(zip(array.chunks, array.shape, strict=True)) if n != axis
    )
    if axis is None or not whole:
        return None
    order = sorted((n for n, (to, _) in enumerate(axes) if to), key=lambda n: axes[n][0] or 0)
    indices = [axes[n][1] for n in order]
    if levels is not None:
        indices[0] = indices[0][levels]
    fixed = {n: int(index[0]) for n, (to, index) in enumerate(axes) if to is None}
    return ChunkField(
        array, axes[axis][1], axis, fixed, tuple(order), tuple(as_slice(selected) for selected in indices)
    )
