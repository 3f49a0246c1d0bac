"""Decode chunks of a local Zarr store straight into their place, several times as fast as zarr does.

xarray's lazy indexing takes care of order, direction and names. Arrays whose chunks are more than
bytes in one compression (shards, filters, other byte orders) are left to zarr.
"""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import xarray as xr
from numcodecs import blosc

from data_pipelines.derived.lazy_arrays import LazyArray, lazy_variable
from data_pipelines.files.fingerprints import CRC_BYTES, refuse_damage, refuse_lost_coordinates, sealed_root

BLOSC_BYTES = struct.Struct("<I")  # of the whole chunk, in its header


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
