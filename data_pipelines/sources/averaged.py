"""Any data source on a slower clock, with means and sums over its timestep: what a slow component is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.durations import duration, duration_text, spacing
from data_pipelines.conventions.lazy_arrays import computed_when_read
from data_pipelines.conventions.suggestions import suggestion
from data_pipelines.opening.derived_source import DerivedSource
from emulators.statistics.accumulation import Accumulation


@dataclass(frozen=True)
class Averaged(DerivedSource):
    """Read a data source with a longer timestep, and with what its fields are over the timestep before each time.

    source: any data source; its splits are those of the result. timestep: such as 1d. accumulated: {new variable: {mean
    | sum | last: a variable, or {variable: factor}}}, as `step.exchange` of step=coupled. Other variables are as they
    are at each time. Times with less than a timestep of data before them are left out.
    """

    timestep: str = "1d"
    accumulated: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def changed(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return the dataset with the longer timestep, lazily."""
        times, span = dataset["time"].values, duration(self.timestep)
        count = self._timesteps(times)
        added = {}
        for name, given in self.accumulated.items():
            accumulation = Accumulation.declared(f"data.accumulated.{name}", given)
            for source in accumulation.terms:
                if source not in dataset.data_vars:
                    raise ValueError(
                        f"data.accumulated.{name}: no variable '{source}'; {suggestion(source, dataset.data_vars)}"
                    )
            rule = partial(
                accumulated, accumulation=accumulation, count=count, hours=float(span / np.timedelta64(1, "h"))
            )
            added[name] = computed_when_read(dataset[[*accumulation.terms]], rule, "time", count - 1)
        whole = np.flatnonzero(times[count:] - times[:-count] == span) + count
        return dataset.assign(added).isel(time=whole).assign_attrs(timestep=duration_text(span))

    def _timesteps(self, times: np.ndarray) -> int:
        """The number of timesteps of the source in one; ValueError where it is no whole number."""
        step, usual = duration(self.timestep), spacing(times)
        count = 0.0
        if usual is not None and "M" not in (np.datetime_data(step)[0], np.datetime_data(usual)[0]):
            count = float(step / usual)
        if count < 1 or count != int(count) or times.size <= count:
            have = "one time" if usual is None else f"{times.size} times every {duration_text(usual)}"
            raise ValueError(
                f"data.timestep: expected a whole number of timesteps of the source, which has {have}; got "
                f"{self.timestep}."
            )
        return int(count)


def accumulated(dataset: xr.Dataset, accumulation: Accumulation, count: int, hours: float) -> xr.DataArray:
    """Return what is declared of fields over the `count` times up to each, NaN at the first ones."""
    now, *more = (factor * dataset[name] for name, factor in accumulation.terms.items())
    total = sum(more, now)
    if accumulation.over != "last":
        total = sum((total.shift(time=back) for back in range(1, count)), total)
        total = total / count if accumulation.over == "mean" else total
    (first, factor), *others = accumulation.terms.items()
    attributes = {key: dataset[first].attrs[key] for key in ("units", "positive") if key in dataset[first].attrs}
    cell = (
        {}
        if accumulation.over == "last"
        else {"cell_methods": f"time: {accumulation.over} (interval: {hours:g} hours)"}
    )
    return total.assign_attrs({} if others or factor != 1.0 else attributes, **cell)
