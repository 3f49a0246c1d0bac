"""Periods and splits of the times, with a guard between splits so that training and test data are independent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.conventions.durations import duration


def bounds(period: Sequence[str | int]) -> tuple[np.datetime64, np.datetime64]:
    """Return the first and last second of [start, end]; an end given as a year, month or day includes all of it."""
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
