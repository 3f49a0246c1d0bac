"""Write files atomically: a file is there whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr


def write_file(path: Path, content: bytes | memoryview, durable: bool = False) -> None:
    """Write to a neighbouring file, then rename: `path` holds all of `content` or what it held before."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(
            f"Could not write {path} ({error.strerror or error}). The forecast stays marked as unfinished; make room "
            "and give the same command again: batches that are finished are kept."
        ) from error


def write_netcdf(
    path: Path, dataset: xr.Dataset, groups: Mapping[str, xr.Dataset] | None = None, *, deflate: bool = False
) -> None:
    """Write a Dataset that fits in memory, and others as groups by name, to a neighbouring NetCDF file, then rename.

    deflate: data variables are compressed.
    """
    partial = path.with_name(f".{path.name}.partial")

    def encoding(dataset: xr.Dataset) -> dict[Any, dict[str, Any]]:
        return {name: {"zlib": True, "complevel": 1} for name in dataset.data_vars} if deflate else {}

    try:
        dataset.to_netcdf(partial, engine="netcdf4", encoding=encoding(dataset))
        for name, group in (groups or {}).items():
            group.to_netcdf(partial, engine="netcdf4", mode="a", group=name, encoding=encoding(group))
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"Could not write {path} ({error}); make room and give the same command again.") from error


def sha256(path: Path) -> str:
    """The checksum of a file, read a piece at a time."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
