"""The base of data sources that read a user's files and stores, with the options that all share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import origin_of
from data_pipelines.conventions.durations import duration, duration_text, gaps, guarded, spacing
from data_pipelines.conventions.suggestions import option, options_under, suggestion
from data_pipelines.derived.shaping import shaped
from data_pipelines.interfaces import Progress
from data_pipelines.opening.datasets import MEMBER, open_dataset

USUAL = 0.5  # least share of the steps between times that are the usual one


@dataclass(frozen=True)
class FileSource:
    """Open files or stores as a data source.

    path: a file, a store, an address, a pattern such as `era5_*.nc`, or a list of these.

    splits: name -> [start, end], both inclusive. guard: least length of time between splits, such as 10d.
    names: a table of names, such as cesm (`data_pipelines.conventions.dialects`).
    rename, select: see `data_pipelines.conventions.canonical.canonical`.
    units, masks, fill, derive, levels, lag, timestep, area: see `data_pipelines.derived.shaping.shaped`.
    dates: of a dimension without labels, {month: 1979-01/1M}; see `data_pipelines.conventions.calendars.with_dates`;
    or {time: ends}: times are the ends of their intervals, which are to be dated by their starts.
    members: dimension whose entries are members of an ensemble, such as number, ensemble or realization. Each is a
    sample of its own: windows keep to one member, statistics are over all; forecasts begin from the first.
    ranges: least and greatest possible value of a variable, {surface_pressure: [500, 1200]}, before those of
    `emulators.physics.physical_ranges`; values beyond are refused.
    gaps: what to do where times are missing: skip the windows that would bridge them, or refuse the data.
    """

    path: str | Sequence[str]
    splits: Mapping[str, Sequence[str | int] | None] = field(default_factory=dict)
    _: KW_ONLY
    guard: str | None = None
    names: str | None = None
    rename: Mapping[str, str] | None = None
    select: Mapping[str, Any] | None = None
    units: Mapping[str, str] | None = None
    masks: Sequence[str] | None = None
    fill: Mapping[str, float] | None = None
    derive: Sequence[str] | None = None
    levels: Sequence[float] | None = None
    lag: Sequence[str] | None = None
    timestep: str | None = None
    area: Mapping[str, Any] | None = None
    dates: Mapping[str, str | Sequence[str]] | None = None
    members: str | None = None
    gaps: Literal["skip", "refuse"] = "skip"
    ranges: Mapping[str, Sequence[float]] | None = None

    engine: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if self.gaps not in ("skip", "refuse"):
            raise ValueError(f"gaps is skip or refuse; got '{self.gaps}'.")
        object.__setattr__(self, "splits", guarded(self.splits, self.guard))

    @property
    def opening(self) -> dict[str, Any]:
        """Further arguments of `data_pipelines.opening.datasets.open_dataset`."""
        return {}

    def prepare(self, progress: Progress | None = None) -> None:
        """Raise FileNotFoundError or ValueError if the files cannot be used; nothing is made."""
        self.dataset()

    def template(self) -> xr.Dataset:
        """Return the dataset, whose fields are read lazily."""
        return self.dataset()

    def dataset(self) -> xr.Dataset:
        """Open the files as one canonical dataset."""
        with options_under("data."):
            return self._dataset()

    def _dataset(self) -> xr.Dataset:
        stored = open_dataset(
            self.path,
            engine=self.engine,
            names=self.names,
            rename=self.rename,
            select=self.select,
            members=self.members,
            dates=self.dates,
            **self.opening,
        )
        if self.members and MEMBER not in stored.dims:
            origin = origin_of(stored)
            raise ValueError(
                f"data.members: no field of {origin} goes along '{self.members}'; leave data.members=null."
            )
        dataset = shaped(
            stored,
            units=self.units,
            masks=self.masks,
            fill=self.fill,
            derive=self.derive,
            levels=self.levels,
            lag=self.lag,
            timestep=self.timestep,
            area=self.area,
        )
        if "time" in dataset.dims:
            refuse_uneven(dataset, self.gaps)
        for name in self.ranges or ():
            if name not in dataset.data_vars:
                raise ValueError(f"ranges: no variable '{name}' in the data; {suggestion(name, dataset.data_vars)}")
        ranges = {name: list(bounds) for name, bounds in (self.ranges or {}).items()}
        return dataset.assign_attrs(ranges=json.dumps(ranges)) if ranges else dataset


def refuse_absent_step(times: np.ndarray, timestep: str, usual: np.timedelta64, origin: str) -> None:
    """Raise ValueError if no two times lie a declared timestep apart."""
    step = duration(timestep)
    if np.datetime_data(step)[0] != "M" and not np.isin(times + step, times).any():
        raise ValueError(
            f"{option('timestep')}: no two times of {origin} lie {timestep} apart; they lie {duration_text(usual)} "
            "apart: take that or a multiple of it."
        )


def refuse_uneven(dataset: xr.Dataset, rule: str) -> None:
    """Raise ValueError if times are uneven, or have gaps and `rule` refuses these."""
    times, origin = dataset["time"].values.astype("datetime64[s]"), origin_of(dataset)
    usual = spacing(times)
    if usual is None:
        return
    if "timestep" in dataset.attrs:
        refuse_absent_step(times, str(dataset.attrs["timestep"]), usual, origin)
    elif np.datetime_data(usual)[0] != "M":
        share = float((np.diff(times) == usual).mean())
        if share < USUAL:
            steps = np.diff(times).astype(np.int64) / 3600
            raise ValueError(
                f"Times in {origin} are uneven: steps of {steps.min():g} to {steps.max():g} h, the usual one only "
                f"{share:.0%} of them. Say the step of the emulator, such as timestep=1d; windows are then made where "
                "times lie that far apart."
            )
    broken = gaps(times)
    if rule == "refuse" and broken.size:
        raise ValueError(
            f"Times in {origin} have {broken.size} gap(s), the first from {times[broken[0]]} to "
            f"{times[broken[0] + 1]}; gaps=refuse allows none. Complete the data, or skip the windows: gaps=skip."
        )
