"""Open forecasts in one form, whatever program wrote them.

A forecast has dims ([member,] time, prediction_timedelta[, level], latitude, longitude), `time` being the initial time,
and the coordinate `valid_time` (time, prediction_timedelta); a climatology has (hour, dayofyear[, level], latitude,
longitude). Both are layouts of WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560). Programs write the two axes as

    (time, step) and the like            initial time and lead time, each an axis of its own: stays as it is
    (valid_time), initial time a scalar  one forecast by valid time (cfgrib after swap_dims, iris)
    (sample, time), init_time (sample)   `time` counts from the initial time (ACE: Watt-Meyer et al. 2023, arXiv
                                         2310.02074; GraphCast, with `batch` and `datetime`: Lam et al. 2023)

Samples with one initial time are members; those of several, each as often, become both axes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import origin_of, with_levels
from data_pipelines.conventions.calendars import datetimes, seconds_of, timedeltas
from data_pipelines.conventions.canonical import LEAD, MEMBERS, canonical, is_member
from data_pipelines.conventions.durations import spacing
from data_pipelines.conventions.lazy_arrays import computed_when_read, transposed
from data_pipelines.conventions.suggestions import option, suggestion
from data_pipelines.conventions.valid_times import INITS, LEADS, VALID, refuse_other_times
from data_pipelines.derived.shaping import shaped
from data_pipelines.opening.datasets import open_files

CLOSE = np.timedelta64(60, "s")  # by which valid times may differ from initial time + lead time
UNEVEN, DRIFT = np.timedelta64(3 * 86400, "s"), 0.015  # the same of monthly leads, and of calendars, a second of lead
LENGTH = re.compile(r"(?:PT?)?(\d+) ?(h|d)(?:r|rs|our|ours|ay|ays)?", re.IGNORECASE)
ASSUMED = "Lead times of the forecast have no units; read as {unit}. Say them: {key}={{prediction_timedelta: days}}."


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
    numbers without units are taken as nanoseconds, seconds or hours by their size; the attribute `assumed` says so.
    """
    datasets = open_files(path, engine=engine, storage_options=storage_options)
    _refuse_absent(datasets, {"rename": rename, "select": select, "members": {members: ""} if members else None})
    parts = []
    for dataset in datasets:
        dataset = dataset.rename({old: new for old, new in (rename or {}).items() if old in _names(dataset)})
        settings = {dim: label for dim, label in (select or {}).items() if dim in _names(dataset)}
        several = len(datasets) > 1
        parts.append(
            canonical_forecast(dataset, settings, names=names, members=members, units=units, one_of_several=several)
        )
    forecast = parts[0] if len(parts) == 1 else _joined(parts)
    of_fields = {name: settings for name, settings in (units or {}).items() if name in forecast.data_vars}
    return shaped(forecast, units=of_fields)


def _names(dataset: xr.Dataset) -> set[Any]:
    return {*dataset.variables, *dataset.dims}


def _refuse_absent(datasets: Sequence[xr.Dataset], options: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Raise ValueError for a name in an option that none of the files has."""
    existing = [str(name) for name in dict.fromkeys(name for dataset in datasets for name in _names(dataset))]
    renamed = list((options["rename"] or {}).values())
    for key, entries in options.items():
        for name in entries or ():
            if name not in existing and (key == "rename" or name not in [*renamed, "member"]):
                raise ValueError(
                    f"{option(key)}: no '{name}' in {origin_of(datasets[0])}; {suggestion(name, existing)}"
                )


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
    lead_units = {name: text for name, text in (units or {}).items() if name in (lead, LEAD)}
    dataset, assumed = _with_lead_units(dataset, next(iter(lead_units.values()), None), origin)
    leads = timedeltas(dataset[LEAD], origin)
    dataset = dataset.assign_coords({LEAD: leads.astype("timedelta64[ns]")})
    order = np.argsort(leads)
    if (np.diff(leads[order]).astype(np.int64) == 0).any():
        raise ValueError(f"Lead times in {origin} are repeated: {leads.astype(str).tolist()}; keep each once.")
    valid = _valid_times(dataset, leads, origin)
    if (np.diff(order) < 0).any():
        dataset, valid = dataset.isel(prediction_timedelta=order), valid[:, order]
    count = dataset.attrs.get("ensemble_statistics")
    dataset = dataset if count is None else with_two_members(dataset)
    keep = (LEAD, *(["member"] if "member" in dataset.dims else []))
    forecast = canonical(dataset.drop_vars("valid_time", errors="ignore"), names=names, select=select, keep=keep)
    forecast = transposed(with_levels(forecast), "member", ...)
    if not any({"time", LEAD} <= set(forecast[name].dims) for name in forecast.data_vars):
        raise ValueError(f"No variable of {origin} varies with both initial time and lead time.")
    forecast = forecast.assign_coords(valid_time=(("time", LEAD), valid.astype("datetime64[ns]")))
    attributes = {name: dataset.attrs[name] for name in ("ensemble_statistics", "time_means") if name in dataset.attrs}
    return forecast.assign_attrs(assumed=assumed, **attributes)


def with_two_members(dataset: xr.Dataset) -> xr.Dataset:
    """Replace mean m and standard deviation s of members (`keep=statistics`) by two with both, m -+ s / sqrt(2)."""
    suffix, sign = "_standard_deviation", xr.DataArray([-1.0, 1.0], dims="member")
    fields = {}
    for name in (str(name) for name in dataset.data_vars):
        if name + suffix in dataset:
            stats = xr.Dataset({"mean": dataset[name], "spread": dataset[name + suffix], "sign": sign})
            pair = computed_when_read(stats, lambda part: part["mean"] + part["sign"] * part["spread"] / np.sqrt(2.0))
            fields[name] = (pair.dims, pair.variable._data, dataset[name].attrs)
    return dataset.drop_vars(list(dataset.data_vars)).assign(fields)


def _with_members(dataset: xr.Dataset, dim: str | None, select: Mapping[str, Any], alone: bool) -> xr.Dataset:
    """Name the dimension of the members `member`. alone: a member whose number stands alone becomes a dimension."""
    if dim is not None and dim in dataset.dims:
        return dataset.rename({dim: "member"})
    dims = [name for name in dataset.dims if is_member(name) and name not in select][:1]
    if not dims and alone:
        scalars = [n for n in dataset.coords if is_member(n) and dataset[n].ndim == 0 and n not in select][:1]
        return dataset.rename(dict.fromkeys(scalars, "member")).expand_dims(["member"] if scalars else [])
    return dataset.rename({name: "member" for name in dims if name != "member"})


def _named(dataset: xr.Dataset, names: Sequence[str], what: str, origin: str) -> str:
    """Return the first of `names` that the dataset has, preferring dimensions."""
    candidates = [name for name in names if name in dataset.dims and name in dataset.variables]
    candidates += [name for name in names if name in dataset.variables and dataset[name].ndim == 0]
    if not candidates:
        raise ValueError(
            f"{origin} has no {what}: expected '{names[0]}', or {', '.join(names[1:])}; its dimensions are "
            f"{', '.join(map(str, dataset.dims))}. Name yours with {option('rename')}={{yours: {names[0]}}}."
        )
    return candidates[0]


def _with_lead_units(dataset: xr.Dataset, units: str | None, origin: str) -> tuple[xr.Dataset, str]:
    """Give lead times their units: those given, or the likeliest; also return what had to be assumed."""
    lead = dataset[LEAD]
    if lead.dtype.kind in "SUO":
        dataset = dataset.assign_coords({LEAD: (lead.dims, _lengths(lead, origin), {})})
        return dataset, ""
    if units is not None:
        return dataset.assign_coords({LEAD: lead.assign_attrs(units=units)}), ""
    if np.issubdtype(lead.dtype, np.timedelta64) or lead.attrs.get("units"):
        return dataset, ""
    largest = np.abs(lead.values).max()
    in_seconds = 3600 <= largest < 1e9 and (lead.values % 3600 == 0).all()
    if 1e5 <= largest < 1e9 and not in_seconds:
        raise ValueError(
            f"The lead times in {origin} have no units ({lead.values.reshape(-1)[:4].tolist()}); say them: "
            f"{option('units')}={{{LEAD}: hours}}."
        )
    fitting = [unit for unit in ("hours", "days") if _fit(dataset, lead.assign_attrs(units=unit), origin)]
    guess = "seconds" if in_seconds else "hours" if largest < 1e5 else "nanoseconds"
    unit = fitting[0] if len(fitting) == 1 else guess
    dataset = dataset.assign_coords({LEAD: lead.assign_attrs(units=unit)})
    return dataset, "" if len(fitting) == 1 else ASSUMED.format(unit=unit, key=option("units"))


def _lengths(lead: xr.DataArray, origin: str) -> np.ndarray:
    """Return lead times in text, such as 6h or PT6H, as timedelta64[ns]; ValueError for other text."""
    texts = [text.decode() if isinstance(text, bytes) else str(text) for text in lead.values.reshape(-1)]
    matches = [LENGTH.fullmatch(text.strip()) for text in texts]
    if None in matches:
        raise ValueError(
            f"The lead times in {origin} are text ({texts[matches.index(None)]!r}); expected lengths such as 6h or "
            "PT6H, or numbers with the attribute units='hours'."
        )
    hours = [int(match[1]) * (24 if match[2].lower() == "d" else 1) for match in matches if match]
    return np.array(hours, dtype="timedelta64[h]").astype("timedelta64[ns]").reshape(lead.shape)


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
    template = xr.DataArray(valid, dims=("time", LEAD))
    recorded = xr.DataArray(datetimes(dataset["valid_time"], origin), dims=dataset["valid_time"].dims)
    stored = recorded.broadcast_like(template).transpose("time", LEAD).values.astype("datetime64[s]")
    step = spacing(inits[0] + np.sort(leads)) if leads.size > 1 else leads[0]
    monthly = step is not None and (np.datetime_data(step)[0] == "M" or step >= np.timedelta64(27 * 86400, "s"))
    calendars = {str(dataset[name].attrs.get("calendar", "standard")) for name in ("time", "valid_time")}
    tolerance = np.full(leads.size, CLOSE) + (UNEVEN if monthly else np.timedelta64(0, "s"))
    if monthly or not calendars <= {"standard", "gregorian", "proleptic_gregorian"}:
        tolerance = tolerance + (DRIFT * leads.astype(np.int64)).astype("timedelta64[s]")
    refuse_other_times(stored, valid, "valid_time", "initial time + lead time", origin, "valid_time", tolerance)
    return stored


BY_VALID = (*VALID, "datetime", "time")


def with_forecast_axes(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Give a forecast an initial time and lead times, where its layout holds them in another form.

    ValueError where valid times, initial times and lead times contradict each other.
    """
    return _by_init(_by_lead(_with_time_as_lead(dataset, origin), origin), origin)


def _with_time_as_lead(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Rename a coordinate `time` that holds lengths of time; the initial times follow from valid times if need be."""
    time = dataset.variables.get("time")
    if time is None or time.ndim > 1 or any(name in dataset.dims for name in LEADS):
        return dataset
    if not (np.issubdtype(time.dtype, np.timedelta64) or seconds_of(str(time.attrs.get("units", "")))):
        return dataset
    dataset = dataset.rename({"time": LEAD})
    valid = next((n for n in (*VALID, "datetime") if n in dataset.variables and LEAD in dataset[n].dims), None)
    if valid is None or any(name in dataset.variables for name in INITS):
        return dataset
    first = dataset[valid].isel({LEAD: 0})
    starts = datetimes(first, origin) - timedeltas(dataset[LEAD], origin).reshape(-1)[0]
    return dataset.assign_coords(init_time=(first.dims, starts.astype("datetime64[ns]")))


def _by_lead(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Turn an axis of valid times into one of lead times, where the initial time is a scalar."""
    lead = next((n for n in LEADS if n in dataset.variables and dataset[n].ndim < 2), None)
    init = next((n for n in (*INITS, "time") if n in dataset.variables and dataset[n].ndim == 0), None)
    valid = next((n for n in BY_VALID if n in dataset.dims and n in dataset.variables and n != init), None)
    if init is None or valid is None or (lead is not None and lead in dataset.dims):
        return dataset
    start, valid_times = datetimes(dataset[init], origin), datetimes(dataset[valid], origin)
    leads = valid_times - start
    if lead is not None and (np.issubdtype(dataset[lead].dtype, np.timedelta64) or dataset[lead].attrs.get("units")):
        stored_leads = timedeltas(dataset[lead].reset_coords(drop=True), origin)
        refuse_other_times(valid_times, start + stored_leads, valid, f"'{init}' + '{lead}'", origin, lead)
    dataset = dataset.drop_vars([valid, *([lead] if lead else [])]).rename({valid: LEAD})
    return dataset.assign_coords({LEAD: leads.astype("timedelta64[ns]")})


def _by_init(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Make initial times that are given for each sample an axis: of initial times, of members, or of both."""
    init = next((n for n in INITS if n in dataset.variables and dataset[n].ndim == 1 and n not in dataset.dims), None)
    if init is None or dataset[init].dims[0] in (LEAD, *LEADS):
        return dataset
    (sample,) = dataset[init].dims
    times = datetimes(dataset[init], origin)
    if sample == "time" and "time" in dataset.variables and any(n in dataset.dims for n in LEADS):
        refuse_other_times(datetimes(dataset["time"], origin), times, "time", f"'{init}'", origin, init)
    lead = next((n for n in LEADS if n in dataset.variables and dataset[n].size == 1), None)
    if sample == "time" and lead is not None and "time" in dataset.variables:
        summed = times + timedeltas(dataset[lead].reset_coords(drop=True), origin).reshape(())
        refuse_other_times(datetimes(dataset["time"], origin), summed, "time", f"'{init}' + '{lead}'", origin, lead)
    starts, counts = np.unique(times, return_counts=True)
    remaining = dataset.drop_vars([n for n in (sample, init) if n in dataset.variables])
    if starts.size == times.size:
        return remaining.rename({sample: init}).assign_coords({init: times.astype("datetime64[ns]")})
    if any(name in dataset.dims for name in MEMBERS if name != sample) or np.ptp(counts):
        raise ValueError(
            f"'{init}' of {origin} repeats initial times along '{sample}' ({counts.min()} to {counts.max()} times "
            f"each); expected each as often, as members. Choose some with {option('select')}={{{sample}: [...]}}."
        )
    if starts.size == 1:
        return remaining.rename({sample: "member"}).assign_coords({init: starts[0].astype("datetime64[ns]")})
    order = np.argsort(times, kind="stable").reshape(starts.size, -1)
    both = remaining.isel({sample: xr.DataArray(order, dims=(init, "member"))})
    return both.assign_coords({init: starts.astype("datetime64[ns]")})
