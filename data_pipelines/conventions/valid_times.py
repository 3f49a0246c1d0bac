"""Find the time at which the fields of a dataset are valid, from all that its coordinates say of it.

A file may hold the valid time, the initial time of a forecast and its lead time, or two of them. Where all three are
there, valid time = initial time + lead time is checked. Means over whole days, months or years that carry the end of
their interval are dated by its start, as ERA5 dates them: January of CESM, stamped 1 February, is January. Bounds say
so, else an attribute of the time (`coordinate_defines: end`, or a name such as "end of averaging period"), else the
user (`dates={time: ends}`); monthly means that say nothing are taken as dated by their start, which is told.
"""

from __future__ import annotations

import re

import numpy as np
import xarray as xr

from data_pipelines.conventions.calendars import datetimes, timedeltas
from data_pipelines.conventions.durations import spacing
from data_pipelines.conventions.suggestions import option

LEADS = ("prediction_timedelta", "lead_time", "leadtime", "step", "lead", "forecast_period")
INITS = ("init_time", "initial_time", "forecast_reference_time", "reference_time", "reftime", "initialization_time")
VALID = ("valid_time", "verification_time")
CLOSE = np.timedelta64(60, "s")  # by which two sources of one time may differ
MEANS = ("mean", "maximum", "minimum", "sum", "variance", "standard_deviation", "median", "range")
DAY, MONTH = np.timedelta64(1, "D"), np.timedelta64(27, "D")
END = re.compile(r"\bend(s|ing)?\b", re.IGNORECASE)
DEFINES = "coordinate_defines"  # attribute of a time: start, center, end or point of what it dates
ENDS = "ends"  # as the option `dates` says that times are ends of intervals


def with_valid_times(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Name the valid time `time`, and drop initial and lead times that belong to the same records.

    A dataset with a dimension of lead times, which is a forecast, stays as it is. ValueError where times contradict
    each other, or where it is not known whether a time is initial or valid.
    """
    dataset = _with_sums(dataset, origin)
    lead, valid, init = (_first(dataset, names) for names in (LEADS, VALID, INITS))
    time = "time" if "time" in dataset.variables and dataset["time"].ndim < 2 else None
    lead = lead if lead is None or valid is not None or _has_length(dataset[lead]) else None
    if valid is None and (time is None or (lead is None and init is None)):
        return dataset
    if lead is not None and dataset[lead].size > 1 and _is_apart(dataset, lead, valid or time):
        return dataset
    if valid is not None and valid != time:
        _refuse_disagreement(dataset, valid, init or time, lead, origin)
        return _renamed(dataset, valid, [name for name in (time, init, lead) if name], origin)
    assert time is not None
    return _of_time_alone(dataset, time, init, lead, origin)


def _first(dataset: xr.Dataset, names: tuple[str, ...]) -> str | None:
    """Return the first of the names that is a coordinate of at most one dimension of more than one entry."""
    return next((n for n in names if n in dataset.variables and dataset[n].squeeze().ndim < 2), None)


def _is_apart(dataset: xr.Dataset, lead: str, other: str | None) -> bool:
    """Return whether lead times lie along a dimension that is not that of the records."""
    return other is None or not set(dataset[lead].squeeze().dims) <= set(dataset[other].squeeze().dims)


def _of_time_alone(dataset: xr.Dataset, time: str, init: str | None, lead: str | None, origin: str) -> xr.Dataset:
    """Decide whether `time` is the initial or the valid time of a dataset without a coordinate of valid times."""
    times = datetimes(dataset[time], origin)
    if lead is None:
        return dataset.drop_vars([init] if init else [])
    leads = _lengths(dataset, lead, time, origin)
    description = " ".join(str(dataset[time].attrs.get(key, "")) for key in ("long_name", "standard_name")).lower()
    if init is not None:
        start = _like(dataset, init, time, datetimes(dataset[init], origin))
        if (abs(start + leads - times) <= CLOSE).all() or "initial" not in description:
            _refuse_disagreement(dataset, time, init, lead, origin)
            return dataset.drop_vars([init, lead])
    is_initial = "initial" in description or "reference" in description
    is_valid = lead == "forecast_period" or "valid" in description or dataset[time].attrs.get("long_name") == "time"
    if not is_initial and not is_valid and (leads != np.timedelta64(0, "s")).any():
        raise ValueError(
            f"It is not known whether 'time' in {origin} is the initial or the valid time: '{lead}' is "
            f"{_text(leads)}, and there is no valid_time. Say it: {option('rename')}={{time: valid_time}} or "
            f"{option('rename')}={{time: init_time}}."
        )
    remaining = dataset.drop_vars([lead, *([init] if init else [])])
    if not is_initial:
        return remaining
    moved = xr.Variable(dataset[time].dims, (times + leads).astype("datetime64[ns]"), {"standard_name": "time"})
    return remaining.assign_coords({time: moved})


def _with_sums(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Add `valid_time` = initial time + lead time to records that hold only these two; others stay as they are."""
    lead, init = _first(dataset, LEADS), _first(dataset, INITS)
    if lead is None or init is None or "time" in dataset.variables or _first(dataset, VALID):
        return dataset
    longest = max((init, lead), key=lambda name: dataset[name].size)
    if not dataset[longest].ndim or (dataset[lead].size > 1 and _is_apart(dataset, lead, init)):
        return dataset
    starts = _like(dataset, init, longest, datetimes(dataset[init], origin))
    times = starts + _lengths(dataset, lead, longest, origin)
    return dataset.assign_coords(valid_time=(dataset[longest].dims, times.astype("datetime64[ns]")))


def _lengths(dataset: xr.Dataset, lead: str, like: str, origin: str) -> np.ndarray:
    return _like(dataset, lead, like, timedeltas(dataset[lead].reset_coords(drop=True), origin))


def _like(dataset: xr.Dataset, name: str, like: str, values: np.ndarray) -> np.ndarray:
    """Broadcast the values of a coordinate, scalar or along the dimension of another, to the shape of that one."""
    return np.broadcast_to(values.reshape(-1) if dataset[like].ndim else values.reshape(()), dataset[like].shape)


def _refuse_disagreement(dataset: xr.Dataset, valid: str, init: str | None, lead: str | None, origin: str) -> None:
    """Raise ValueError where a valid time is not the initial time + the lead time of its record."""
    if init is None or lead is None or not (_has_length(dataset[lead])):
        return
    valid_times, starts = (datetimes(dataset[name], origin).reshape(-1) for name in (valid, init))
    leads = timedeltas(dataset[lead].reset_coords(drop=True), origin).reshape(-1)
    sums = starts + leads
    if sums.size not in (1, valid_times.size) or valid_times.size not in (1, sums.size):
        return
    refuse_other_times(valid_times, sums, valid, f"'{init}' + '{lead}'", origin, lead)


def _has_length(lead: xr.DataArray) -> bool:
    return np.issubdtype(lead.dtype, np.timedelta64) or bool(lead.attrs.get("units"))


def refuse_other_times(
    valid: np.ndarray,
    sums: np.ndarray,
    name: str,
    summed: str,
    origin: str,
    ignored: str,
    tolerance: np.timedelta64 | np.ndarray = CLOSE,
) -> None:
    """Raise ValueError at the first valid time that differs from initial time + lead time by more than `tolerance`.

    name, summed: of the two sources, for the message. ignored: the coordinate that may be left out.
    """
    valid, sums, tolerance = np.broadcast_arrays(valid, sums, tolerance)
    mismatches = np.argwhere(abs(valid - sums) > tolerance)
    if len(mismatches):
        index = tuple(mismatches[0])
        raise ValueError(
            f"'{name}' of {origin} contradicts {summed}: {valid[index]} against {sums[index]}, and so at "
            f"{len(mismatches)} of {valid.size} times. Correct one of them, or go by one alone: "
            f"{option('rename')}={{{ignored}: ignored}}."
        )


def _renamed(dataset: xr.Dataset, valid: str, others: list[str], origin: str) -> xr.Dataset:
    """Make the coordinate `valid` the time of the dataset, without the others."""
    coordinate = dataset[valid] if dataset[valid].ndim < 2 else dataset[valid].squeeze()
    for name in others:
        if dataset[name].size > 1 and dataset[name].dims != coordinate.dims:
            raise ValueError(
                f"'{name}' of {origin} has {dataset[name].size} times along '{dataset[name].dims[0]}', and '{valid}' "
                f"one for all of them, {coordinate.values}; drop one of the two."
            )
    remaining = dataset.drop_vars([valid, *others])
    for dim in coordinate.dims:
        remaining = remaining.squeeze("time", drop=True) if dim != "time" and "time" in remaining.dims else remaining
        remaining = remaining.drop_vars(str(dim), errors="ignore").rename({dim: "time"} if dim != "time" else {})
    along = ("time",) if "time" in remaining.dims else ()
    return remaining.assign_coords(time=(along, coordinate.values.reshape(-1 if along else ()), coordinate.attrs))


def _text(leads: np.ndarray) -> str:
    hours = np.unique(leads) / np.timedelta64(1, "h")
    return f"{hours[0]:g} h" if hours.size == 1 else f"{hours[0]:g} to {hours[-1]:g} h"


def interval_starts(dataset: xr.Dataset, times: np.ndarray, origin: str) -> tuple[np.ndarray, str]:
    """Return the start of each interval where means over days, months or years carry its end, else the times.

    The second is what was assumed, a sentence or ''. times: decoded, (time,), datetime64[s]. ValueError for a time
    outside its bounds.
    """
    defined = str(dataset["time"].attrs.get(DEFINES, "")).strip().lower()
    if times.ndim != 1 or not times.size or _are_points(dataset) or defined == "start":
        return times, ""
    ends = _bounds(dataset, times.size, origin)
    if ends is None:
        return _starts_without_bounds(dataset, times, defined)
    start, end = ends.T
    is_long = (end - start) >= DAY
    outside = is_long & ((times < start - CLOSE) | (times > end + CLOSE))
    if outside.any():
        index = int(outside.argmax())
        raise ValueError(
            f"The time {times[index]} in {origin} lies outside its bounds, {start[index]} to {end[index]}; "
            "correct one of them."
        )
    at_end = abs(times - end) <= CLOSE
    if not is_long.any() or not at_end[is_long].all() or ((end - start).max() < MONTH and not _are_means(dataset)):
        return times, ""
    return np.where(is_long, start, times), ""


def _starts_without_bounds(dataset: xr.Dataset, times: np.ndarray, defined: str) -> tuple[np.ndarray, str]:
    """Decide by the attributes of the time whether it is the end of its interval; tell it where monthly means do not.

    Monthly means are recognised by `cell_methods`, by a first time one step after the reference date of the units, or
    by whole years from February to January.
    """
    step, attributes = spacing(times), dataset["time"].attrs
    names = " ".join(str(attributes.get(key, "")) for key in ("long_name", "description", "comment"))
    is_end = defined == "end" or (not defined and END.search(names) is not None)
    is_monthly = step is not None and np.datetime_data(step)[0] == "M"
    if step is None or not (is_monthly or (step >= DAY and _are_means(dataset))):
        return times, ""
    if is_end:
        return _step_before(times, step), "Times are ends of intervals by their attributes; each is dated by its start."
    months = times.astype("datetime64[M]")
    if defined or not is_monthly or (months != times).any():
        return times, ""
    reference = re.search(r"since\s+(\d{4}-\d{2})-0?1\b", str(attributes.get("units", "")))
    from_reference = reference is not None and np.datetime64(reference[1], "M") + step == months[0]
    in_years = months.astype(int) % 12
    from_february = step == np.timedelta64(1, "M") and in_years[0] == 1 and in_years[-1] == 0
    if not (_are_means(dataset) or from_reference or from_february):
        return times, ""
    return times, (
        "Monthly means without bounds are taken as dated by the first day of their month. If they carry the first day "
        f"after it: {option('dates')}={{time: {ENDS}}}."
    )


def _step_before(times: np.ndarray, step: np.timedelta64) -> np.ndarray:
    """Return the starts of intervals of length `step` from their ends; a month may end by its last day."""
    if np.datetime_data(step)[0] != "M":
        return times - step
    last = (times - np.timedelta64(1, "s")).astype("datetime64[M]")
    return (last - (step - np.timedelta64(1, "M"))).astype("datetime64[s]")


def dated_by_starts(datasets: list[xr.Dataset], dim: str) -> list[xr.Dataset]:
    """Date files whose times along `dim` are ends of intervals by the starts of these.

    datasets: as stored, with their file in the attribute `origin`. ValueError where all of them have one time only.
    """
    present = [dataset for dataset in datasets if dim in dataset.dims and dim in dataset.variables]
    stored = [datetimes(dataset[dim], dataset.attrs["origin"]) for dataset in present]
    step = spacing(np.unique(np.concatenate(stored))) if stored else None
    if step is None:
        raise ValueError(
            f"{option('dates')}: '{dim}' of {datasets[0].attrs['origin']} has no two times, so the length of an "
            f"interval is unknown; give the first date and the step: {option('dates')}={{{dim}: 1979-01/1M}}."
        )
    starts = iter([_step_before(times, step) for times in stored])
    return [
        dataset.assign_coords({dim: (dim, next(starts), {DEFINES: "start"})})
        if dim in dataset.dims and dim in dataset.variables
        else dataset
        for dataset in datasets
    ]


def _bounds(dataset: xr.Dataset, count: int, origin: str) -> np.ndarray | None:
    """Return the decoded bounds of the times, (time, 2); None where there are none that make sense."""
    declared = [
        mapping.get(key)
        for mapping in (dataset["time"].attrs, dataset["time"].encoding)
        for key in ("bounds", "climatology")
    ]
    names = [*declared, "time_bnds", "time_bounds", "time_bound", "time_bnd", "valid_time_bnds", "valid_time_bounds"]
    name = next((n for n in names if n in dataset.variables and dataset[n].shape == (count, 2)), None)
    if name is None:
        return None
    attributes = {**dataset["time"].attrs, **dataset[name].attrs}
    bounds = datetimes(xr.DataArray(dataset[name].values, dims=("time", "bound"), attrs=attributes), origin)
    return bounds if (bounds[:, 1] >= bounds[:, 0]).all() else None


def month_starts(times: np.ndarray) -> np.ndarray:
    """Return the starts of the intervals of a monthly or longer series that is dated by last days of months.

    times: any shape. Those of other series are returned as they are.
    """
    unique = np.unique(times.astype("datetime64[s]"))
    step = spacing(unique)
    next_day = unique.astype("datetime64[D]") + 1
    at_ends = (next_day == next_day.astype("datetime64[M]")).all()
    if step is None or np.datetime_data(step)[0] != "M" or unique.size < 3 or not at_ends:
        return times
    return (times.astype("datetime64[M]") - (step - np.timedelta64(1, "M"))).astype("datetime64[s]")


def _methods(dataset: xr.Dataset) -> list[str]:
    return [str(field.attrs.get("cell_methods", "")) for field in dataset.data_vars.values() if "time" in field.dims]


def _are_points(dataset: xr.Dataset) -> bool:
    """Return whether the fields are said to be instantaneous."""
    methods = [method for method in _methods(dataset) if "time:" in method]
    return bool(methods) and all("time: point" in method for method in methods)


def _are_means(dataset: xr.Dataset) -> bool:
    """Return whether any field is said to be a mean, a sum or an extreme over time."""
    return any(f"time: {kind}" in method for method in _methods(dataset) for kind in MEANS)
