"""Open data as one canonical dataset: Zarr v2 or v3, local or remote, NetCDF, GRIB; one file or many."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.conventions.calendars import refuse_disorder, with_dates
from data_pipelines.conventions.canonical import COORDINATES, canonical
from data_pipelines.conventions.suggestions import masked_address, option, suggestion
from data_pipelines.conventions.units import are_undecided_units, refuse_other_units
from data_pipelines.conventions.valid_times import ENDS, dated_by_starts
from data_pipelines.files.netcdf import opened_netcdf
from data_pipelines.opening.file_kinds import (
    DAMAGED,
    expected_bytes,
    fields_by_name,
    file_kind,
    file_names,
    has_zarr,
    is_anemoi,
    refuse_other_kind,
    unreadable,
)
from data_pipelines.opening.missing_values import decoded
from data_pipelines.reading.packed_store import PackedStore, is_packed_store
from data_pipelines.reading.packed_view import packed_dataset
from data_pipelines.reading.zarr_chunks import with_direct_reads

__all__ = ["canonical", "open_dataset"]
ANONYMOUS: dict[str, dict[str, Any]] = {
    "gs": {"token": "anon"},
    "gcs": {"token": "anon"},
    "s3": {"anon": True},
    "az": {"anon": True},
    "abfs": {"anon": True},
}
JOINED_TIMES = 32
MEMBER = "member"


def open_dataset(
    path: str | Path | Sequence[str | Path],
    *,
    engine: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    names: str | None = None,
    rename: Mapping[str, str] | None = None,
    select: Mapping[str, Any] | None = None,
    members: str | None = None,
    dates: Mapping[str, str | Sequence[str]] | None = None,
    filter: Mapping[str, Any] | None = None,
    cache_gigabytes: float | None = None,
) -> xr.Dataset:
    """Open the data at `path` as one canonical dataset, lazily.

    path: a file, a Zarr store, an address (gs://, s3://, memory://, ...), a pattern with *, or a list of these.
    engine: `zarr`, `netcdf` or `grib`; default by name. storage_options: for fsspec; default anonymous. names, rename,
    select: see `canonical`. members: a dimension that stays, as `member`, after time. dates: see `dated`. filter: GRIB
    keys to keep, such as {typeOfLevel: surface}.
    cache_gigabytes: of what is fetched from a Zarr store elsewhere, so much is kept on this machine; None: nothing.
    FileNotFoundError where there is nothing, ValueError where it makes no sense.
    """
    datasets = open_files(
        path, engine=engine, storage_options=storage_options, filter=filter, cache_gigabytes=cache_gigabytes
    )
    datasets = _with_members(datasets, members) if members else datasets
    datasets = _with_dates(datasets, dates) if dates else datasets
    keep = (MEMBER,) if members else ()
    parts = [
        canonical(dataset, _where_it_is(rename, datasets, dataset), names=names,
                  select=_where_it_is(select, datasets, dataset), keep=keep)
        for dataset in datasets
    ]  # fmt: skip
    return joined(parts, [dataset.attrs["origin"] for dataset in datasets])


def _where_it_is(settings: Mapping[str, Any] | None, datasets: list[xr.Dataset], dataset: xr.Dataset) -> dict[str, Any]:
    """Drop the settings of variables and dimensions that only other files have."""
    anywhere = {str(name) for other in datasets for name in (*other.variables, *other.dims)}
    present = {*dataset.variables, *dataset.dims}
    return {n: value for n, value in (settings or {}).items() if n in present or n not in anywhere or n in COORDINATES}


def _with_members(datasets: list[xr.Dataset], members: str) -> list[xr.Dataset]:
    """Rename the dimension `members` to `member`; ValueError if no dataset has it."""
    dims = list(dict.fromkeys(dim for dataset in datasets for dim in dataset.dims))
    if members not in dims:
        raise ValueError(
            f"{option('members')}: expected a dimension of {datasets[0].attrs['origin']}; got '{members}'; "
            f"{suggestion(members, dims)}"
        )
    return [dataset.rename({members: MEMBER} if members in dataset.dims else {}) for dataset in datasets]


def _with_dates(datasets: list[xr.Dataset], dates: Mapping[str, str | Sequence[str]]) -> list[xr.Dataset]:
    """Give dimensions their dates, or those of the starts of intervals; ValueError if no dataset has the dimension."""
    dims = list(dict.fromkeys(str(dim) for dataset in datasets for dim in dataset.dims))
    for dim in dates:
        if dim not in dims:
            raise ValueError(
                f"{option('dates')}: no dimension '{dim}' in {datasets[0].attrs['origin']}; {suggestion(dim, dims)}"
            )
    for dim in [dim for dim, spec in dates.items() if spec == ENDS]:
        datasets = dated_by_starts(datasets, dim)
    dates = {dim: spec for dim, spec in dates.items() if spec != ENDS}
    return [with_dates(dataset, dates, dataset.attrs["origin"]) for dataset in datasets]


def open_files(
    path: str | Path | Sequence[str | Path],
    *,
    engine: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    filter: Mapping[str, Any] | None = None,
    cache_gigabytes: float | None = None,
) -> list[xr.Dataset]:
    """Open the datasets at `path` as they are, times undecoded, each with its file in the attribute `origin`."""
    datasets: list[xr.Dataset] = []
    for name in file_names(path, engine):
        refuse_other_kind(name, engine)
        kind = file_kind(name, engine)
        if kind not in _OPENERS:
            raise ValueError(f"engine is one of {', '.join(_OPENERS)}; got '{kind}'.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            contents = _OPENERS[kind](name, OpeningOptions(storage_options, filter, cache_gigabytes))
        datasets.extend(dataset.assign_attrs(origin=masked_address(name)) for dataset in contents)
    if len(datasets) > 1:  # joining must not read: arrays in chunks of some times wait until asked
        datasets = [ds.chunk({d: JOINED_TIMES for d in ds.dims if d in COORDINATES["time"]}) for ds in datasets]
    return datasets


class OpeningOptions(NamedTuple):
    """Hold options for opening files; each opener uses those it understands."""

    storage_options: Mapping[str, Any] | None
    filter: Mapping[str, Any] | None
    cache_gigabytes: float | None


def _open_zarr(name: str, ways: OpeningOptions) -> list[xr.Dataset]:
    options, elsewhere = ways.storage_options, "://" in name or "::" in name
    packed = Path(name).is_file()
    if not elsewhere and not packed and not has_zarr(Path(name)):
        raise FileNotFoundError(f"{name} holds no Zarr store (no zarr.json, .zgroup or .zmetadata in it).")
    if not elsewhere and is_packed_store(Path(name)):
        return [packed_dataset(PackedStore(name))]
    from data_pipelines.opening import zarr_stores  # loads zarr, which other files do not need

    if not elsewhere:
        zarr_stores.refuse_objects(Path(name))
        zarr_stores.refuse_stale_metadata(Path(name))
    if options is None:
        options = ANONYMOUS.get(name.split("://")[0]) if "::" not in name else None
    settings: dict[str, Any] = {"storage_options": dict(options) if options else None}
    try:
        store: Any = name
        if elsewhere and ways.cache_gigabytes:
            store, settings = zarr_stores.cached_store(name, settings, ways.cache_gigabytes), {}
        if packed:
            store, settings = zarr_stores.store_in_file(name)
        dataset = zarr_stores.dataset_as_stored(store, settings)
        dataset = dataset if elsewhere or packed else with_direct_reads(dataset, Path(name))
        folded = is_anemoi(dataset)  # its zeros are values, though Zarr fills with them
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No Zarr store at {name} ({_brief(error)}).") from error
    except ImportError as error:
        raise ValueError(
            f"Reading {name} needs another package ({_brief(error)}): pip install 'emul[cloud]'."
        ) from error
    except Exception as error:
        raise ValueError(f"Cannot open {name} as a Zarr store ({_brief(error)}); {DAMAGED}.") from error
    if elsewhere and not dataset.variables:
        raise FileNotFoundError(f"No Zarr store at {name} (nothing is listed there).")
    if folded:
        return [fields_by_name(xr.decode_cf(dataset, decode_times=False, mask_and_scale=False))]
    return [decoded(dataset, masked_address(name))]


def _open_netcdf(name: str, _: OpeningOptions) -> list[xr.Dataset]:
    try:
        expected, size = expected_bytes(name), Path(name).stat().st_size
        settings: dict[str, Any] = {"chunks": None, "decode_cf": False, "drop_variables": _texts(name)}
        dataset = xr.open_dataset(name, engine="netcdf4", **settings)
    except Exception as error:
        raise ValueError(f"Cannot open {name} as NetCDF ({_brief(error)}); {unreadable(name, 'netcdf')}.") from error
    if expected is not None and size < expected:
        raise ValueError(
            f"{name} has {size} of the {expected} bytes that its header announces: incomplete; fetch it again."
        )
    return [decoded(dataset, name, _never_written(name, dataset))]


def _texts(name: str) -> list[str]:
    """Name the variables of text beside the data of a NetCDF file, such as expver of the Climate Data Store.

    They are not read: netCDF-C crashes where text was read from a file that is open twice, once one of them is closed.
    """
    with opened_netcdf(name) as file:
        return [
            key for key, variable in file.variables.items() if variable.dtype is str and key not in variable.dimensions
        ]


def _never_written(name: str, dataset: xr.Dataset) -> dict[Any, Any]:
    """Return what a NetCDF file holds where nothing was written, by variable; of those that do not say so."""
    import netCDF4

    usual = {key: netCDF4.default_fillvals[key] for key in ("i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")}
    fills = {}
    for key, variable in dataset.variables.items():
        fill = usual.get(variable.dtype.str[1:])
        if fill is None or "_FillValue" in variable.attrs:
            continue
        if variable.ndim > 1 or (variable.values == fill).any():
            fills[key] = fill
    integers = [key for key in fills if dataset[key].dtype.kind in "iu"]
    if integers:
        with opened_netcdf(name) as file:  # whole numbers are data where the file was not filled beforehand
            fills = {k: v for k, v in fills.items() if k not in integers or file[str(k)].get_fill_value() is not None}
    return fills


def _open_grib(name: str, ways: OpeningOptions) -> list[xr.Dataset]:
    try:
        import cfgrib
    except (ImportError, RuntimeError) as error:
        raise ValueError(f"Reading {name} needs cfgrib and eccodes: pip install 'emul[grib]'.") from error
    arguments = {"indexpath": "", "filter_by_keys": dict(ways.filter or {}), "errors": "raise"}
    try:
        datasets = cfgrib.open_datasets(name, backend_kwargs=arguments, decode_times=False, chunks=None)
    except Exception as error:
        raise ValueError(f"Cannot open {name} as GRIB ({_brief(error)}); {unreadable(name, 'grib')}.") from error
    if not any(dataset.data_vars for dataset in datasets):
        raise ValueError(f"{name} holds no GRIB message{' that fits the filter' if ways.filter else ''}.")
    return [dataset for dataset in datasets if dataset.data_vars]


_OPENERS = {"zarr": _open_zarr, "netcdf": _open_netcdf, "grib": _open_grib}


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _spans(parts: list[xr.Dataset], names: list[str]) -> str:
    """Say from when to when the first two datasets of other times run; empty where all have the same times."""
    spans: dict[tuple[Any, ...], str] = {}
    for part, name in zip(parts, names, strict=True):
        if "time" in part.dims:
            times = part["time"].values.astype("datetime64[m]")
            spans.setdefault((times[0], times[-1], times.size), name)
    phrases = [f"{name} has {count} times from {a} to {b}" for (a, b, count), name in spans.items()]
    return f", of which {' and '.join(phrases[:2])}" if len(phrases) > 1 else ""


def joined(parts: list[xr.Dataset], names: list[str]) -> xr.Dataset:
    """Join datasets that continue each other in time, or hold different variables."""
    if len(parts) == 1:
        return parts[0]
    origin = names[0] if len(set(names)) == 1 else f"{names[0]} and {len(names) - 1} more"
    left_out = "\n".join(dict.fromkeys(p.attrs["left_out"] for p in parts if p.attrs["left_out"]))
    grid = grid_of(parts[0])
    for part, file in zip(parts, names, strict=True):
        if not grid_of(part).same_as(grid):
            raise ValueError(f"{names[0]} and {file} lie on different grids; open them apart or regrid one.")
    axes = {name: parts[0][name] for name in ("latitude", "longitude")}  # exactly those: files differ in precision
    parts = [part.assign_coords(axes) for part in parts]
    units, assumed = _joined_units(parts, names)
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
            f"Cannot join {origin}{_spans(parts, names)} ({_brief(error)}): expected files that continue each other in "
            "time without overlap, or bring other variables at the same times and levels."
        ) from error
    assert isinstance(joined, xr.Dataset)
    for name in joined.data_vars:
        joined[name].attrs["units"] = units[name]  # lost where files spell them differently
    if "time" in joined.dims:
        refuse_disorder(joined["time"].values, origin)
    attributes = {"assumed_units": "\n".join(assumed)} if assumed else {}
    return joined.assign_attrs(origin=origin, left_out=left_out, **attributes)


def _joined_units(parts: Sequence[xr.Dataset], names: Sequence[str]) -> tuple[dict[Any, str], list[str]]:
    """Return the units of each variable, and what had to be assumed of them. ValueError where files are in others."""
    units: dict[Any, str] = {}
    assumed = [part.attrs["assumed_units"] for part in parts if part.attrs.get("assumed_units")]
    for part, file in zip(parts, names, strict=True):
        for name, field in part.data_vars.items():
            first, stated = units.setdefault(name, field.attrs["units"]), field.attrs["units"]
            refuse_other_units(str(name), first, stated, file)
            if are_undecided_units(first, stated):
                assumed.append(f"{name} is in '{first}' in one file and in '{stated}' in another, taken as the same.")
    return units, list(dict.fromkeys(assumed))
