"""One form for every dataset: dimensions (time, level, latitude, longitude), or (time, level, cell) of a set of points.

Rows run from north to south, longitudes eastward in [0, 360), levels ascending, pressures in hPa; variables have their
WeatherBench 2 names (Rasp et al. 2024, arXiv 2308.15560).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import horizontal, origin_of
from data_pipelines.conventions.calendars import datetimes, refuse_disorder, timedeltas
from data_pipelines.conventions.cells import with_cells
from data_pipelines.conventions.dialects import dialect, dialects, hybrid_levels, spoken
from data_pipelines.conventions.durations import duration, duration_text
from data_pipelines.conventions.lazy_arrays import transposed
from data_pipelines.conventions.suggestions import option, suggestion, takes_option
from data_pipelines.conventions.units import (
    degrees,
    in_units,
    is_pressure,
    known_units,
    levels_with_units,
    refuse_empty,
    refuse_nameless,
    refuse_radians,
    with_assumption,
)
from data_pipelines.conventions.valid_times import interval_starts, with_valid_times
from emulators.grid import TOLERANCE


def first_member(dataset: xr.Dataset) -> xr.Dataset:
    """Select the first member if the dataset has the dimension `member`; forecasts start from it."""
    return dataset.isel(member=0, drop=True) if "member" in dataset.dims else dataset


COORDINATES = {
    "latitude": ("latitude", "lat", "lats", "nav_lat", "XLAT", "grid_yt", "Y", "y"),
    "longitude": ("longitude", "lon", "lons", "long", "nav_lon", "XLONG", "grid_xt", "X", "x"),
    "level": (
        "level", "lev", "levels", "plev", "pressure", "pressure_level", "isobaricInhPa", "isobaricInPa", "air_pressure",
        "isobaric", "model_level", "hybrid", "sigma", "pfull",
    ),
    "time": ("time", "valid_time", "date", "datetime", "Time", "T"),
}  # fmt: skip


STANDARD_NAMES = {
    "latitude": ("latitude",),
    "longitude": ("longitude",),
    "level": ("air_pressure", "atmosphere_sigma_coordinate", "atmosphere_hybrid_sigma_pressure_coordinate"),
    "time": ("time",),
}


MEMBERS = (
    "member", "number", "realization", "realisation", "ensemble", "ensemble_member", "ens_member", "member_id",
    "members", "ens", "mem", "sample", "perturbation", "perturbation_number", "M",
)  # fmt: skip


LEAD = "prediction_timedelta"
LEAD_TIMES = (LEAD, "lead_time")
DATELESS = ("month", "season", "day", "year", "record")

POINTS = ("cell", "ncells", "ncol", "values", "node", "point", "gridpoint", "face", "column")

BOUNDS = {"bnds", "bound", "bounds", "bnd", "nv", "nbnd", "vertices"}


def canonical(
    dataset: xr.Dataset,
    rename: Mapping[str, str] | None = None,
    *,
    names: str | None = None,
    select: Mapping[str, Any] | None = None,
    keep: Sequence[str] = (),
) -> xr.Dataset:
    """Convert a dataset to the canonical form, lazily.

    rename: names in the data -> names to use, for variables and dimensions; goes before the tables.
    names: the table of names of `data_pipelines.conventions.dialects` that goes before the common one.
    select: dimension -> label (position where it has no labels) to keep of a dimension there is no place for.
    keep: further dimensions that stay, after time. Variables without a place are listed in the attribute `left_out`.
    """
    origin = origin_of(dataset)
    dataset = _renamed(dataset, rename or {}, origin)
    half_levels = hybrid_levels(dataset)
    dataset = spoken(dataset, names)
    dataset, later = _selected(dataset, select or {})
    dataset = dataset if LEAD in keep else with_valid_times(dataset, origin)
    dataset = _with_coordinate_names(with_cells(dataset, origin), origin)
    dataset, unknown = _selected(dataset, later)
    if unknown:
        name = next(iter(unknown))
        raise ValueError(f"select: no dimension '{name}' in {origin}; {suggestion(name, dataset.dims)}")
    dataset = _with_times(dataset, LEAD in keep, origin)
    dataset = _with_levels(dataset, origin)
    dataset = _with_fields_only(dataset, keep, origin)
    dataset = dataset if "cell" in dataset.dims else _on_grid(dataset, origin)
    dataset = dataset.rename(_long_names(dataset))
    for field in dataset.data_vars.values():
        field.attrs["units"] = str(field.attrs.get("units", "")).replace("**", "")
    for name, units in dialect(names).units.items():
        if name in dataset.data_vars:
            dataset = dataset.assign({name: in_units(name, dataset[name], units)})
    if half_levels and half_levels[0].size == dataset.sizes.get("level", 0) + 1:
        a, b = (row.tolist() for row in half_levels)
        dataset = dataset.assign_attrs(vertical_kind="hybrid", vertical_a=a, vertical_b=b)
    return transposed(dataset, "time", *keep, "level", *horizontal(dataset))


def _renamed(dataset: xr.Dataset, rename: Mapping[str, str], origin: str) -> xr.Dataset:
    names = [*dataset.variables, *dataset.dims]
    for name in rename:
        if name not in names:
            raise ValueError(f"rename: no '{name}' in {origin}; {suggestion(name, names)}")
    for name in rename.values():
        if name in names and name not in rename:
            raise ValueError(f"rename: '{name}' exists already in {origin}; give that one another name too.")
    return dataset.rename(dict(rename))


def _selected(dataset: xr.Dataset, select: Mapping[str, Any]) -> tuple[xr.Dataset, dict[str, Any]]:
    """Select from the dataset; also return the selections whose dimension it does not have (yet)."""
    later = {}
    for name, label in select.items():
        if name not in dataset.dims:
            later[name] = label
            continue
        label = label if isinstance(label, int | float | str) else list(label)
        try:
            if name in LEAD_TIMES and isinstance(label, str):
                dataset = dataset.isel({name: _place_of_lead(dataset[name], label)})
                continue
            dataset = dataset.sel({name: label}) if name in dataset.indexes else dataset.isel({name: label})
        except (KeyError, IndexError) as error:
            values = dataset[name].values if name in dataset.indexes else np.arange(dataset.sizes[name])
            if name in LEAD_TIMES:
                values = timedeltas(dataset[name], origin_of(dataset))
            raise ValueError(f"select: '{name}' has no {label}; it has {_some(values)}.") from error
    return dataset, later


def _place_of_lead(leads: xr.DataArray, text: str) -> int:
    """Return the position of a lead time such as 1d; KeyError where there is none."""
    places = np.flatnonzero(timedeltas(leads, str(leads.name)).astype("timedelta64[s]") == duration(text))
    if not places.size:
        raise KeyError(text)
    return int(places[0])


def _some(values: np.ndarray) -> str:
    texts = [_label(v) for v in np.asarray(values).reshape(-1)]
    return ", ".join(texts if len(texts) <= 12 else [*texts[:6], "...", texts[-1]])


def _label(value: Any) -> str:
    """Return a label as `select` takes it."""
    return duration_text(value) if isinstance(value, np.timedelta64) else str(value)


def _with_coordinate_names(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Latitude, longitude, level and time under these names, each the index of its own dimension."""
    for kind in ("level", "time") if "cell" in dataset.dims else COORDINATES:
        source = _find(dataset, kind)
        if source is None:
            continue
        coordinate = dataset[source]
        if kind in ("latitude", "longitude"):
            coordinate = _one_dimensional(coordinate, kind, origin)
        if coordinate.ndim > 1:
            raise ValueError(f"The {kind} '{source}' in {origin} has dimensions {coordinate.dims}; expected one.")
        attributes, assumed = levels_with_units(coordinate, origin) if kind == "level" else (coordinate.attrs, "")
        if coordinate.ndim == 0 and kind == "level" and not is_pressure(coordinate.assign_attrs(attributes)):
            continue
        dataset = dataset.drop_vars(source)
        if coordinate.ndim and coordinate.dims[0] != kind:
            dataset = dataset.drop_vars([n for n in (kind, coordinate.dims[0]) if n in dataset.variables])
            dataset = dataset.rename({coordinate.dims[0]: kind})
        values = xr.Variable((kind,) if coordinate.ndim else (), coordinate.values, attributes)
        dataset = with_assumption(dataset.assign_coords({kind: values}), assumed)
    refuse_nameless(dataset, COORDINATES, origin)
    refuse_empty(dataset, origin)
    return dataset


def is_member(dim: object) -> bool:
    """Return whether a dimension is named as one of the members of an ensemble, in whatever case."""
    return str(dim) in MEMBERS or str(dim).lower() in MEMBERS


def _find(dataset: xr.Dataset, kind: str) -> str | None:
    """Find the coordinate of this kind by its name, else by its standard name."""
    numbered = [n for n in COORDINATES[kind] if n in dataset.variables and _may_be_coordinate(dataset, n)]
    described = [
        str(n) for n in dataset.variables if dataset[n].attrs.get("standard_name") in STANDARD_NAMES[kind]
        and _may_be_coordinate(dataset, n)
    ]  # fmt: skip
    for name in [*numbered, *described]:
        return name
    return None


def _may_be_coordinate(dataset: xr.Dataset, name: Any) -> bool:
    """Return whether a variable is a coordinate, or the only variable along its dimension."""
    variable = dataset[name]
    return name in dataset.coords or name in dataset.dims or variable.ndim == 1


def _one_dimensional(coordinate: xr.DataArray, kind: str, origin: str) -> xr.DataArray:
    """Latitudes or longitudes in degrees along one dimension; ValueError for other kinds of grid."""
    coordinate = degrees(coordinate, kind, origin)
    if coordinate.ndim == 2:
        axis = 1 if kind == "latitude" else 0
        along = coordinate.isel({coordinate.dims[axis]: 0})
        if np.allclose(coordinate.values, np.expand_dims(along.values, axis), atol=1e-4):
            return along
        raise ValueError(
            f"'{coordinate.name}' in {origin} varies along {coordinate.dims}, and no {kind} of the other kind does: "
            "expected latitudes and longitudes of the same points."
        )
    if coordinate.ndim and not np.isfinite(coordinate.values.astype(float)).all():
        raise ValueError(f"The {kind} '{coordinate.name}' in {origin} has missing values.")
    return coordinate


def _with_times(dataset: xr.Dataset, initial: bool, origin: str) -> xr.Dataset:
    """Times as datetime64 along `time`; a time that stands alone becomes a dimension of one. initial: of a forecast."""
    for name in LEAD_TIMES:
        if name in dataset.variables and dataset[name].ndim < 2:
            leads = timedeltas(dataset[name], origin).astype("timedelta64[ns]")
            dataset = dataset.assign_coords({name: (dataset[name].dims, leads)})
    if "time" not in dataset.variables:
        if "time" in dataset.dims:
            raise ValueError(
                f"The dimension 'time' in {origin} has no coordinate, so its dates are unknown; say them: "
                f"{option('dates')}={{time: 1979-01-01/6h}}, the first and the step."
            )
        return dataset
    times = datetimes(dataset["time"], origin)
    if times.ndim == 0:
        dataset = dataset.drop_vars("time").expand_dims("time").assign_coords(time=("time", [0], dataset["time"].attrs))
        times = times[None]
    times, assumed = (times, "") if initial else interval_starts(dataset, times, origin)
    refuse_disorder(times, origin)
    return with_assumption(dataset.assign_coords(time=("time", times, {"standard_name": "time"})), assumed)


def _with_levels(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Levels in ascending order, pressures in hPa, heights and depths in m."""
    if "level" not in dataset.variables:
        return dataset
    level = dataset["level"]
    units = str(level.attrs.get("units", ""))
    if not np.issubdtype(level.dtype, np.number):
        raise ValueError(f"The levels in {origin} are not numbers: {_some(level.values)}.")
    if level.ndim == 0:
        declared = [n for n in dataset.data_vars if "level" in str(dataset[n].encoding.get("coordinates", ""))]
        names = [n for n in declared or dataset.data_vars if {*horizontal(dataset)} <= set(dataset[n].dims)]
        dataset = dataset.drop_vars("level").assign(
            {n: dataset[n].drop_vars("level").expand_dims("level") for n in names}
        )
    parsed = known_units(units)
    usual, size = {"pressure": ("hPa", 100.0), "length": ("m", 1.0)}.get(parsed[0] if parsed else "", (units, 0.0))
    factor = parsed[1] / size if parsed and size else 1.0
    values = np.atleast_1d(level.values).astype(str).astype(np.float64)  # 0.1 in single precision is 0.1
    values = np.round(values * factor, 6) if factor != 1.0 else values
    attributes = {**level.attrs, "units": usual}
    dataset = dataset.assign_coords(level=("level", values, attributes))
    order = np.argsort(values, kind="stable")
    if (np.diff(values[order]) <= 0).any():
        raise ValueError(f"Levels in {origin} are repeated: {_some(values)}.")
    return dataset if (order == np.arange(order.size)).all() else dataset.isel(level=_as_slice(order))


def _as_slice(order: np.ndarray) -> np.ndarray | slice:
    """Return a reversed order as a slice, which is read faster than a list."""
    return slice(None, None, -1) if (order == np.arange(order.size)[::-1]).all() else order


def _with_fields_only(dataset: xr.Dataset, keep: Sequence[str], origin: str) -> xr.Dataset:
    """Variables on latitude and longitude that have a place in the one form; others are left out, with a reason."""
    grid = horizontal(dataset)
    places = {"time", "level", *grid, *keep}
    fields, left_out = {}, {}
    for name, field in dataset.data_vars.items():
        if set(map(str, field.dims)) & BOUNDS or not (np.issubdtype(field.dtype, np.number) or field.dtype == bool):
            continue
        if not {*grid} <= set(field.dims):
            continue
        field = field.squeeze([d for d in field.dims if d not in places and field.sizes[d] == 1], drop=True)
        further = [d for d in field.dims if d not in places]
        if further:
            sizes = ", ".join(f"'{d}' of {field.sizes[d]} ({_some(dataset[d].values)})" for d in further)
            choice = ", ".join(f"{d}: {_label(dataset[d].values.reshape(-1)[0])}" for d in further)
            members = f"; or take all as members: {option('members')}={further[0]}"
            several = (
                members
                if len(further) == 1 and ((is_member(further[0]) and takes_option("members")) or LEAD in keep)
                else ""
            )
            if further[0] in LEAD_TIMES and LEAD not in keep:
                several = f"; or score them as forecasts: `emul eval forecast={origin} truth=...`"
            if further[0] in DATELESS and "time" not in dataset.dims:
                several += f"; or say what dates these are: {option('dates')}={{{further[0]}: 1979-01/1M}}"
            left_out[str(name)] = (
                f"it has the further dimension {sizes}; choose one, such as {option('select')}={{{choice}}}{several}."
            )
            continue
        fields[name] = field.drop_vars([c for c in field.coords if c not in places])
    if not fields:
        _refuse_no_fields(dataset, left_out, origin)
    beside = {"latitude", "longitude", "cell_area_weight"} if "cell" in grid else set()
    coords = {c: dataset[c] for c in dataset.coords if c in places | beside and dataset[c].ndim == 1}
    attributes = {**dataset.attrs, "left_out": "\n".join(f"{n}: {why}" for n, why in left_out.items())}
    return xr.Dataset(fields, coords, attributes)


def _refuse_no_fields(dataset: xr.Dataset, left_out: Mapping[str, str], origin: str) -> None:
    if left_out:
        name, why = next(iter(left_out.items()))
        raise ValueError(f"'{name}' in {origin} cannot be used: {why}")
    points = [d for d in dataset.dims if d in POINTS]
    if points:
        raise ValueError(
            f"{origin} lies on a set of points (dimension '{points[0]}') and does not tell where these are; add their "
            "latitudes and longitudes along it."
        )
    shapes = ", ".join(f"{n}{tuple(dataset[n].dims)}" for n in list(dataset.data_vars)[:8])
    raise ValueError(f"{origin} has no field on latitude and longitude; it has {shapes or 'no variables'}.")


def _on_grid(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Rows from north to south; columns eastward, from 0 on a full circle, else from the western edge."""
    latitude = dataset["latitude"].values.astype(np.float64)
    if np.abs(latitude).max() > 90.001:
        raise ValueError(
            f"Latitudes in {origin} run from {latitude.min():g} to {latitude.max():g}; expected -90 to 90 degrees."
        )
    refuse_radians(latitude, dataset["longitude"].values.astype(np.float64), origin)
    rows = np.argsort(-latitude, kind="stable")
    columns, longitude = _eastward(dataset["longitude"].values.astype(np.float64))
    for kind, values, order in (("latitude", latitude, rows), ("longitude", longitude, np.arange(longitude.size))):
        repeated = np.flatnonzero(np.abs(np.diff(values[order])) < 1e-6)
        if repeated.size:
            raise ValueError(f"The {kind} {values[order][repeated[0]]:g} is repeated in {origin}.")
    if not (rows == np.arange(rows.size)).all():
        dataset = dataset.isel(latitude=_as_slice(rows))
    if not np.array_equal(columns, np.arange(dataset.sizes["longitude"])):
        dataset = dataset.isel(longitude=columns)
    return dataset.assign_coords(
        latitude=("latitude", latitude[rows], {"units": "degrees_north", "standard_name": "latitude"}),
        longitude=("longitude", longitude, {"units": "degrees_east", "standard_name": "longitude"}),
    )


def _eastward(longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eastward order of columns and their longitudes in [0, 360), without a repeated last column."""
    steps = np.abs(np.diff(longitude))
    near = min(TOLERANCE, 0.1 * float(np.median(steps))) if steps.size else TOLERANCE
    east = np.mod(longitude, 360.0)
    east[east > 360.0 - near] = 0.0
    order = np.argsort(east, kind="stable")
    if order.size > 2 and abs(abs(longitude[-1] - longitude[0]) - 360.0) < near:
        order = order[order != longitude.size - 1]
    sorted_east = east[order]
    gaps = np.diff(np.append(sorted_east, sorted_east[0] + 360.0))
    widest = int(gaps.argmax())
    if order.size > 2 and gaps[widest] > 1.5 * np.median(gaps):
        order = np.roll(order, -(widest + 1))
    return order, east[order]


def _long_names(dataset: xr.Dataset) -> dict[str, str]:
    """Short names and the WeatherBench 2 names they stand for, where the latter are not taken."""
    names: dict[str, str] = {}
    common = dialects()["common"].names
    for name in map(str, dataset.data_vars):
        long = _height_or_potential(dataset[name]) if name == "z" else common.get(name)
        if long and long not in dataset.variables and long not in names.values():
            names[name] = long
    return names


def _height_or_potential(field: xr.DataArray) -> str | None:
    """Decide whether a field called z is geopotential or its height; neither if the file does not say."""
    units = str(field.attrs.get("units", "")).lower().replace("**", "").replace("^", "").replace("/", " ")
    described = str(field.attrs.get("standard_name", ""))
    if units in ("m", "gpm", "dam", "metre", "meters", "metres") or described == "geopotential_height":
        return "geopotential_height"
    if units in ("m2 s-2", "m2 s2", "j kg-1", "j kg") or described == "geopotential":
        return "geopotential"
    return None
