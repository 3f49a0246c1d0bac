"""Decode the times of files as datetime64: CF units, calendars other than the standard one, months since a date.

Dates are kept as they are written. A calendar without leap days leaves 29 February as a gap. Months and years of a
calendar of 360 days keep their dates; its days are laid evenly over the real year, which leaves five or six of that
as gaps, so that seasons stay where they are and steps within a stretch keep their length.

Times that lost digits when they were stored are moved to the even axis that they were written from. Fractions of days
with some decimals, single precision, and times that another program cut to seconds (07:59:59) lie a little beside it.
All times of an axis go to multiples, from midnight, of the coarsest step in `STEPS` of which none lies further away
than the tolerance: the error of the stored numbers, 1 s or more, and at most a quarter of the step.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from data_pipelines.conventions.durations import duration
from data_pipelines.conventions.suggestions import option

MONTHS_SINCE = re.compile(r"\s*(month|year)s?\s+since\s+(\d+)-(\d+)(?:-(\d+))?", re.IGNORECASE)
SINCE = re.compile(r"\s*([A-Za-z]+)\s+since\s+(.+)", re.IGNORECASE)
SECONDS: dict[str, float] = {
    "second": 1,
    "sec": 1,
    "s": 1,
    "minute": 60,
    "min": 60,
    "hour": 3600,
    "hr": 3600,
    "h": 3600,
    "day": 86400,
}


SECONDS |= {"d": 86400, "nanosecond": 1e-9, "ns": 1e-9, "microsecond": 1e-6, "us": 1e-6, "millisecond": 1e-3}


def datetimes(coordinate: xr.DataArray, origin: str) -> np.ndarray:
    """Decode a time coordinate as datetime64[s], in its shape; ValueError if its values are no dates.

    Times that lost digits are moved to the axis they were written from (`data_pipelines.conventions.calendars`).
    """
    values, units = coordinate.values, str(coordinate.attrs.get("units", ""))
    error = 0.0 if MONTHS_SINCE.match(units) else stored_error(values, _unit_seconds(units))
    if not np.issubdtype(values.dtype, np.datetime64):
        values = _months_since(values, units) if MONTHS_SINCE.match(units) else _decoded(coordinate, origin)
    if values.dtype == object:
        values = _from_cftime(values, origin)
    if np.isnat(values).any():
        raise ValueError(f"{int(np.isnat(values).sum())} of the times in {origin} are missing.")
    times = snapped(values.astype("datetime64[us]").astype(np.int64) / 1e6, error)
    if error > CUT and times.ndim == 1 and np.unique(times).size < times.size:
        raise ValueError(
            f"The times in {origin} are stored to within {error:.0f} s only, which is too coarse to tell them apart; "
            "store them in double precision or as whole numbers."
        )
    return times.astype("datetime64[s]")


def timedeltas(coordinate: xr.DataArray, origin: str) -> np.ndarray:
    """Decode a coordinate of lead times as timedelta64[s]; numbers need the attribute `units`, such as hours."""
    values = coordinate.values
    if np.issubdtype(values.dtype, np.timedelta64):
        return snapped(values.astype("timedelta64[us]").astype(np.int64) / 1e6).astype("timedelta64[s]")
    units = str(coordinate.attrs.get("units", "")).strip().lower()
    seconds = seconds_of(units)
    if seconds is None or not np.issubdtype(values.dtype, np.number):
        raise ValueError(
            f"'{coordinate.name}' in {origin} should hold lengths of time; expected units such as 'hours', "
            f"got '{units or 'none'}'."
        )
    return snapped(values.astype(np.float64) * seconds, stored_error(values, seconds)).astype("timedelta64[s]")


def _unit_seconds(units: str) -> float:
    """Return the length of the unit that times count in, in seconds; 0 where it is not known."""
    since = SINCE.match(units)
    return (seconds_of(since[1]) if since else None) or 0.0


def seconds_of(units: str) -> float | None:
    """Return the length of a unit of time in seconds; None where it is none."""
    units = units.strip().lower()
    return SECONDS.get(units, SECONDS.get(units.rstrip("s")))


def with_dates(dataset: xr.Dataset, dates: Mapping[str, str | Sequence[str]], origin: str) -> xr.Dataset:
    """Give dimensions without dates their dates and the name `time`; datasets without them stay as they are.

    dates: dimension -> `first/step`, such as 1979-01/1M, or every date of it. ValueError where the number is wrong.
    """
    for dim, spec in dates.items():
        if dim not in dataset.dims:
            continue
        if dim != "time" and "time" in dataset.dims:
            raise ValueError(f"dates: {origin} has times already, along 'time'; leave '{dim}' out.")
        times = _said(dim, spec, dataset.sizes[dim])
        undated = dataset.drop_vars([name for name in (dim, "time") if name in dataset.variables])
        dataset = undated.rename({} if dim == "time" else {dim: "time"}).assign_coords(
            time=("time", times, {"coordinate_defines": "start"})
        )
    return dataset


def _said(dim: str, spec: str | Sequence[str], count: int) -> np.ndarray:
    """Return `count` dates, datetime64[s], from the first and the step, or from a list."""
    try:
        if not isinstance(spec, str):
            times = np.array([np.datetime64(str(text)) for text in spec]).astype("datetime64[s]")
        else:
            first, step = (part.strip() for part in spec.split("/"))
            start, length = np.datetime64(first).astype("datetime64[s]"), duration(step)
            month = start.astype("datetime64[M]")
            anchor = month if np.datetime_data(length)[0] == "M" else start
            times = (anchor + np.arange(count) * length).astype("datetime64[s]") + (start - anchor)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"dates: expected first/step, such as 1979-01/1M, a list of dates, or `ends`; got {spec}."
        ) from error
    if times.size != count:
        raise ValueError(f"dates: '{dim}' has {count} entries, {times.size} dates are given for them.")
    return times


def refuse_disorder(times: np.ndarray, origin: str) -> None:
    """Raise ValueError unless times ascend without repetition; it names the first that does not."""
    disordered = np.flatnonzero(np.diff(times).astype(np.int64) <= 0)
    if disordered.size:
        before, after = times[disordered[0]], times[disordered[0] + 1]
        fault = "are repeated" if before == after else "are out of order"
        raise ValueError(f"Times in {origin} {fault}: {after} follows {before}; sort them and keep each once.")


def _decoded(coordinate: xr.DataArray, origin: str) -> np.ndarray:
    if all(isinstance(value, str | bytes) for value in coordinate.values.reshape(-1)[:1]):
        return _of_texts(coordinate, origin)
    attributes = {key: coordinate.attrs[key] for key in ("units", "calendar") if key in coordinate.attrs}
    if since := SINCE.match(str(attributes.get("units", ""))):
        attributes["units"] = f"{since[1].lower()} since {since[2]}"
    undecoded = xr.Dataset({"x": (coordinate.dims, coordinate.values, attributes)})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decoded = xr.decode_cf(undecoded, decode_times=xr.coders.CFDatetimeCoder(time_unit="us"))["x"].values
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(
            f"Cannot make dates of the times in {origin}, units '{coordinate.attrs.get('units', 'none')}', calendar "
            f"'{coordinate.attrs.get('calendar', 'none')}'; expected units such as 'hours since 1900-01-01'."
        ) from error
    if not np.issubdtype(decoded.dtype, np.datetime64) and decoded.dtype != object:
        units = f"units '{coordinate.attrs['units']}'" if "units" in coordinate.attrs else "no units"
        raise ValueError(
            f"The times in {origin} are numbers with {units} (the first: {coordinate.values.reshape(-1)[0]}); expected "
            f"the attribute `units` to be like 'hours since 1900-01-01', or "
            f"{option('dates')}={{{coordinate.name}: 1979-01-01/6h}}, the first and the step."
        )
    return decoded


def _of_texts(coordinate: xr.DataArray, origin: str) -> np.ndarray:
    """Decode dates in text, such as 2001-01-01T06:00 or 2001-01-01_06:00:00."""
    texts = coordinate.values.astype("U")
    try:
        return np.char.replace(texts, "_", "T").astype("datetime64[us]")
    except ValueError as error:
        raise ValueError(
            f"The times in {origin} are text (the first: {texts.reshape(-1)[0]!r}); expected dates such as "
            f"2001-01-01T06:00, or {option('dates')}={{{coordinate.name}: 1979-01-01/6h}}, the first and the step."
        ) from error


def _months_since(values: np.ndarray, units: str) -> np.ndarray:
    """Decode months or years since a date; a fraction of a month is that fraction of 30 days, at most to its last."""
    match = MONTHS_SINCE.match(units)
    assert match
    months = np.asarray(values, dtype=np.float64) * (12 if match[1].lower() == "year" else 1)
    first = np.datetime64(f"{int(match[2]):04d}-{int(match[3]):02d}", "M")
    whole_months = np.floor(months + 1e-6)
    start = (first + whole_months.astype(np.int64)).astype("datetime64[s]")
    length = ((first + whole_months.astype(np.int64) + 1).astype("datetime64[D]") - start) / np.timedelta64(1, "D")
    days = np.minimum(int(match[4] or 1) - 1 + 30.0 * np.clip(months - whole_months, 0.0, None), length - 1.0)
    return start + np.round(days * 86400.0).astype(np.int64).astype("timedelta64[s]")


def _from_cftime(values: np.ndarray, origin: str) -> np.ndarray:
    """Convert dates to the same dates of the standard calendar, and years of 360 days to whole years."""
    flat = values.reshape(-1)
    calendar = getattr(flat[0], "calendar", "unknown")
    try:
        dates = np.array([date.isoformat() for date in flat], dtype="datetime64[us]")
    except ValueError as error:
        if calendar == "360_day":
            return _over_the_year(flat).reshape(values.shape)
        raise ValueError(
            f"Times in {origin} are in the calendar '{calendar}' and include dates that do not exist ({error}); "
            "convert them to the standard calendar first."
        ) from error
    if calendar == "360_day" and dates.size > 1:
        steps, months = (np.diff(dates.astype(f"datetime64[{unit}]")).astype(np.int64) for unit in ("D", "M"))
        if np.ptp(months) or not months[0] or steps.min() < 27:
            dates = _over_the_year(flat)
    return dates.reshape(values.shape)


def _over_the_year(dates: np.ndarray) -> np.ndarray:
    """Convert days of a year of 360 days to the same fraction of the standard year; the time of day stays."""
    days = xr.DataArray(np.arange(dates.size), dims="time", coords={"time": dates})
    return days.convert_calendar("standard", align_on="year", use_cftime=False)["time"].values.astype("datetime64[us]")


STEPS = (86400, 43200, 21600, 10800, 3600, 1800, 900, 600, 300, 60, 1)  # seconds
CUT = 1.0  # seconds that are lost where times are cut to whole ones


def snapped(seconds: np.ndarray, error: float = 0.0) -> np.ndarray:
    """Round times or lengths of time, float64 seconds, to whole seconds on the axis they were written from; int64.

    error: largest error of the stored numbers in seconds (`stored_error`).
    """
    count = np.unique(seconds).size
    for step in STEPS:
        rounded = np.round(seconds / step) * step
        if (
            np.abs(rounded - seconds).max(initial=0.0) <= min(step / 4, max(CUT, error))
            and np.unique(rounded).size == count
        ):
            return rounded.astype(np.int64)
    return np.round(seconds).astype(np.int64)


def stored_error(values: np.ndarray, unit: float) -> float:
    """Return the largest error of numbers in units of `unit` seconds, in seconds; 0 for whole numbers.

    It is the spacing of floating-point numbers (single precision where all values fit it), or the last decimal where
    there are at most nine.
    """
    if not np.issubdtype(values.dtype, np.floating) or not values.size or (values == np.round(values)).all():
        return 0.0
    single = values.astype(np.float32)
    stored = single if (single == values).all() else values
    spacing = float(np.spacing(np.abs(stored).max()))
    fewest = 2 if values.size >= 4 else 3  # few numbers with few decimals may be meant exactly
    for decimals in range(fewest, 10):
        if np.allclose(values.round(decimals), values, rtol=0.0, atol=2 * spacing):
            return max(spacing, 10.0**-decimals) * unit
    return spacing * unit
