"""Open anything as one canonical dataset: Zarr v2 or v3, local or in the cloud, NetCDF, GRIB; one file or many."""

from __future__ import annotations

import difflib
import glob
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.calendars import refuse_disorder
from data_pipelines.classic import expected_bytes
from data_pipelines.conventions import COORDINATES, canonical
from data_pipelines.derived import DERIVED
from data_pipelines.diagnostics import DIAGNOSTICS
from data_pipelines.intervals import duration, duration_text
from data_pipelines.naming import nearest
from data_pipelines.units import refuse_other_units

__all__ = ["canonical", "open_dataset", "shaped"]

GRIB_SUFFIXES = (".grib", ".grib1", ".grib2", ".grb", ".grb1", ".grb2")
ANONYMOUS: dict[str, dict[str, Any]] = {
    "gs": {"token": "anon"},
    "gcs": {"token": "anon"},
    "s3": {"anon": True},
    "az": {"anon": True},
    "abfs": {"anon": True},
}
JOINED_TIMES = 32
RULES = DERIVED | DIAGNOSTICS
DAMAGED = "it is damaged, incomplete or of another kind; fetch it again"


def open_dataset(
    path: str | Path | Sequence[str | Path],
    *,
    engine: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    rename: Mapping[str, str] | None = None,
    select: Mapping[str, Any] | None = None,
    keep: Sequence[str] = (),
    filter: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """The canonical dataset at `path`, metadata only until values are asked for.

    path: a file, a Zarr store, an address (gs://, s3://, memory://, ...), a pattern with *, or a list of these.
    engine: `zarr`, `netcdf` or `grib`; default by name. storage_options: for fsspec; default anonymous. rename, select,
    keep: see `canonical`. filter: GRIB keys to keep, such as {typeOfLevel: surface}.
    FileNotFoundError where there is nothing, ValueError where it makes no sense.
    """
    opened = open_files(path, engine=engine, storage_options=storage_options, filter=filter)
    parts = [canonical(dataset, rename, select=select, keep=keep) for dataset in opened]
    return _joined(parts, [dataset.attrs["origin"] for dataset in opened])


def open_files(
    path: str | Path | Sequence[str | Path],
    *,
    engine: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    filter: Mapping[str, Any] | None = None,
) -> list[xr.Dataset]:
    """The datasets at `path` as they are, times undecoded, each with its file in the attribute `origin`."""
    names = _names(path)
    found: list[xr.Dataset] = []
    for name in names:
        kind = engine or _kind(name)
        if kind not in _OPENERS:
            raise ValueError(f"engine is one of {', '.join(_OPENERS)}; got '{kind}'.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = _OPENERS[kind](name, storage_options, filter)
        found.extend(dataset.assign_attrs(origin=name) for dataset in opened)
    if len(found) > 1:  # joining must not read: arrays in chunks of some times wait until asked
        found = [ds.chunk({d: JOINED_TIMES for d in ds.dims if d in COORDINATES["time"]}) for ds in found]
    return found


def shaped(
    dataset: xr.Dataset,
    *,
    levels: Sequence[float] | None = None,
    fill: Mapping[str, float] | None = None,
    derive: Sequence[str] | None = None,
    timestep: str | None = None,
) -> xr.Dataset:
    """A canonical dataset with other levels, missing values replaced, and the step of time told.

    derive: variables to compute from others, before levels are chosen (`data_pipelines.derived`, `.diagnostics`).
    levels: those of the result, from the top down; one that the data lack is interpolated linearly in log(level)
    between its neighbours.
    fill: variable -> value in place of missing ones. timestep: such as 6h or 1M, kept as an attribute.
    """
    if fill:
        for name, value in fill.items():
            if name not in dataset.data_vars:
                raise ValueError(f"fill: no variable '{name}' in the data; {nearest(name, dataset.data_vars)}")
            dataset = dataset.assign({name: _lazy(dataset[name]).fillna(value)})
    for name in derive or ():
        if name not in RULES:
            raise ValueError(f"derive: no rule for '{name}'; {nearest(name, RULES)}")
        dataset = dataset.assign({name: RULES[name](dataset)})
    if levels is not None:
        dataset = _at_levels(dataset, np.unique([float(level) for level in levels]))
    if timestep is not None:
        dataset = dataset.assign_attrs(timestep=duration_text(duration(timestep)))
    return dataset


def _names(path: str | Path | Sequence[str | Path]) -> list[str]:
    """The files and stores that `path` stands for."""
    if not isinstance(path, str | Path):
        if not path:
            raise FileNotFoundError("Expected at least one path to data; got an empty list.")
        return [name for one in path for name in _names(one)]
    text = str(path)
    if "://" in text or "::" in text:
        return [text]
    text = str(Path(text).expanduser())
    if Path(text).exists():
        return [text]
    if glob.has_magic(text):
        found = sorted(glob.glob(text, recursive=True))
        if not found:
            raise FileNotFoundError(f"No file matches {text}.")
        return found
    folder = Path(text).parent
    beside = [p.name for p in sorted(folder.iterdir())] if folder.is_dir() else []
    close = difflib.get_close_matches(Path(text).name, beside, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else "" if folder.is_dir() else f"; nor is there a folder {folder}."
    raise FileNotFoundError(f"No data at {text}{hint or '.'}")


def _kind(name: str) -> str:
    if "://" in name or "::" in name or Path(name).is_dir() or name.rstrip("/").endswith(".zarr"):
        return "zarr"
    return "grib" if name.lower().endswith(GRIB_SUFFIXES) else "netcdf"


def _open_zarr(name: str, options: Mapping[str, Any] | None, _: Any) -> list[xr.Dataset]:
    if "://" not in name and "::" not in name and not _has_zarr(Path(name)):
        raise FileNotFoundError(f"{name} holds no Zarr store (no zarr.json, .zgroup or .zmetadata in it).")
    if options is None:
        options = ANONYMOUS.get(name.split("://")[0]) if "::" not in name else None
    try:
        return [xr.open_zarr(name, chunks=None, decode_times=False, storage_options=dict(options) if options else None)]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No Zarr store at {name} ({_brief(error)}).") from error
    except ImportError as error:
        raise ValueError(
            f"Reading {name} needs another package ({_brief(error)}): pip install 'emul[cloud]'."
        ) from error
    except Exception as error:
        raise ValueError(f"Cannot open {name} as a Zarr store ({_brief(error)}); {DAMAGED}.") from error


def _has_zarr(path: Path) -> bool:
    return any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def _open_netcdf(name: str, _: Any, __: Any) -> list[xr.Dataset]:
    try:
        expected, size = expected_bytes(name), Path(name).stat().st_size
        opened = xr.open_dataset(name, engine="netcdf4", chunks=None, decode_times=False)
    except Exception as error:
        raise ValueError(f"Cannot open {name} as NetCDF ({_brief(error)}); {DAMAGED}.") from error
    if expected is not None and size < expected:
        raise ValueError(
            f"{name} has {size} of the {expected} bytes that its header announces: incomplete; fetch it again."
        )
    return [opened]


def _open_grib(name: str, _: Any, keys: Mapping[str, Any] | None) -> list[xr.Dataset]:
    try:
        import cfgrib
    except (ImportError, RuntimeError) as error:
        raise ValueError(f"Reading {name} needs cfgrib and eccodes: pip install 'emul[grib]'.") from error
    arguments = {"indexpath": "", "filter_by_keys": dict(keys or {}), "errors": "raise"}
    try:
        parts = cfgrib.open_datasets(name, backend_kwargs=arguments, decode_times=False, chunks=None)
    except Exception as error:
        raise ValueError(f"Cannot open {name} as GRIB ({_brief(error)}); {DAMAGED}.") from error
    if not any(part.data_vars for part in parts):
        raise ValueError(f"{name} holds no GRIB message{' that fits the filter' if keys else ''}.")
    return [part for part in parts if part.data_vars]


_OPENERS = {"zarr": _open_zarr, "netcdf": _open_netcdf, "grib": _open_grib}


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _joined(parts: list[xr.Dataset], names: list[str]) -> xr.Dataset:
    """Files that continue each other in time, or bring further variables, as one."""
    if len(parts) == 1:
        return parts[0]
    origin = names[0] if len(set(names)) == 1 else f"{names[0]} and {len(names) - 1} more"
    left_out = "\n".join(dict.fromkeys(p.attrs["left_out"] for p in parts if p.attrs["left_out"]))
    grids = {
        (p["latitude"].values.tobytes(), p["longitude"].values.tobytes()): n for p, n in zip(parts, names, strict=True)
    }
    if len(grids) > 1:
        first, second, *_ = grids.values()
        raise ValueError(f"{first} and {second} lie on different grids; open them apart or regrid one.")
    units: dict[Any, str] = {}
    for part, file in zip(parts, names, strict=True):
        for name, field in part.data_vars.items():
            refuse_other_units(str(name), units.setdefault(name, field.attrs["units"]), field.attrs["units"], file)
    try:
        joined = xr.combine_by_coords(
            parts,
            data_vars="minimal",
            coords="minimal",
            compat="override",
            join="exact",
            combine_attrs="drop_conflicts",
        )
    except ValueError as error:
        raise ValueError(
            f"Cannot join {origin} ({_brief(error)}): expected files that continue each other in time without overlap, "
            "or bring other variables at the same times and levels."
        ) from error
    assert isinstance(joined, xr.Dataset)
    for name in joined.data_vars:
        joined[name].attrs["units"] = units[name]  # lost where files spell them differently
    if "time" in joined.dims:
        refuse_disorder(joined["time"].values, origin)
    return joined.assign_attrs(origin=origin, left_out=left_out)


def _lazy(field: xr.DataArray) -> xr.DataArray:
    """The field in chunks of one time, so that arithmetic waits until values are asked for."""
    return field.chunk({"time": 1} if "time" in field.dims else {})


def _at_levels(dataset: xr.Dataset, wanted: np.ndarray) -> xr.Dataset:
    if "level" not in dataset.dims:
        raise ValueError("levels: the data have no dimension of levels to choose from.")
    there = dataset["level"].values.astype(np.float64)
    same = [int(np.abs(there - level).argmin()) for level in wanted]
    if np.allclose(there[same], wanted, rtol=1e-6):
        return dataset.isel(level=same).assign_coords(level=("level", wanted, dataset["level"].attrs))
    beyond = wanted[(wanted < there[0]) | (wanted > there[-1])]
    if beyond.size:
        raise ValueError(f"levels: {beyond[0]:g} lies beyond those of the data, {there[0]:g} to {there[-1]:g}.")
    upper = np.clip(np.searchsorted(there, wanted), 1, there.size - 1)
    log = np.log(np.maximum(there, 1e-6))
    share = (np.log(wanted) - log[upper - 1]) / (log[upper] - log[upper - 1])
    weight = xr.DataArray(share, dims="level", coords={"level": wanted})
    columns = [name for name in dataset.data_vars if "level" in dataset[name].dims]

    def between(field: xr.DataArray) -> xr.DataArray:
        field = _lazy(field)
        above, below = (field.isel(level=i).assign_coords(level=wanted) for i in (upper - 1, upper))
        return (above * (1.0 - weight) + below * weight).transpose(*field.dims).assign_attrs(field.attrs)

    fields = {name: between(dataset[name]) for name in columns}
    return dataset.drop_dims("level").assign(fields).assign_coords(level=("level", wanted, dataset["level"].attrs))
