"""NetCDF files that fit in memory, written atomically with a digest of their content, which is compared on reading."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends.locks import HDF5_LOCK, NETCDFC_LOCK  # the library is not safe for threads

from data_pipelines.files.atomic import atomic_file, could_not_write
from data_pipelines.files.seals import AGAIN, DIGEST


def write_netcdf(
    path: Path, dataset: xr.Dataset, groups: Mapping[str, xr.Dataset] | None = None, *, deflate: bool = False
) -> None:
    """Write a Dataset that fits in memory to a NetCDF file atomically, and further ones to its groups, by name.

    deflate: compress the data variables.
    """

    def encoding(dataset: xr.Dataset) -> dict[Any, dict[str, Any]]:
        return {name: {"zlib": True, "complevel": 1} for name in dataset.data_vars} if deflate else {}

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as unfinished:
            dataset.to_netcdf(unfinished, engine="netcdf4", encoding=encoding(dataset))
            for name, group in (groups or {}).items():
                group.to_netcdf(unfinished, engine="netcdf4", mode="a", group=name, encoding=encoding(group))
            _seal(unfinished)
    except (OSError, RuntimeError) as error:
        size = dataset.nbytes + sum(group.nbytes for group in (groups or {}).values())
        raise could_not_write(path, error, size) from error


def read_netcdf(path: str | Path, group: str | None = None) -> xr.Dataset:
    """Read a Dataset into memory, times decoded; OSError if it differs from its digest or has no such group."""
    refuse_damaged_netcdf(path)
    with xr.open_dataset(path, engine="netcdf4", group=group, decode_timedelta=True) as stored:
        return stored.load()


def read_groups(path: str | Path) -> dict[str, xr.Dataset]:
    """Read the root, as `/`, and all groups of a file into memory; errors as of `read_netcdf`."""
    refuse_damaged_netcdf(path)
    stored = xr.open_groups(path, engine="netcdf4", decode_timedelta=True)
    try:
        return {name: group.load() for name, group in stored.items()}
    finally:
        for group in stored.values():
            group.close()


def refuse_damaged_netcdf(path: str | Path) -> None:
    """Raise OSError if a file differs from the digest in it; files without one are not checked."""
    import netCDF4

    try:
        with NETCDFC_LOCK, HDF5_LOCK, netCDF4.Dataset(path) as file:
            stored = file.__dict__.get(DIGEST)
            found = stored if stored is None else _digest(file)
    except (OSError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise OSError(f"{path} cannot be read as NetCDF ({error}); {AGAIN}.") from error
    if stored != found:
        raise OSError(f"{path} differs from its checksum; {AGAIN}.")


def is_sealed_netcdf(path: str | Path) -> bool:
    """Return whether a file has a digest of its content."""
    import netCDF4

    with NETCDFC_LOCK, HDF5_LOCK, netCDF4.Dataset(path) as file:
        return DIGEST in file.ncattrs()


def _seal(path: Path) -> None:
    import netCDF4

    with NETCDFC_LOCK, HDF5_LOCK, netCDF4.Dataset(path, "a") as file:
        digest = _digest(file)
        file.setncattr(DIGEST, digest)


def _digest(file: Any) -> str:
    """Return the sha256 of names, dimensions, attributes and values of all groups, as they are stored."""
    total = hashlib.sha256()

    def add(group: Any) -> None:
        total.update(repr([group.path, [(name, len(dim)) for name, dim in group.dimensions.items()]]).encode())
        total.update(_attributes(group))
        for name, variable in group.variables.items():
            variable.set_auto_maskandscale(False)
            variable.set_auto_chartostring(False)
            total.update(repr([name, variable.dimensions]).encode() + _attributes(variable))
            values = np.asarray(variable[...])
            text = values.dtype.hasobject or values.dtype.kind in "US"
            total.update(repr(values.tolist()).encode() if text else np.ascontiguousarray(values).tobytes())
        for below in group.groups.values():
            add(below)

    add(file)
    return total.hexdigest()


def _attributes(node: Any) -> bytes:
    """Return the attributes of a group or variable as bytes, without the digest."""
    told = {name: np.asarray(value).tolist() for name, value in node.__dict__.items() if name != DIGEST}
    return repr(sorted(told.items())).encode()
