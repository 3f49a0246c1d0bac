"""Cache chunks of remote Zarr stores on this machine, up to a size.

Chunks are files named by a hash of their address and of the metadata of their array, written atomically, with their
crc32c; damaged ones are fetched again. Beyond the size, the least recently used ones are removed. Metadata is always
fetched again, because stores in the cloud grow: chunks of an array of another shape, the last of which may have been
filled up, are others. Zarr's CacheStore counts only what its own process has written, so that the limit would not hold
from one run to the next; fsspec's filecache has no limit.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from data_pipelines.files.atomic import atomic_file
from data_pipelines.files.fingerprints import CRC_BYTES, crc32c, refuse_damage

METADATA = ("zarr.json", ".zmetadata", ".zarray", ".zattrs", ".zgroup")
FILLED = 0.9  # share of the limit that is left after removal


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
