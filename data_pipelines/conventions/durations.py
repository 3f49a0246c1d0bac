"""Durations and times as they are typed, the spacing of and search among times, and periods.

Splits of the times can have a guard between them, so that training and test data are independent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from emulators.world import World

_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_MONTHS = {"M": 1, "y": 12}
EVER = np.datetime64("9999-12-31", "s")


def duration(text: str | np.timedelta64) -> np.timedelta64:
    """Parse `6h`, `30min`, `5d`, `2w` to seconds and `1M`, `12M`, `1y` to months."""
    if isinstance(text, np.timedelta64):
        return text if np.datetime_data(text)[0] == "M" else text.astype("timedelta64[s]")
    match = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]+)\s*", str(text))
    number, unit = (int(match[1]), match[2]) if match else (0, "")
    if number > 0 and unit in _MONTHS:
        return np.timedelta64(number * _MONTHS[unit], "M")
    if number > 0 and unit in _SECONDS:
        return np.timedelta64(number * _SECONDS[unit], "s")
    raise ValueError(f"Expected a length of time such as 30min, 6h, 5d, 1M (month) or 1y; got '{text}'.")


def duration_text(length: np.timedelta64) -> str:
    """Format a duration in the largest unit that divides it: the inverse of `duration`."""
    unit, _ = np.datetime_data(length)
    if unit == "M":
        months = int(length.astype(int))
        return f"{months}M" if months % 12 else f"{months // 12}y"
    seconds = int(length.astype("timedelta64[s]").astype(int))
    for name in ("d", "h", "min"):
        if seconds % _SECONDS[name] == 0:
            return f"{seconds // _SECONDS[name]}{name}"
    return f"{seconds}s"


def spacing(times: np.ndarray) -> np.timedelta64 | None:
    """Return the most frequent step between times: in seconds, or in months if only these are even."""
    times = np.asarray(times, dtype="datetime64[s]")
    if times.size < 2:
        return None
    steps = np.diff(times).astype(np.int64)
    values, counts = np.unique(steps, return_counts=True)
    usual = int(values[counts.argmax()])
    if usual >= 27 * 86400:
        months = np.diff(times.astype("datetime64[M]")).astype(np.int64)
        values, counts = np.unique(months, return_counts=True)
        day = (times - times.astype("datetime64[M]")).astype(np.int64) / 86400.0
        if values.min() > 0 and np.ptp(day) <= 3.0:  # within a day of the month that does not drift
            return np.timedelta64(int(values[counts.argmax()]), "M")
    return np.timedelta64(usual, "s")


def nearest_positions(times: np.ndarray, wanted: np.ndarray, tolerance: np.timedelta64 | np.ndarray) -> np.ndarray:
    """Find the nearest of ascending `times` to each of `wanted`: its position, -1 where none is within `tolerance`.

    Of two that are equally near it is the earlier. Shape of `wanted`; tolerance: a length, or one for each of them.
    """
    wanted = np.asarray(wanted, dtype="datetime64[s]")
    if not times.size:
        return np.full(wanted.shape, -1)
    right = np.searchsorted(times, wanted).clip(0, times.size - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(abs(times[left] - wanted) <= abs(times[right] - wanted), left, right)
    return np.where(abs(times[nearest] - wanted) <= tolerance, nearest, -1)


def gaps(times: np.ndarray) -> np.ndarray:
    """Find the times that are followed by a step more than a tenth longer than the usual one; their positions."""
    times, usual = np.asarray(times, dtype="datetime64[s]"), spacing(times)
    if usual is None:
        return np.empty(0, dtype=np.int64)
    axis = times.astype("datetime64[M]") if np.datetime_data(usual)[0] == "M" else times
    return np.flatnonzero(np.diff(axis).astype(np.int64) > 1.1 * usual.astype(np.int64))


def unbroken_until(times: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return until when `times` continue without a gap from each of `starts`, datetime64[s], shape (start,).

    Beyond the first gap the data may belong to another trajectory or member, which is no truth for a forecast.
    """
    times, starts = (np.asarray(array, dtype="datetime64[s]") for array in (times, starts))
    ends = times[gaps(times)]
    if not ends.size:
        return np.full(starts.shape, EVER)
    slack = np.diff(times).min() // 2  # valid times of monthly means lie days away from the data's own
    return np.append(ends + slack, EVER)[np.searchsorted(ends, starts)]


def bounds(period: Sequence[str | int]) -> tuple[np.datetime64, np.datetime64]:
    """Return the first and last second of [start, end]; an end given as a year, month or day includes all of it."""
    for text in period if isinstance(period, Sequence) else ():
        if re.fullmatch(r"\d{4}-\d\d(-\d\d)?", str(text)) and not _is_date(str(text)):
            raise ValueError(f"There is no {'day' if str(text).count('-') > 1 else 'month'} {text} in the calendar.")
    try:
        first, last = (np.datetime64(str(text)) for text in period)
        start = first.astype("datetime64[s]")
        end = (last + 1).astype("datetime64[s]") - np.timedelta64(1, "s")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected a period [start, end] such as ['2001-01-01', '2002-12-31']; got {period}."
        ) from error
    if end < start:
        raise ValueError(f"The period {period[0]} to {period[1]} ends before it begins.")
    return start, end


def _is_date(text: str) -> bool:
    try:
        np.datetime64(text)
    except ValueError:
        return False
    return True


Splits = Mapping[str, Sequence[str | int] | None]


def guarded(splits: Splits, guard: str | None) -> dict[str, Sequence[str | int] | None]:
    """Shorten splits at their start so that at least `guard`, such as 10d, separates each from the one before.

    Splits that overlap stay as they are. ValueError where the guard leaves nothing of one.
    """
    if guard is None:
        return dict(splits)
    length = duration(guard)
    if np.datetime_data(length)[0] == "M":
        raise ValueError(f"guard: expected days or hours, such as 10d; got '{guard}'.")
    periods = {name: bounds(period) for name, period in splits.items() if period is not None and None not in period}
    result = dict(splits)
    end_before: np.datetime64 | None = None
    for name, (start, end) in sorted(periods.items(), key=lambda item: item[1]):
        if end_before is not None and end_before < start < end_before + length:
            start = end_before + length
            if start > end:
                raise ValueError(f"guard: {guard} after {end_before} leaves nothing of the split {name}; shorten it.")
            result[name] = [str(start), str((splits[name] or ())[1])]
        end_before = end if end_before is None else max(end, end_before)
    return result


def initial_times(spec: str | Sequence[object]) -> np.ndarray:
    """Initial times, sorted, datetime64[s]: a date, a list of dates, or start/stop/step (stop included).

    A stop of `2003` or `2003-12-31` takes in that whole year or day.
    """
    if isinstance(spec, str):
        entries: Sequence[object] = [entry for entry in spec.strip("[] ").split(",") if entry.strip()]
    else:
        entries = spec if isinstance(spec, Sequence) else [spec]
    if not entries:
        raise ValueError("`init` is empty; give a date (2003-01-01T06), several with commas, or start/stop/step.")
    times = np.concatenate([_times(str(entry).strip()) for entry in entries])
    return np.unique(times)


def _times(entry: str) -> np.ndarray:
    """The times of one entry: a date or start/stop/step."""
    parts = [part.strip() for part in entry.split("/")]
    if len(parts) == 1:
        return date(parts[0]).astype("datetime64[s]").reshape(1)
    if len(parts) != 3:
        raise ValueError(f"Expected `init` as start/stop/step, as in 2003-01-01/2003-12-31/5d; got '{entry}'.")
    start, stop = date(parts[0]).astype("datetime64[s]"), (date(parts[1]) + 1).astype("datetime64[s]")
    step = length(parts[2])
    if stop <= start:
        raise ValueError(f"The last initial time must not be before the first; got '{entry}'.")
    if np.datetime_data(step)[0] == "s":
        return np.arange(start, stop, step)
    month = start.astype("datetime64[M]")
    months = np.arange(month, stop.astype("datetime64[M]") + 1, step)
    times = months.astype("datetime64[s]") + (start - month.astype("datetime64[s]"))
    return times[(times < stop) & (times.astype("datetime64[M]") == months)]


def date(text: str) -> np.datetime64:
    """A date with the precision it was typed in: 2003, 2003-01, 2003-01-01, 2003-01-01T06, 2003-01-01T06:30."""
    try:
        time = np.datetime64(text.removesuffix("Z").replace(" ", "T"))
    except ValueError:
        time = np.datetime64("NaT")
    if np.isnat(time):
        raise ValueError(f"Expected a date such as 2003-01-01 or 2003-01-01T06; got '{text}'.")
    return time


def length(text: str) -> np.timedelta64:
    """A length of time such as 6h, 5d, 1mo, 1y: timedelta64 in seconds, or in months for mo and y."""
    return duration(re.sub(r"(?<=\d)\s*mo$", "M", text.strip()))


def length_of_lead(lead: str | int) -> int | np.timedelta64:
    """Return a lead in timesteps, or its length of time. Raises ValueError for a text that is neither."""
    match = re.fullmatch(r"(\d+)\s*(steps?)?", str(lead).strip())
    return int(match[1]) if match else length(str(lead).strip())


def lead_steps(lead: str | int, world: World) -> int:
    """How many timesteps of `world` make up `lead`: 10d, 240h, 20y, `1460 steps` or 1460.

    Months and years count 365.25 / 12 and 365.25 days where the timestep is not in months.
    """
    from emulators.world import nominal_seconds

    text, span, timestep = str(lead).strip(), length_of_lead(lead), world.timestep
    if isinstance(span, int):
        steps = float(span)
    elif np.datetime_data(span)[0] == np.datetime_data(timestep)[0] == "M":
        steps = span / timestep
    else:
        steps = nominal_seconds(span) / float(world.lead_time(1).astype(int))
    if steps < 1 or steps != int(steps):
        raise ValueError(
            f"The lead must be a whole number of timesteps of {duration_text(world.timestep)}, at least one; "
            f"got '{text}', which is {steps:g} of them; write lead={max(round(steps), 1)}, in timesteps."
        )
    return int(steps)


def thinned(times: np.ndarray, every: str) -> np.ndarray:
    """Those of sorted `times` that lie at least `every` after the one kept before, the first among them.

    Steps in months forgive three days, as the times of monthly and yearly means are uneven.
    """
    step, selected = length(every), [times[0]]
    slack = np.timedelta64(3 * 86400 if np.datetime_data(step)[0] == "M" else 0, "s")
    for time in times[1:]:
        if _after(selected[-1], step) - slack <= time:
            selected.append(time)
    return np.array(selected, dtype="datetime64[s]")


def _after(time: np.datetime64, step: np.timedelta64) -> np.datetime64:
    """`step` after `time`; steps in months keep the day of the month, a short month's overhang running on."""
    if np.datetime_data(step)[0] != "M":
        return time + step
    month = time.astype("datetime64[M]")
    return (month + step).astype("datetime64[s]") + (time - month.astype("datetime64[s]"))


def lead_times(wanted: Any) -> np.ndarray | None:
    """Return the requested lead times, timedelta64[s]; a month counts 365.25 / 12 days."""
    from emulators.world import nominal_seconds

    if wanted is None:
        return None
    lengths = [length(str(text)) for text in ([wanted] if isinstance(wanted, str) else wanted)]
    return np.array([nominal_seconds(item) for item in lengths], dtype="timedelta64[s]")


def asked_inits(spec: Any) -> np.ndarray:
    """Return the initial times that `first/last/step` or a list names one by one; empty for a span or None."""
    if spec is None or (isinstance(spec, str) and spec.count("/") == 1):
        return np.empty(0, dtype="datetime64[s]")
    return initial_times(spec)


def chosen_inits(spec: Any, have: np.ndarray, key: str = "inits") -> np.ndarray | None:
    """Select from the initial times `have` by `first/last`, `first/last/step` or a list; None where `spec` is None.

    key: of the option, for the ValueError where none is selected.
    """
    if spec is None:
        return None
    if isinstance(spec, str) and spec.count("/") == 1:
        first, last = bounds(spec.split("/"))
        inits = have[(have >= first) & (have <= last)]
    else:
        inits = np.intersect1d(initial_times(spec), have)
    if not inits.size:
        remedy = "inits=all does" if key == "inits" else f"give one of them, or {key}=null"
        raise ValueError(
            f"{key}={spec} takes in none of the forecast's initial times, {have.min()} to {have.max()}; {remedy}."
        )
    return inits
