"""Open forecasts in one form, whatever program wrote them.

A forecast has dims ([member,] time, prediction_timedelta[, level], latitude, longitude), `time` being the initial time,
and the coordinate `valid_time` (time, prediction_timedelta); a climatology has (hour, dayofyear[, level], latitude,
longitude). Both are layouts of WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import origin_of
from data_pipelines.conventions.calendars import datetimes, timedeltas
from data_pipelines.conventions.canonical import LEAD, canonical, is_member
from data_pipelines.conventions.durations import spacing
from data_pipelines.conventions.suggestions import option, suggestion
from data_pipelines.conventions.valid_times import INITS, LEADS, refuse_other_times
from data_pipelines.derived.shaping import shaped
from data_pipelines.opening.datasets import open_files
from data_pipelines.opening.forecast_axes import with_forecast_axes

CLOSE = np.timedelta64(60, "s")  # by which valid times may differ from initial time + lead time
UNEVEN, DRIFT = np.timedelta64(3 * 86400, "s"), 0.015  # the same of monthly leads, and of calendars, a second of lead
ASSUMED = "Lead times of the forecast have no units; read as {unit}. Say them: {key}={{prediction_timedelta: days}}."
UPPER_AIR = (
    "geopotential", "geopotential_height", "temperature", "u_component_of_wind", "v_component_of_wind", "wind_speed",
    "vertical_velocity", "specific_humidity", "relative_humidity", "vorticity", "divergence",
)  # fmt: skip


def open_forecast(
    path: str | Path | Sequence[str | Path],
    *,
    engine: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    names: str | None = None,
    rename: Mapping[str, str] | None = None,
    select: Mapping[str, Any] | None = None,
    members: str | None = None,
    units: Mapping[str, str] | None = None,
) -> xr.Dataset:
    """Open the forecast at `path`, lazily; arguments as those of `data_pipelines.opening.datasets.open_dataset`.

    path: also several files, one for each initial time, lead time, member or variable. units: of variables, as of
    `data_pipelines.derived.shaping.shaped`, and of lead times: {prediction_timedelta: days}. Lead times in whole
    numbers without units are taken as nanoseconds or hours by their size; the attribute `assumed` says so.
    """
    opened = open_files(path, engine=engine, storage_options=storage_options)
    _refuse_absent(opened, {"rename": rename, "select": select, "members": {members: ""} if members else None})
    parts = []
    for dataset in opened:
        dataset = dataset.rename({old: new for old, new in (rename or {}).items() if old in _names(dataset)})
        told = {dim: label for dim, label in (select or {}).items() if dim in _names(dataset)}
        several = len(opened) > 1
        parts.append(
            canonical_forecast(dataset, told, names=names, members=members, units=units, one_of_several=several)
        )
    found = parts[0] if len(parts) == 1 else _joined(parts)
    of_fields = {name: told for name, told in (units or {}).items() if name in found.data_vars}
    return shaped(found, units=of_fields)


def _names(dataset: xr.Dataset) -> set[Any]:
    return {*dataset.variables, *dataset.dims}


def _refuse_absent(opened: Sequence[xr.Dataset], options: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Raise ValueError for a name in an option that none of the files has."""
    there = [str(name) for name in dict.fromkeys(name for dataset in opened for name in _names(dataset))]
    renamed = list((options["rename"] or {}).values())
    for key, told in options.items():
        for name in told or ():
            if name not in there and (key == "rename" or name not in [*renamed, "member"]):
                raise ValueError(f"{option(key)}: no '{name}' in {origin_of(opened[0])}; {suggestion(name, there)}")


def _joined(parts: list[xr.Dataset]) -> xr.Dataset:
    """Join the files of a forecast along initial times, lead times and members, and by variable."""
    origins = [origin_of(part) for part in parts]
    bare = [part.drop_vars("valid_time") for part in parts]
    try:
        joined = xr.combine_by_coords(bare, join="exact", combine_attrs="drop_conflicts", data_vars="minimal")
    except ValueError as error:
        raise ValueError(
            f"Cannot join {origins[0]} and {len(parts) - 1} more ({error}); expected files of one forecast that bring "
            "other initial times, lead times, members or variables on one grid, each once."
        ) from error
    assert isinstance(joined, xr.Dataset)
    inits, leads = (joined[dim].values for dim in ("time", LEAD))
    valid = inits[:, None] + leads[None]
    for part in parts:
        rows, columns = (np.searchsorted(joined[dim].values, part[dim].values) for dim in ("time", LEAD))
        valid[np.ix_(rows, columns)] = part["valid_time"].values
    origin = f"{origins[0]} and {len(parts) - 1} more"
    return joined.assign_coords(valid_time=(("time", LEAD), valid)).assign_attrs(origin=origin)


def canonical_forecast(
    dataset: xr.Dataset,
    select: Mapping[str, Any] | None = None,
    *,
    names: str | None = None,
    members: str | None = None,
    units: Mapping[str, str] | None = None,
    one_of_several: bool = False,
) -> xr.Dataset:
    """The same forecast with the names, dimensions and units of `open_forecast`.

    select: label by dimension. members: the dimension of its members, found by its name if None. units: of lead times.
    one_of_several: a file of several, in which the number of a member may stand alone.
    """
    origin = origin_of(dataset, "the forecast")
    dataset = with_forecast_axes(dataset, origin)
    lead, init = _named(dataset, LEADS, "lead time", origin), _named(dataset, (*INITS, "time"), "initial time", origin)
    if init != "time" and "time" in dataset.variables:
        dataset = dataset.drop_vars("time")
    dataset = dataset.rename({lead: LEAD, init: "time"})
    dataset = _with_members(dataset, members, select or {}, one_of_several)
    for dim in ("time", LEAD):
        if dim not in dataset.dims:
            dataset = dataset.expand_dims(dim)
        elif dataset[dim].ndim != 1:
            raise ValueError(
                f"'{dim}' in {origin} varies along {dataset[dim].dims}; expected one dimension of its own."
            )
    told = {name: text for name, text in (units or {}).items() if name in (lead, LEAD)}
    dataset, assumed = _with_lead_units(dataset, next(iter(told.values()), None), origin)
    leads = timedeltas(dataset[LEAD], origin)
    dataset = dataset.assign_coords({LEAD: leads.astype("timedelta64[ns]")})
    order = np.argsort(leads)
    if (np.diff(leads[order]).astype(np.int64) == 0).any():
        raise ValueError(f"Lead times in {origin} are repeated: {leads.astype(str).tolist()}; keep each once.")
    valid = _valid_times(dataset, leads, origin)
    if (np.diff(order) < 0).any():
        dataset, valid = dataset.isel(prediction_timedelta=order), valid[:, order]
    keep = (LEAD, *(["member"] if "member" in dataset.dims else []))
    found = canonical(dataset.drop_vars("valid_time", errors="ignore"), names=names, select=select, keep=keep)
    found = with_levels(found).transpose("member", ..., missing_dims="ignore")
    if not any({"time", LEAD} <= set(found[name].dims) for name in found.data_vars):
        raise ValueError(f"No variable of {origin} varies with both initial time and lead time.")
    found = found.assign_coords(valid_time=(("time", LEAD), valid.astype("datetime64[ns]")))
    return found.assign_attrs(assumed=assumed)


def _with_members(dataset: xr.Dataset, told: str | None, select: Mapping[str, Any], alone: bool) -> xr.Dataset:
    """Name the dimension of the members `member`. alone: a member whose number stands alone becomes a dimension."""
    if told is not None and told in dataset.dims:
        return dataset.rename({told: "member"})
    dims = [name for name in dataset.dims if is_member(name) and name not in select][:1]
    if not dims and alone:
        scalars = [n for n in dataset.coords if is_member(n) and dataset[n].ndim == 0 and n not in select][:1]
        return dataset.rename(dict.fromkeys(scalars, "member")).expand_dims(["member"] if scalars else [])
    return dataset.rename({name: "member" for name in dims if name != "member"})


def _named(dataset: xr.Dataset, names: Sequence[str], what: str, origin: str) -> str:
    """Return the first of `names` that the dataset has, preferring dimensions."""
    there = [name for name in names if name in dataset.dims and name in dataset.variables]
    there += [name for name in names if name in dataset.variables and dataset[name].ndim == 0]
    if not there:
        raise ValueError(
            f"{origin} has no {what}: expected '{names[0]}', or {', '.join(names[1:])}; its dimensions are "
            f"{', '.join(map(str, dataset.dims))}. Name yours with {option('rename')}={{yours: {names[0]}}}."
        )
    return there[0]


def _with_lead_units(dataset: xr.Dataset, told: str | None, origin: str) -> tuple[xr.Dataset, str]:
    """Give lead times their units: those told, or else; also return what had to be assumed."""
    lead = dataset[LEAD]
    if told is not None:
        return dataset.assign_coords({LEAD: lead.assign_attrs(units=told)}), ""
    if np.issubdtype(lead.dtype, np.timedelta64) or lead.attrs.get("units"):
        return dataset, ""
    largest = np.abs(lead.values).max()
    if not np.issubdtype(lead.dtype, np.number) or (1e5 <= largest < 1e9):
        raise ValueError(
            f"The lead times in {origin} have no units ({lead.values.reshape(-1)[:4].tolist()}); say them: "
            f"{option('units')}={{{LEAD}: hours}}."
        )
    known = [unit for unit in ("hours", "days") if _fit(dataset, lead.assign_attrs(units=unit), origin)]
    unit = known[0] if len(known) == 1 else "hours" if largest < 1e5 else "nanoseconds"
    dataset = dataset.assign_coords({LEAD: lead.assign_attrs(units=unit)})
    return dataset, "" if len(known) == 1 else ASSUMED.format(unit=unit, key=option("units"))


def _fit(dataset: xr.Dataset, lead: xr.DataArray, origin: str) -> bool:
    """Return whether lead times in these units agree with valid times that the file itself has."""
    if not _has_valid_times(dataset):
        return False
    try:
        _valid_times(dataset, timedeltas(lead, origin), origin)
    except ValueError:
        return False
    return True


def _has_valid_times(dataset: xr.Dataset) -> bool:
    return "valid_time" in dataset.variables and set(dataset["valid_time"].dims) <= {"time", LEAD}


def _valid_times(dataset: xr.Dataset, leads: np.ndarray, origin: str) -> np.ndarray:
    """Return valid times, datetime64[s], shape (init, lead): initial time + lead time, as the file's own say it.

    Those of the file are taken where lead times are nominal: monthly, or in a calendar of other years. ValueError where
    they contradict.
    """
    inits = datetimes(dataset["time"], origin)
    valid = inits[:, None] + leads[None, :]
    if not _has_valid_times(dataset):
        return valid
    like = xr.DataArray(valid, dims=("time", LEAD))
    own = xr.DataArray(datetimes(dataset["valid_time"], origin), dims=dataset["valid_time"].dims)
    stored = own.broadcast_like(like).transpose("time", LEAD).values.astype("datetime64[s]")
    step = spacing(inits[0] + np.sort(leads)) if leads.size > 1 else leads[0]
    monthly = step is not None and (np.datetime_data(step)[0] == "M" or step >= np.timedelta64(27 * 86400, "s"))
    calendars = {str(dataset[name].attrs.get("calendar", "standard")) for name in ("time", "valid_time")}
    tolerance = np.full(leads.size, CLOSE) + (UNEVEN if monthly else np.timedelta64(0, "s"))
    if monthly or not calendars <= {"standard", "gregorian", "proleptic_gregorian"}:
        tolerance = tolerance + (DRIFT * leads.astype(np.int64)).astype("timedelta64[s]")
    refuse_other_times(stored, valid, "valid_time", "initial time + lead time", origin, "valid_time", tolerance)
    return stored


def with_levels(dataset: xr.Dataset) -> xr.Dataset:
    """Stack `temperature_850`, `temperature_500`, ... into `temperature` with levels, unless it exists.

    Where variables then differ in their levels, the attribute `levels` of each names its own; the rest reads as NaN.
    """
    found: dict[str, dict[int, str]] = {}
    for name in map(str, dataset.data_vars):
        match = re.fullmatch(r"(\w+?)_(\d+)", name)
        if match and match[1] in UPPER_AIR and match[1] not in dataset:
            found.setdefault(match[1], {})[int(match[2])] = name
    gathered = {}
    for name, by_level in found.items():
        levels = sorted(by_level)
        first = dataset[by_level[levels[0]]]
        chunks = {str(dim): 1 for dim in first.dims if dim not in ("latitude", "longitude")}  # keeps it lazy
        fields = [dataset[by_level[level]].chunk(chunks) for level in levels]
        joined = xr.concat(
            fields, dim=xr.DataArray(levels, dims="level", name="level").astype(float), combine_attrs="override"
        )
        gathered[name] = joined.transpose(..., "level", "latitude", "longitude").rename(name)
    if not gathered:
        return dataset
    for field in [*dataset.data_vars.values(), *gathered.values()]:
        if "level" in field.dims:
            field.attrs.setdefault("levels", field["level"].values.tolist())
    used = [name for by_level in found.values() for name in by_level.values()]
    return xr.merge([dataset.drop_vars(used), *gathered.values()], join="outer", compat="override").assign_attrs(
        dataset.attrs
    )
