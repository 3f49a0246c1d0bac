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
from data_pipelines.conventions.canonical import MEMBERS, canonical
from data_pipelines.opening.datasets import open_files

LEADS = ("prediction_timedelta", "lead_time", "leadtime", "step", "lead", "forecast_period")
INITS = ("init_time", "initial_time", "forecast_reference_time", "reference_time", "time")
UPPER_AIR = (
    "geopotential", "geopotential_height", "temperature", "u_component_of_wind", "v_component_of_wind", "wind_speed",
    "vertical_velocity", "specific_humidity", "relative_humidity", "vorticity", "divergence",
)  # fmt: skip


def open_forecast(
    path: str | Path | Sequence[str | Path],
    *,
    engine: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    rename: Mapping[str, str] | None = None,
    select: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open the forecast at `path`, lazily; arguments as those of `data_pipelines.opening.datasets.open_dataset`.

    Lead times in whole numbers without units are taken as nanoseconds or hours by their size; the attribute `assumed`
    says so.
    """
    parts = []
    for dataset in open_files(path, engine=engine, storage_options=storage_options):
        parts.append(canonical_forecast(dataset.rename(dict(rename or {})), select))
    if len(parts) == 1:
        return parts[0]
    try:
        joined = xr.combine_by_coords(parts, join="exact", combine_attrs="drop_conflicts", data_vars="minimal")
    except ValueError as error:
        raise ValueError(f"Cannot join the {len(parts)} files of the forecast: {error}") from error
    assert isinstance(joined, xr.Dataset)
    return joined


def canonical_forecast(dataset: xr.Dataset, select: Mapping[str, Any] | None = None) -> xr.Dataset:
    """The same forecast with the names, dimensions and units of `open_forecast`. select: label by dimension."""
    origin = origin_of(dataset, "the forecast")
    lead, init = _named(dataset, LEADS, "lead time", origin), _named(dataset, INITS, "initial time", origin)
    if init != "time" and "time" in dataset.variables:
        dataset = dataset.drop_vars("time")
    dataset = dataset.rename({lead: "prediction_timedelta", init: "time"})
    members = [name for name in MEMBERS if name in dataset.dims and name not in (select or {})][:1]
    dataset = dataset.rename(dict.fromkeys(members, "member"))
    for dim in ("time", "prediction_timedelta"):
        if dim not in dataset.dims:
            dataset = dataset.expand_dims(dim)
        elif dataset[dim].ndim != 1:
            raise ValueError(
                f"'{dim}' in {origin} varies along {dataset[dim].dims}; expected one dimension of its own."
            )
    dataset, assumed = _with_lead_units(dataset, origin)
    leads = timedeltas(dataset["prediction_timedelta"], origin)
    dataset = dataset.assign_coords(prediction_timedelta=leads.astype("timedelta64[ns]"))
    valid = _valid_times(dataset, leads, origin)
    order = np.argsort(leads)
    if (np.diff(leads[order]).astype(np.int64) == 0).any():
        raise ValueError(f"Lead times in {origin} are repeated: {leads.astype(str).tolist()}; keep each once.")
    if (np.diff(order) < 0).any():
        dataset, valid = dataset.isel(prediction_timedelta=order), valid[:, order]
    keep = ("prediction_timedelta", *(["member"] if members else []))
    found = canonical(dataset.drop_vars("valid_time", errors="ignore"), select=select, keep=keep)
    found = with_levels(found).transpose("member", ..., missing_dims="ignore")
    if not any({"time", "prediction_timedelta"} <= set(found[name].dims) for name in found.data_vars):
        raise ValueError(f"No variable of {origin} varies with both initial time and lead time.")
    found = found.assign_coords(valid_time=(("time", "prediction_timedelta"), valid.astype("datetime64[ns]")))
    return found.assign_attrs(assumed=assumed)


def _named(dataset: xr.Dataset, names: Sequence[str], what: str, origin: str) -> str:
    """Return the first of `names` that the dataset has, preferring dimensions."""
    there = [name for name in names if name in dataset.dims and name in dataset.variables]
    there += [name for name in names if name in dataset.variables and dataset[name].ndim == 0]
    if not there:
        raise ValueError(
            f"{origin} has no {what}: expected '{names[0]}', or {', '.join(names[1:])}; its dimensions are "
            f"{', '.join(map(str, dataset.dims))}. Name yours with rename={{...}}."
        )
    return there[0]


def _with_lead_units(dataset: xr.Dataset, origin: str) -> tuple[xr.Dataset, str]:
    """Give lead times their units; also return what had to be assumed."""
    lead = dataset["prediction_timedelta"]
    if np.issubdtype(lead.dtype, np.timedelta64) or lead.attrs.get("units"):
        return dataset, ""
    largest = np.abs(lead.values).max()
    if not np.issubdtype(lead.dtype, np.number) or (1e5 <= largest < 1e9):
        raise ValueError(
            f"The lead times in {origin} have no units ({lead.values.reshape(-1)[:4].tolist()}); "
            "give 'prediction_timedelta' the attribute units, such as hours."
        )
    unit = "hours" if largest < 1e5 else "nanoseconds"
    lead = lead.assign_attrs(units=unit)
    assumed = f"Lead times of the forecast have no units; read as {unit}."
    return dataset.assign_coords(prediction_timedelta=lead), assumed


def _valid_times(dataset: xr.Dataset, leads: np.ndarray, origin: str) -> np.ndarray:
    """Return valid times, datetime64[s], shape (init, lead): those of the file, else init + lead."""
    inits = datetimes(dataset["time"], origin)
    valid = inits[:, None] + leads[None, :]
    if "valid_time" not in dataset.variables or not set(dataset["valid_time"].dims) <= {"time", "prediction_timedelta"}:
        return valid
    own = dataset["valid_time"]
    values = xr.DataArray(datetimes(own, origin), dims=own.dims)
    like = xr.DataArray(valid, dims=("time", "prediction_timedelta"))
    return values.broadcast_like(like).transpose("time", "prediction_timedelta").values.astype("datetime64[s]")


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
