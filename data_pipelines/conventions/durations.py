"""Durations as they are typed, and the spacing of and search among times."""

from __future__ import annotations

import re

import numpy as np

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
    times, starts = (np.asarray(some, dtype="datetime64[s]") for some in (times, starts))
    ends = times[gaps(times)]
    if not ends.size:
        return np.full(starts.shape, EVER)
    slack = np.diff(times).min() // 2  # valid times of monthly means lie days away from the data's own
    return np.append(ends + slack, EVER)[np.searchsorted(ends, starts)]
