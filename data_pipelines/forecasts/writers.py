"""Write forecasts to disk, one lead at a time, in constant memory.

A ZarrWriter lays out the whole Zarr v3 store first (metadata, coordinates, consolidated metadata), so that it can be
read at any moment; what is not yet written reads as NaN. Chunks hold a batch of initial times, a group of members, a
block of leads and all levels and points; each is written beside its place and renamed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.files.atomic import (
    atomic_file,
    atomic_folder,
    could_not_write,
    remove_unfinished,
    sha256,
    write_file,
)
from data_pipelines.files.fingerprints import crc32c, every_chunk, write_sealed
from data_pipelines.files.netcdf import opened_netcdf
from data_pipelines.forecasts.layout import Layout


class ZarrWriter:
    """Write forecast.zarr.

    compression: zstandard level, 0 for none. chunk_megabytes: where a chunk of one lead is smaller, several leads
    share a chunk (and appear together), up to this size.
    """

    name = "forecast.zarr"

    def __init__(self, *, compression: int = 0, chunk_megabytes: float = 1.0) -> None:
        if not 0 <= compression <= 22 or chunk_megabytes <= 0:
            raise ValueError(
                "A writer needs compression within 0..22 and chunk_megabytes above 0; got "
                f"compression={compression}, chunk_megabytes={chunk_megabytes}."
            )
        self.compression, self.chunk_megabytes = compression, chunk_megabytes

    def leads_per_chunk(self, largest: int) -> int:
        """The number of leads in a chunk. largest: size of the largest variable at one lead of one batch."""
        return max(1, int(self.chunk_megabytes * 2**20 / (4 * largest)))

    def plain(self) -> dict[str, Any]:
        """The settings that the bytes on disk depend on."""
        return {"format": "zarr", "compression": self.compression, "chunk_megabytes": self.chunk_megabytes}

    def refuse_unsuited(self, layout: Layout) -> None:
        """Raise ValueError where this form cannot hold such a forecast; a store holds all."""

    def open(self, folder: Path, layout: Layout) -> None:
        """Lay out folder/forecast.zarr, or take up the one that is there."""
        self.refuse_unsuited(layout)
        self.folder, self.layout, self.store = Path(folder), layout, Path(folder) / "forecast.zarr"
        self._rank = len(layout.world.grid.shape)
        self._encode = _encoder(self.compression)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: Future | None = None
        self._start(-1)
        if not self.store.exists():
            _create(self.store, layout, self.compression)

    @property
    def _leads(self) -> int:
        """The number of leads in a chunk."""
        return min(self.layout.block, self.layout.steps)

    def _start(self, piece: int) -> None:
        self._piece, self._filled = piece, 0
        self._buffer: np.ndarray | None = None
        self._sums: dict[str, str] = {}

    def write(self, piece: int, lead: int, values: np.ndarray) -> None:
        """Add the forecast of one piece at lead number `lead` (from 0): float32 ([member,] init, channel, *grid).

        Leads of a piece come in order; the last lead of a piece is followed by `finish`.
        """
        layout = self.layout
        if piece != self._piece:
            self._start(piece)
        if self._buffer is None:
            rows, members = layout.pieces[piece]
            shape = (rows.stop - rows.start, *([len(members)] if layout.members else []), self._leads)
            self._buffer = np.full((*shape, *values.shape[-1 - self._rank :]), np.nan, dtype="<f4")
        by_lead = np.moveaxis(self._buffer, self._buffer.ndim - 2 - self._rank, 0)
        by_lead[self._filled] = np.moveaxis(values, 0, 1) if layout.members else values
        self._filled += 1
        if self._filled == self._leads or lead == layout.steps - 1:
            self._wait()
            block = lead // self._leads
            self._pending = self._pool.submit(self._write_block, piece, block, self._buffer)
            self._buffer, self._filled = None, 0

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._sums |= pending.result()

    def _write_block(self, piece: int, block: int, values: np.ndarray) -> dict[str, str]:
        """Write one chunk a variable; the checksums by path relative to the folder."""
        layout, sums = self.layout, {}
        for variable in layout.world.predicted:
            chunk = np.full(layout.chunks(variable), np.nan, dtype="<f4")
            axis = values.ndim - 1 - self._rank
            channels = np.moveaxis(values, axis, 0)[layout.world.predicted.slice(variable.name)]
            place = chunk[tuple(slice(0, size) for size in channels.shape[1:axis])]
            if not variable.levels:
                place[...] = channels[0]
            else:
                np.moveaxis(place, axis, 0)[layout.level_positions(variable)] = channels
            content = self._encode(chunk)
            tail = crc32c(content)
            batch, group = divmod(piece, len(layout.groups))
            position = [str(batch), *([str(group)] if layout.members else []), str(block)]
            name = ".".join(["c", *position, *["0"] * (chunk.ndim - len(position))])
            write_file(self.store / variable.name / name, content, tail)
            total = hashlib.sha256(content)
            total.update(tail)
            sums[f"forecast.zarr/{variable.name}/{name}"] = total.hexdigest()
        return sums

    def finish(self, piece: int) -> dict[str, str]:
        """Wait until the piece is on disk; the sha256 of its files by path relative to the folder."""
        self._wait()
        sums = self._sums
        self._start(-1)
        return sums

    def close(self) -> None:
        """End the writing thread."""
        self._pool.shutdown(wait=True)

    def export(self, checksums: dict[str, str], progress: Callable[[float], None] | None = None) -> dict[str, str]:
        """Convert the finished store to the final file and return its checksums; here the store is the final file."""
        remove_unfinished(self.store)
        for path in self.store.rglob("*"):
            name = f"{self.name}/{path.relative_to(self.store)}"
            if name not in checksums and path.is_file():
                checksums[name] = sha256(path)
        return checksums

    def mark(self, verdict: str) -> None:
        """Write the verdict into the attributes of the finished store, so that a copy without its manifest has it."""
        path = self.store / "zarr.json"
        metadata = json.loads(path.read_bytes())
        metadata["attributes"]["verdict"] = verdict
        write_sealed(self.store, metadata)

    def merge(self, piece: int, segments: object) -> None:
        """Do nothing: the chunks of each piece are kept as they are. See `StatisticsWriter`."""

    def tidy(self) -> None:
        """Remove what is no longer needed once the manifest is written."""


class NetCDFWriter(ZarrWriter):
    """Write forecast.zarr while the forecast runs, then copy it to forecast.nc and remove it.

    compression: zlib level, 0 for none. chunk_megabytes: as in ZarrWriter.
    """

    name = "forecast.nc"

    def __init__(self, *, compression: int = 0, chunk_megabytes: float = 1.0) -> None:
        if not 0 <= compression <= 9:
            raise ValueError(f"NetCDF needs compression within 0..9; got {compression}.")
        super().__init__(compression=0, chunk_megabytes=chunk_megabytes)
        self.level = compression

    def plain(self) -> dict[str, Any]:
        return {"format": "netcdf", "compression": self.level, "chunk_megabytes": self.chunk_megabytes}

    def export(self, checksums: dict[str, str], progress: Callable[[float], None] | None = None) -> dict[str, str]:
        """Copy the finished store into forecast.nc, a batch of initial times and a block of leads at a time."""
        path = self.folder / self.name
        try:
            with atomic_file(path) as unfinished:
                _copy_to_netcdf(self.store, unfinished, self.layout, self.level, progress or (lambda share: None))
        except (OSError, RuntimeError) as error:
            need = sum(file.stat().st_size for file in self.store.rglob("*") if file.is_file())
            raise could_not_write(path, error, need, f"the forecast itself is whole in {self.store}") from error
        return {self.name: sha256(path)}

    def tidy(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)


def _encoder(compression: int) -> Callable[[np.ndarray], Any]:
    """A function that encodes a chunk as the bytes of its file."""
    if not compression:
        return lambda chunk: np.ascontiguousarray(chunk).data.cast("B")
    from numcodecs.zstd import Zstd

    return Zstd(level=compression).encode


def _create(store: Path, layout: Layout, compression: int) -> None:
    """Metadata and coordinates of the whole store, made in a neighbouring folder and renamed."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    try:
        with atomic_folder(store) as partial, every_chunk():
            root = zarr.create_group(
                store=partial, zarr_format=3, attributes={**layout.attrs_of_file(), "verdict": "unfinished"}
            )
            for name, (dims, values, attrs) in layout.coordinates().items():
                root.create_array(
                    name,
                    data=np.ascontiguousarray(values),
                    chunks=values.shape,
                    compressors=[Crc32cCodec()],
                    dimension_names=dims,
                    attributes=attrs,
                )
            for variable in layout.world.predicted:
                root.create_array(
                    variable.name,
                    shape=layout.shape(variable),
                    chunks=layout.chunks(variable),
                    dtype="<f4",
                    compressors=[*([ZstdCodec(level=compression)] if compression else []), Crc32cCodec()],
                    fill_value=np.nan,
                    chunk_key_encoding={"name": "default", "separator": "."},
                    dimension_names=layout.dims(variable),
                    attributes=layout.attrs(variable),
                )
            _consolidate(partial)
    except OSError as error:
        raise could_not_write(store, error) from error


def _consolidate(store: Path) -> None:
    import warnings

    import zarr

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(store)


def _copy_to_netcdf(store: Path, path: Path, layout: Layout, level: int, progress: Callable[[float], None]) -> None:
    import zarr

    root = zarr.open_group(store, mode="r")
    variables = list(layout.world.predicted)
    with opened_netcdf(path, "w") as file:
        file.setncatts(dict(root.attrs))
        for name, (dims, values, attrs) in layout.coordinates().items():
            for dim, size in zip(dims, values.shape, strict=True):
                if dim not in file.dimensions:
                    file.createDimension(dim, size)
            file.createVariable(name, values.dtype, dims, fletcher32=bool(dims)).setncatts(attrs)
            file[name][:] = values
        for variable in variables:
            target = file.createVariable(  # type: ignore[call-overload]
                variable.name,
                "f4",
                layout.dims(variable),
                fill_value=np.float32(np.nan),
                chunksizes=layout.chunks(variable),
                fletcher32=True,
                compression="zlib" if level else None,
                complevel=level or 4,
            )
            target.setncatts(layout.attrs(variable))
        for number, (rows, members) in enumerate(layout.pieces):
            ensemble = [slice(members.start, members.stop)] if layout.members else []
            for variable in variables:
                source, target = root[variable.name], file[variable.name]
                for first in range(0, layout.steps, layout.block):
                    leads = slice(first, min(first + layout.block, layout.steps))
                    region = (rows, *ensemble, leads)
                    target[region] = source[region]  # type: ignore[index]
            progress((number + 1) / len(layout.pieces))
