"""Reference forecasts for given pairs: persistence, climatology, sampled years, and forecasts in other stores.

The climatology, of which anomalies are departures too, is that of a file or is fitted to the truth.

The probabilistic climatology has every year of a record as a member: the fields at the same day and hour of the year
(Rasp et al. 2024, arXiv 2308.15560). Where the day is the 366th and a member's year is ordinary, its 1 January of the
year after stands in (WeatherBench-X).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.conventions.attributes import (
    channel_array,
    horizontal,
    level_index,
    levels_of,
    on_grid,
    with_levels,
)
from data_pipelines.conventions.canonical import canonical
from data_pipelines.conventions.dialects import variable_hint
from data_pipelines.conventions.durations import bounds
from data_pipelines.conventions.units import refuse_other_units
from data_pipelines.forecasts.manifest import FILES
from data_pipelines.opening.datasets import open_files
from data_pipelines.opening.forecasts import open_forecast
from data_pipelines.verification.pairs import CachedClimatology, Pairs, Reader, fit_climatology
from data_pipelines.verification.score_files import StoredForecast, read_forecasts
from emulators.grid import Grid
from emulators.scores.interfaces import Pair, Reference
from emulators.state import State
from emulators.variables import Variable, VariableSet

SAMPLED = "probabilistic_climatology"
PERFECT = "perfect_model"  # the ensemble of a simulated truth itself
NAMES = ("persistence", "climatology", SAMPLED, PERFECT)
RESERVED = ("forecast", "truth", "persistence", "climatology", "predictability", "saturation")  # lines of the report
Known = tuple[State, np.ndarray]  # a forecast, and which of a pair's initial times it is of (rows)


class ClimatologyFile:
    """Read a climatology, stored by hour and day of the year (1..366, 1 March is 60 or 61), by valid time.

    Beside the mean, named as the variables: `<variable>_std`, `_quantile` (dimension quantile), `_seeps_threshold` and
    `_seeps_dry_fraction`, as WeatherBench 2 names them. lacking: variables that it does not have, whose fields are NaN.
    """

    def __init__(self, path: str | Path, variables: VariableSet, grid: Grid, **options: Any) -> None:
        (raw,) = open_files(path, **options)
        origin = str(raw.attrs["origin"])
        for dim in ("hour", "dayofyear"):
            if dim not in raw.dims or dim not in raw.variables:
                raise ValueError(
                    f"{origin} is no climatology: expected dimensions hour and dayofyear; got "
                    f"{', '.join(map(str, raw.dims))}."
                )
        keep = tuple(dim for dim in ("hour", "dayofyear", "quantile") if dim in raw.dims)
        self.dataset = on_grid(with_levels(canonical(raw, keep=keep)), grid)
        self.origin, self.variables = origin, variables
        self.lacking = tuple(variable.name for variable in variables if variable.name not in self.dataset)
        if len(self.lacking) == len(variables.names):
            hint = variable_hint(self.lacking[0], self.dataset.data_vars)
            raise ValueError(f"The climatology {origin} lacks {', '.join(self.lacking)}; {hint}")
        for variable in variables:
            if variable.levels and variable.name not in self.lacking:
                level_index(self.dataset["level"].values, variable.levels)
        self.hours, self.days = self.dataset["hour"].values, self.dataset["dayofyear"].values
        self._named: dict[str, xr.Dataset] = {}

    def __call__(self, times: np.ndarray, name: str = "mean") -> torch.Tensor:
        """Return the fields at `times`, float32 or wider, (time, channel, lat, lon); NaN for variables without any.

        name: mean, std, quantile_<q>, seeps_threshold or seeps_dry_share; KeyError where no variable has it.
        """
        if name not in self._named:
            self._named[name] = self._fields(name)
        times = np.asarray(times, dtype="datetime64[s]")
        day = (times.astype("datetime64[D]") - times.astype("datetime64[Y]").astype("datetime64[D]")).astype(int) + 1
        hour = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "h")
        rows = np.searchsorted(self.hours, hour).clip(0, len(self.hours) - 1)
        columns = np.searchsorted(self.days, day).clip(0, len(self.days) - 1)
        absent = np.flatnonzero((self.hours[rows] != hour) | (self.days[columns] != day))
        if absent.size:
            raise ValueError(
                f"The climatology {self.origin} has no field for {times[absent[0]]}: it holds hours "
                f"{', '.join(map(str, self.hours))} of days {self.days.min()} to {self.days.max()} of the year."
            )
        hours, row = np.unique(rows, return_inverse=True)
        days, column = np.unique(columns, return_inverse=True)
        fields = self._named[name]
        fields = fields.isel({d: i for d, i in (("hour", hours), ("dayofyear", days)) if d in fields.dims})
        if name == "seeps_dry_share":
            return torch.from_numpy(channel_array(fields, self.variables, ())).expand(len(times), -1, -1, -1)
        return torch.from_numpy(channel_array(fields, self.variables, ("hour", "dayofyear"))[row, column])

    def has(self, name: str) -> bool:
        """Return whether any variable has the fields called `name`."""
        return any(self._field(variable.name, name) is not None for variable in self.variables)

    def _fields(self, name: str) -> xr.Dataset:
        """The fields called `name` of all variables, under the variables' own names."""
        if not self.has(name):
            raise KeyError(f"The climatology {self.origin} has no {name} of any variable that is scored.")
        fields = {}
        for variable in self.variables:
            field = self._field(variable.name, name)
            if field is None:
                field = self._nothing(variable, () if name == "seeps_dry_share" else ("hour", "dayofyear"))
            fields[variable.name] = field
        return xr.Dataset(fields)

    def _nothing(self, variable: Variable, lead: tuple[str, ...]) -> xr.DataArray:
        """NaN in place of fields that the climatology does not have."""
        stored = self.dataset["level"].values if "level" in self.dataset.dims else ()
        levels = {"level": np.union1d(stored, variable.levels)} if variable.levels else {}
        dims = (*lead, *levels, *horizontal(self.dataset))
        shape = [len(levels[dim]) if dim in levels else self.dataset.sizes[dim] for dim in dims]
        return xr.DataArray(np.broadcast_to(np.float32(np.nan), shape), levels, dims)

    def _field(self, variable: str, name: str) -> xr.DataArray | None:
        """One variable's fields called `name`; None where the climatology has none."""
        if name.startswith("quantile_"):
            stored = self.dataset.get(f"{variable}_quantile")
            if stored is None:
                return None
            distance = np.abs(stored["quantile"].values - float(name.removeprefix("quantile_")))
            return stored.isel(quantile=int(distance.argmin()), drop=True) if distance.min() <= 0.01 else None
        if name == "seeps_dry_share":  # one number a point: how often it is dry, all year
            stored = self.dataset.get(f"{variable}_seeps_dry_fraction")
            if stored is None:
                return None
            hours = [stored.isel(hour=i).astype(np.float64) for i in range(len(self.hours))]  # one in memory at a time
            return xr.concat([hour.mean("dayofyear").compute() for hour in hours], "hour").mean("hour")
        return self.dataset.get(variable if name == "mean" else f"{variable}_{name}")


def climatology_of(
    path: str | Path | None, pairs: Pairs, period: Sequence[str] | None, metrics: Mapping[str, Any]
) -> tuple[CachedClimatology | None, str]:
    """The climatology at valid times, of the file at `path`, else fitted to a period of the truth; words for it.

    None, "none" where neither is given. metrics: what they need beside the mean is read from the file where it has it.
    """
    if path is not None:
        file = ClimatologyFile(str(path), pairs.variables, pairs.grid)
        needed = dict.fromkeys(need for metric in metrics.values() for need in metric.needs if need != "mean")
        without = f", without {', '.join(file.lacking)}" if file.lacking else ""
        return CachedClimatology(file, pairs.room, [need for need in needed if file.has(need)]), f"{path}{without}"
    return (None, "none") if period is None else fit_climatology(pairs.truth, period, pairs.room)


class SampledYears:
    """Forecast by the years of the truth's record as members, for the valid times of `pairs`.

    years: first and last. Years in which the forecast itself has valid times are no members, nor are those that lack a
    field; `left_out` names them. ValueError where fewer than two remain. megabytes: of fields kept in memory.
    """

    def __init__(self, pairs: Pairs, years: Sequence[int], megabytes: float) -> None:
        self.pairs = pairs
        self.reader = Reader(pairs.truth.dataset, pairs.variables, megabytes)
        valid = np.unique(pairs.valid[pairs.index >= 0])
        forecast_years = set((valid.astype("datetime64[Y]").astype(int) + 1970).tolist())
        requested = range(int(years[0]), int(years[1]) + 1)
        complete = [
            year
            for year in requested
            if year not in forecast_years and (self.reader.find(_in_year(valid, year)) >= 0).all()
        ]
        self.years, self.left_out = tuple(complete), tuple(year for year in requested if year not in complete)
        if len(complete) < 2:
            raise ValueError(
                f"A probabilistic climatology needs at least 2 years of truth that are not the forecast's own; of "
                f"{requested.start} to {requested.stop - 1} there are {len(complete)}: the truth runs from "
                f"{self.reader.times[0]} to {self.reader.times[-1]}."
            )

    def __call__(self, pair: Pair) -> Iterator[Known]:
        """The members (member, init, channel, lat, lon) for a few initial times of the pair after the other."""
        times = pair.target.time
        step = max(1, self.pairs.room * max(1, self.pairs.members) // len(self.years))
        for start in range(0, len(times), step):
            positions = np.arange(start, min(start + step, len(times)))
            index = np.stack([self.reader.find(_in_year(times[positions], year)) for year in self.years])
            values = self.reader.fields(index.ravel()).reshape(*index.shape, *pair.target.values.shape[1:])
            yield State(values, self.pairs.variables, times[positions], pair.target.rank), positions


def _in_year(times: np.ndarray, year: int) -> np.ndarray:
    """The same day and hour of another year."""
    start = times.astype("datetime64[Y]").astype("datetime64[s]")
    return np.datetime64(str(year), "s") + (times - start)


class StoredReference:
    """Read another store of forecasts at the initial times, leads and channels of `pairs`; NaN where it lacks one.

    lacking: how many of the pairs of initial time and lead it does not have. absent: channels that it does not have.
    """

    def __init__(self, forecast: xr.Dataset, pairs: Pairs, origin: str) -> None:
        self.pairs, self.dataset = pairs, on_grid(forecast, pairs.grid)
        self.variables = _shared(self.dataset, pairs.variables, origin)
        channels = pairs.variables.channels
        self.places = torch.tensor([channels.index(channel) for channel in self.variables.channels])
        self.absent = tuple(channel for channel in channels if channel not in self.variables.channels)
        self._inits = _positions(self.dataset["time"].values, pairs.inits)
        self._leads = _positions(self.dataset["prediction_timedelta"].values, pairs.leads)
        stored = (self._inits[:, None] >= 0) & (self._leads[None] >= 0)
        valid = self.dataset["valid_time"].values.astype("datetime64[s]")[self._inits[:, None], self._leads[None]]
        self._there = stored & (valid == pairs.valid)
        self.lacking = int((~self._there & (pairs.index >= 0)).sum())
        if not (self._there & (pairs.index >= 0)).any():
            raise ValueError(f"{origin} has none of the initial times and leads that are scored.")

    def __call__(self, pair: Pair) -> Iterator[Known]:
        """Its forecasts of the pair's initial times and lead, ([member,] init, channel, lat, lon)."""
        rows = _positions(self.pairs.inits, pair.inits)
        present = np.flatnonzero(self._there[rows, pair.lead])
        if not present.size:
            return
        block = self.dataset.isel(time=self._inits[rows[present]], prediction_timedelta=int(self._leads[pair.lead]))
        lead = ("member", "time") if "member" in block.dims else ("time",)
        stored = torch.from_numpy(channel_array(block, self.variables, lead))
        values = stored
        if self.absent:
            rank = pair.target.rank
            axis = stored.ndim - 1 - rank
            shape = (*stored.shape[:axis], self.pairs.variables.size, *stored.shape[axis + 1 :])
            values = torch.full(shape, torch.nan, dtype=stored.dtype).index_copy_(axis, self.places, stored)
        yield State(values, self.pairs.variables, pair.target.time[present], pair.target.rank), present


def _positions(have: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The position of each of `wanted` in `have`, -1 where it is absent."""
    have = have.astype(wanted.dtype)
    order = np.argsort(have)
    at = order[np.searchsorted(have[order], wanted).clip(0, have.size - 1)]
    return np.where(have[at] == wanted, at, -1)


def _shared(dataset: xr.Dataset, wanted: VariableSet, origin: str) -> VariableSet:
    """The wanted channels that the dataset has; ValueError where there is none."""
    shared = []
    for variable in wanted:
        if variable.name not in dataset:
            continue
        stored_levels = levels_of(dataset[variable.name])
        if bool(stored_levels) != bool(variable.levels):
            continue
        refuse_other_units(variable.name, variable.units, str(dataset[variable.name].attrs.get("units", "")), origin)
        levels = tuple(x for x in variable.levels if np.isclose(np.array(stored_levels), x, rtol=1e-4, atol=0.0).any())
        if bool(levels) == bool(variable.levels):
            shared.append(Variable(variable.name, variable.units, levels))
    if not shared:
        raise ValueError(f"{origin} has none of the variables that are scored: {', '.join(wanted.channels[:10])}.")
    return VariableSet(tuple(shared))


def named_references(entries: Sequence[Any]) -> dict[str, str | None]:
    """Map each reference forecast to its store, None for built-in ones; ValueError for an unknown entry."""
    stores: dict[str, str | None] = {}
    for entry in entries:
        for name, path in ({entry: None} if isinstance(entry, str) else dict(entry)).items():
            is_valid = name in NAMES if path is None else re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", str(name))
            if not is_valid or (path is not None and name in (*RESERVED, SAMPLED)):
                raise ValueError(
                    f"baselines: expected some of {', '.join(NAMES)}, or other forecasts by a name of their own, such "
                    f"as {{hres: hres.zarr}}; got {name}{'' if path is None else f': {path}'}."
                )
            stores[str(name)] = None if path is None else str(path)
    return stores


def reference_forecasts(
    entries: Sequence[Any],
    pairs: Pairs,
    metrics: Mapping[str, Any],
    climatology: CachedClimatology | None,
    years: tuple[int, int] | None,
    megabytes: float,
    strict: bool = True,
) -> tuple[dict[str, Reference], list[str]]:
    """The reference forecasts of `pairs` by name, and notes on what they lack.

    entries: built-in names, or {name: store} of other forecasts. years: first and last that a probabilistic
    climatology samples. megabytes: of its fields kept in memory. strict: raise ValueError where the truth lacks these
    years, in place of a note.
    """
    references: dict[str, Reference] = {}
    notes: list[str] = []
    single = {name: metric for name, metric in metrics.items() if metric.members < 2}
    absolute = {name: metric for name, metric in single.items() if not metric.needs}
    for name, path in named_references(entries).items():
        if path is not None:
            stored = StoredReference(open_forecast(_store(path)), pairs, f"The baseline {name} ({path})")
            references[name] = Reference(metrics, _of_pair(stored))
            notes += _lacking(name, stored, pairs)
        elif name == "persistence" and single:
            references[name] = Reference(single, _persistence)
            if (pairs.starts < 0).any():
                missing = int((pairs.starts < 0).sum())
                notes.append(f"Persistence lacks the truth at {missing} of {len(pairs.inits)} initial times.")
        elif name == "climatology" and absolute and climatology is not None:
            references[name] = Reference(absolute, _climatology)
        elif name == SAMPLED and years is None:
            notes.append(f"{SAMPLED} left out: no training period is known; give sampled_years=[1990,2019].")
        elif name == SAMPLED and years is not None:
            try:
                sampled = SampledYears(pairs, years, megabytes)
            except ValueError as error:
                if strict:
                    raise
                notes.append(f"{SAMPLED} left out: {error}")
                continue
            references[name] = Reference(metrics, _of_pair(sampled))
            if sampled.left_out:
                left_out = ", ".join(map(str, sampled.left_out[:4])) + (", ..." if len(sampled.left_out) > 4 else "")
                notes.append(
                    f"{SAMPLED} has {len(sampled.years)} members; {left_out} are the forecast's own or lack a field."
                )
    return references, notes


def sampled_years(asked: Any, splits: Mapping[str, Any]) -> tuple[int, int] | None:
    """First and last year asked for, else those of the training period."""
    if asked is None and splits.get("train") is None:
        return None
    period = bounds([str(year) for year in (splits["train"] if asked is None else asked)])
    first, last = (int(time.astype("datetime64[Y]").astype(int)) + 1970 for time in period)
    return first, last


def _of_pair(source: SampledYears | StoredReference) -> Callable[[Pair, Mapping[str, Tensor]], Iterator[Known]]:
    return lambda pair, normal: source(pair)


def _persistence(pair: Pair, normal: Mapping[str, Tensor]) -> Iterator[Known]:
    if pair.start is not None:
        yield pair.start, np.flatnonzero(pair.known)


def _climatology(pair: Pair, normal: Mapping[str, Tensor]) -> Iterator[Known]:
    yield replace(pair.target, values=normal["mean"]), np.arange(len(pair.inits))


def _store(path: str) -> Path | str:
    """The store in the folder of a forecast, or what is named itself."""
    inside = [Path(path) / name for name in FILES if "://" not in path and (Path(path) / name).exists()]
    return inside[0] if inside else path


def _lacking(name: str, other: StoredReference, pairs: Pairs) -> list[str]:
    notes = []
    if other.lacking:
        notes.append(f"{name} lacks {other.lacking} of the {pairs.total} pairs of initial time and lead.")
    if other.absent:
        notes.append(f"{name} lacks {', '.join(other.absent[:8])}{' and more' if len(other.absent) > 8 else ''}.")
    return notes


def forecasts_beside(folders: Mapping[Any, Any]) -> dict[str, StoredForecast]:
    """Other forecasts to draw beside, by name; ValueError for a name that the report uses itself."""
    for name in map(str, folders):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or name in RESERVED:
            raise ValueError(f"beside: a name is of letters and digits, none of {', '.join(RESERVED)}; got '{name}'.")
    return read_forecasts({str(name): Path(folder) for name, folder in folders.items()})
