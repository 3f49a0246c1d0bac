"""Write files and folders atomically: under their name there is always all of the content, old or new, never a part.

Content is first written to a neighbouring path, `.<name>.<unique>.partial`, which is then renamed. A folder that may be
completed by a later process is `.<name>.partial`, so that this process finds it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr


@contextmanager
def atomic_file(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, which becomes `path` when the block ends and is removed if it raises.

    durable: flush the file to the disk before it is renamed, so that a power failure leaves the old or the new content.
    """
    unfinished = _temporary(path)
    try:
        yield unfinished
        if durable:
            flush_to_disk(unfinished)
        os.replace(unfinished, path)
    finally:  # also after renaming: where both names are links to the same file, that does nothing
        unfinished.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, resumable: bool = False) -> Iterator[Path]:
    """Yield the path of a folder to make, which becomes `path` when the block ends.

    Only one process at a time may make it. What a process left there is removed, before the block and if it raises;
    resumable: it stays, and the block has to decide whether it can be continued.
    """
    unfinished = unfinished_folder(path)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    if not resumable:
        shutil.rmtree(unfinished, ignore_errors=True)
    try:
        yield unfinished
        os.replace(unfinished, path)
    except BaseException:
        if not resumable:
            shutil.rmtree(unfinished, ignore_errors=True)
        raise


def unfinished_folder(path: Path) -> Path:
    """Return the folder in which `atomic_folder` has `path` made."""
    return path.with_name(f".{path.name}.partial")


def flush_to_disk(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes left anywhere below `folder`, where no other process writes."""
    for path in folder.rglob(".*.partial"):
        path.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | memoryview, *, durable: bool = False) -> None:
    """Write `content` to `path` atomically. durable: flush it to the disk, too."""
    try:
        with atomic_file(path, durable=durable) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise OSError(
            f"Could not write {path} ({error.strerror or error}); make room and give the same command again: what is "
            "finished is kept."
        ) from error


def write_netcdf(
    path: Path, dataset: xr.Dataset, groups: Mapping[str, xr.Dataset] | None = None, *, deflate: bool = False
) -> None:
    """Write a Dataset that fits in memory to a NetCDF file atomically, and further ones to its groups, by name.

    deflate: compress the data variables.
    """

    def encoding(dataset: xr.Dataset) -> dict[Any, dict[str, Any]]:
        return {name: {"zlib": True, "complevel": 1} for name in dataset.data_vars} if deflate else {}

    try:
        with atomic_file(path) as unfinished:
            dataset.to_netcdf(unfinished, engine="netcdf4", encoding=encoding(dataset))
            for name, group in (groups or {}).items():
                group.to_netcdf(unfinished, engine="netcdf4", mode="a", group=name, encoding=encoding(group))
    except (OSError, RuntimeError) as error:
        raise OSError(f"Could not write {path} ({error}); make room and give the same command again.") from error


def sha256(path: Path) -> str:
    """Compute the checksum of a file, reading a piece at a time."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
