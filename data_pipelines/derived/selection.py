"""Parts of a canonical dataset: some variables, levels and times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.durations import duration, duration_text
from data_pipelines.conventions.periods import bounds
from data_pipelines.conventions.suggestions import suggestion
from data_pipelines.derived.shaping import shaped


def part_of(
    dataset: xr.Dataset,
    *,
    fields: Sequence[str] | str | None = None,
    levels: Sequence[float] | float | None = None,
    years: Any = None,
    every: str | None = None,
) -> xr.Dataset:
    """The variables `fields` on `levels`, at the times within `years`, `every` so long.

    years: [first, last], `2000-01-01/2000-03-31`, or one year, month or day. every: 6h, 1d, ...: times that lie whole
    multiples of it after the first. ValueError where there is no such part.
    """
    if fields is not None:
        names = [fields] if isinstance(fields, str) else [str(name) for name in fields]
        for name in names:
            if name not in dataset.data_vars:
                raise ValueError(f"fields: no variable '{name}' in the data; {suggestion(name, dataset.data_vars)}")
        dataset = dataset[names]
        dataset = dataset.drop_vars([d for d in dataset.coords if not any(d in f.dims for f in dataset.values())])
    if levels is not None:
        dataset = shaped(dataset, levels=[float(level) for level in np.atleast_1d(np.asarray(levels, dtype=float))])
    if (years is not None or every is not None) and "time" not in dataset.dims:
        raise ValueError("years and every choose times; the data have none.")
    if years is not None:
        first, last = bounds(_period(years))
        times = dataset["time"].values.astype("datetime64[s]")
        inside = np.flatnonzero((times >= first) & (times <= last))
        if not inside.size:
            raise ValueError(f"years: no times from {first} to {last}; the data hold {times[0]} to {times[-1]}.")
        dataset = dataset.isel(time=slice(int(inside[0]), int(inside[-1]) + 1))
    return dataset if every is None else _thinned(dataset, every)


def _period(years: Any) -> Sequence[str | int]:
    if isinstance(years, str) and "/" in years:
        years = years.split("/")
    if isinstance(years, str | int):
        return [years, years]
    if len(years) != 2:
        raise ValueError(f"years: expected the first and the last, such as years=[1990,2019]; got {years}.")
    return list(years)


def _thinned(dataset: xr.Dataset, every: str) -> xr.Dataset:
    step = duration(every)
    times = dataset["time"].values.astype("datetime64[s]")
    if np.datetime_data(step)[0] == "M":
        since = (times.astype("datetime64[M]") - times[0].astype("datetime64[M]")).astype(np.int64)
        kept = np.flatnonzero(np.append(True, np.diff(since) > 0) & (since % step.astype(np.int64) == 0))
    else:
        kept = np.flatnonzero((times - times[0]).astype(np.int64) % step.astype(np.int64) == 0)
    strides = np.unique(np.diff(kept))
    rows = slice(int(kept[0]), int(kept[-1]) + 1, int(strides[0])) if strides.size == 1 else kept
    return dataset.isel(time=rows).assign_attrs(timestep=duration_text(step))
