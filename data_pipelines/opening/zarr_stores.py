"""Open Zarr stores as they are written, in folders, in files and elsewhere; refuse some by their metadata alone.

Chunks of remote stores are cached on this machine, up to a size: files named by a hash of their address and of the
metadata of their array, written atomically, with their crc32c; damaged ones are fetched again. Beyond the size, the
least recently used ones are removed. Metadata is always fetched again, because stores in the cloud grow: chunks of an
array of another shape, the last of which may have been filled up, are others. Zarr's CacheStore counts only what its
own process has written, so that the limit would not hold from one run to the next; fsspec's filecache has no limit.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import json
import os
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, WrapperStore, ZipStore

from data_pipelines.files.archives import refusing_damage
from data_pipelines.files.atomic import atomic_file
from data_pipelines.files.fingerprints import CRC_BYTES, DIGEST, crc32c, refuse_damage, sealed_root
from data_pipelines.opening.file_kinds import is_references, unreadable, zarr_group_in_zip
from data_pipelines.opening.missing_values import without_idle_zeros

TEXT = {"vlen-utf8", "vlen-bytes"}  # object arrays that hold text only
OBJECTS = ("pickle", "json2", "msgpack", "vlen-array", "categorize", "dill")
METADATA = ("zarr.json", ".zmetadata", ".zarray", ".zattrs", ".zgroup")
FILLED = 0.9  # share of the limit that is left after removal


def dataset_as_stored(store: Any, settings: Mapping[str, Any]) -> xr.Dataset:
    """Open a Zarr store undecoded, with the fill values that its writer declared."""
    try:
        dataset = xr.open_zarr(store, chunks=None, decode_cf=False, **settings)
    except (TypeError, binascii.Error):  # a fill value as a plain number, where xarray writes it in base64
        group = xr.backends.ZarrStore.open_group(store, mode="r", use_zarr_fill_value_as_mask=True, **settings)
        undecoded: dict[str, Any] = {
            "mask_and_scale": False,
            "decode_times": False,
            "decode_coords": False,
            "concat_characters": False,
        }
        dataset = xr.backends.StoreBackendEntrypoint().open_dataset(group, **undecoded)
        arrays = zarr.open_group(store, mode="r", **_of_zarr(settings))
        fills = {name: arrays[str(name)].attrs.get("_FillValue") for name in dataset.variables}
        for name, variable in dataset.variables.items():
            variable.attrs = {k: v for k, v in variable.attrs.items() if k != "_FillValue"}
            if fills[name] is not None:
                variable.attrs["_FillValue"] = fills[name]
        return dataset
    if any(
        np.ndim(v.attrs.get("_FillValue")) == 0 and v.attrs.get("_FillValue") == 0 for v in dataset.variables.values()
    ):
        arrays = zarr.open_group(store, mode="r", **_of_zarr(settings))
        dataset = without_idle_zeros(dataset, {name: dict(arrays[str(name)].attrs) for name in dataset.variables})
    return dataset


def _of_zarr(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `xarray.open_zarr` as those of `zarr.open_group`."""
    return {"path": settings.get("group") or "", "storage_options": settings.get("storage_options")}


def store_in_file(name: str) -> tuple[Any, dict[str, Any]]:
    """Return the Zarr store in a ZIP archive or a list of references, and the settings with which it is opened."""
    if is_references(name):
        return "reference://", {"storage_options": {"fo": name}, "consolidated": False}
    group = zarr_group_in_zip(name)
    if group is None:
        raise ValueError(unreadable(name, "zarr"))
    return ZipStore(name, mode="r"), {"group": group, "consolidated": False} if group else {}


def cached_store(name: str, settings: dict[str, Any], gigabytes: float) -> CachedStore:
    """Return the remote store at an address, read through a cache of so many gigabytes."""
    store = FsspecStore.from_url(name, read_only=True, **settings)
    return CachedStore(store, name, cache_folder(), gigabytes * 1e9)


def refuse_objects(path: Path) -> None:
    """Raise ValueError, naming array and codec, where an array of a store on disk holds Python objects.

    path: a folder, a ZIP archive, or a list of references.
    """
    for array, text in _metadata(path):
        try:
            metadata = json.loads(text)
        except ValueError:
            continue  # reported when the store is opened
        names = list(_codecs(metadata)) if isinstance(metadata, dict) else []
        of_objects = [name for name in names if any(word in name.lower() for word in OBJECTS)]
        if isinstance(metadata, dict) and metadata.get("dtype") == "|O" and not TEXT & {*names}:
            of_objects = of_objects or ["no codec of text"]
        if of_objects:
            raise ValueError(
                f"{path}: the array '{array}' holds Python objects ({', '.join(of_objects)}), which would run code of "
                "the store when they are read; write it again as numbers or as text."
            )


def _metadata(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """Yield the name of each array of a store and its metadata as they are stored."""
    with suppress(OSError, ValueError), refusing_damage(path):
        if path.is_dir():
            for file in sorted([*path.glob("*/.zarray"), *path.glob("*/zarr.json")]):
                with suppress(OSError):
                    yield file.parent.name, file.read_bytes()
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.rpartition("/")[2] in (".zarray", "zarr.json"):
                        yield name.rpartition("/")[0], archive.read(name)
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
            for name, text in content.get("refs", content).items():
                if name.rpartition("/")[2] in (".zarray", "zarr.json"):
                    yield name.rpartition("/")[0], text if isinstance(text, str) else json.dumps(text)


def _codecs(metadata: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the codecs of an array, of Zarr format 2 or 3, those in others included."""
    queue: list[Any] = [metadata.get(key) for key in ("compressor", "filters", "codecs")]
    while queue:
        node = queue.pop(0)
        if isinstance(node, list):
            queue += node
        elif isinstance(node, dict):
            yield str(node.get("id") or node.get("name") or "")
            queue += [value for value in node.values() if isinstance(value, dict | list)]


DECISIVE = (  # attributes that values and their meaning depend on
    "units", "calendar", "scale_factor", "add_offset", "_FillValue", "missing_value", "valid_min", "valid_max",
    "valid_range", "_ARRAY_DIMENSIONS",
)  # fmt: skip


def refuse_stale_metadata(store: Path) -> None:
    """Raise ValueError where the consolidated metadata of a store on disk contradict those of one of its arrays.

    The metadata of a sealed store are compared with their checksum instead.
    """
    consolidated = _dict(_content(store / "zarr.json").get("consolidated_metadata"))
    if DIGEST in consolidated:
        sealed_root(store)  # its own checksum says more
        return
    nodes = _dict(consolidated.get("metadata"))
    nodes = {f"{name}/zarr.json": node for name, node in nodes.items() if _dict(node).get("node_type") == "array"}
    legacy = _dict(_content(store / ".zmetadata").get("metadata"))
    for file, node in {**nodes, **{file: node for file, node in legacy.items() if "/" in file}}.items():
        stored = _content(store / file)  # empty where it is absent or damaged, which is told when the store is opened
        for key, value, other in (
            _contradictions(_decisive(file, _dict(node)), _decisive(file, stored)) if stored else ()
        ):
            raise ValueError(
                f"{store}: the consolidated metadata say {key} {value} of '{file.rpartition('/')[0]}', its own say "
                f"{other}. If its own are right, write the others again: zarr.consolidate_metadata('{store}')."
            )


def _content(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return _dict(json.loads(file.read_bytes()))
    return {}


def _dict(node: Any) -> dict[str, Any]:
    return node if isinstance(node, dict) else {}


def _decisive(file: str, node: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of an array with no other attributes than those that decide, None where absent."""
    if file.endswith("/.zattrs"):
        return {key: node.get(key) for key in DECISIVE}
    return {**node, "attributes": {key: _dict(node.get("attributes")).get(key) for key in DECISIVE}}


def _contradictions(first: Any, second: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, value, other value) where both documents have a key and differ; what only one says is a default."""
    if isinstance(first, dict) and isinstance(second, dict):
        for name in sorted(first.keys() & second.keys()):
            yield from _contradictions(first[name], second[name], name)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        if any(any(_contradictions(*pair)) for pair in zip(first, second, strict=True)):
            yield key, first, second
    elif first != second and json.dumps(first) != json.dumps(second) and (first or second or 0 in (first, second)):
        yield key, first, second


def cache_folder() -> Path:
    """Return the folder for chunks of remote stores: $XDG_CACHE_HOME/emul/remote or ~/.cache/emul/remote."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "emul" / "remote"


class CachedStore(WrapperStore[Store]):
    """Read the store at `address` through a cache of whole chunks in `folder`.

    limit: upper bound on the bytes in the folder, of all stores together. metadata: digests of the metadata that was
    read, by key.
    """

    def __init__(
        self, store: Store, address: str, folder: Path, limit: float, metadata: dict[str, str] | None = None
    ) -> None:
        super().__init__(store)
        self.address, self.folder, self.limit = address, Path(folder), float(limit)
        self.metadata = {} if metadata is None else metadata
        self._lock = threading.Lock()
        self._size: float | None = None

    def _with_store(self, store: Store) -> CachedStore:
        return CachedStore(store, self.address, self.folder, self.limit, self.metadata)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CachedStore) and self._store == other._store and self.folder == other.folder

    def __getstate__(self) -> dict[str, Any]:
        names = ("address", "folder", "limit", "metadata")
        return {"store": self._store, **{name: getattr(self, name) for name in names}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _path(self, key: str) -> Path:
        owners = [f"{place}{name}" for place in ("", f"{key.partition('/')[0]}/") for name in METADATA]
        metadata = " ".join(self.metadata.get(name, "") for name in owners)
        name = hashlib.sha256(f"{self.address}/{key} {metadata}".encode()).hexdigest()
        return self.folder / name[:2] / name

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the bytes of a key, from the cache if it has them; requests for part of a chunk go to the store."""
        if key.rpartition("/")[2] in METADATA:
            value = await self._store.get(key, prototype, byte_range)
            if value is not None and byte_range is None:
                self.metadata[key] = hashlib.sha256(value.to_bytes()).hexdigest()
            return value
        if byte_range is not None:
            return await self._store.get(key, prototype, byte_range)
        path = self._path(key)
        content = await asyncio.to_thread(_read, path)
        if content is not None:
            return prototype.buffer.from_bytes(content)
        value = await self._store.get(key, prototype)
        if value is not None:
            await asyncio.to_thread(self._keep, path, value.to_bytes())
        return value

    def _keep(self, path: Path, content: bytes) -> None:
        """Write a chunk to the cache; on a full disk it is left out."""
        if len(content) > FILLED * self.limit:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as unfinished:
                unfinished.write_bytes(content + crc32c(content))
        except OSError:
            return
        with self._lock:
            if self._size is not None:
                self._size += len(content) + CRC_BYTES
            if self._size is None or self._size > self.limit:
                self._size = _trimmed(self.folder, self.limit)


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
        refuse_damage(content[:-CRC_BYTES], content[-CRC_BYTES:])
        os.utime(path)
    except OSError:
        return None
    return content[:-CRC_BYTES]


def _trimmed(folder: Path, limit: float) -> float:
    """Remove the least recently used files if they exceed `limit`; return the bytes that remain."""
    files = []
    for path in folder.glob("*/*"):
        try:
            status = path.stat()
        except OSError:  # another process was faster
            continue
        files.append((status.st_mtime_ns, status.st_size, path))
    size = float(sum(length for _, length, _ in files))
    if size <= limit:
        return size
    for _, length, path in sorted(files):
        path.unlink(missing_ok=True)
        size -= length
        if size <= FILLED * limit:
            break
    return size
