"""Splits of the times: a guard between them, so that what is learnt does not reach into what it is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.archive import bounds
from data_pipelines.intervals import duration

Splits = Mapping[str, Sequence[str | int] | None]


def guarded(splits: Splits, guard: str | None) -> dict[str, Sequence[str | int] | None]:
    """The splits, each begun so late that at least `guard`, such as 10d, lies between it and the one before.

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
