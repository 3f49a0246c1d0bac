"""Forecasts to compare with, made or read for the initial times and leads of others: sampled years, other stores.

The probabilistic climatology has every year of a record as a member: the fields at the same day and hour of the year
(Rasp et al. 2024, arXiv 2308.15560). Where the day is the 366th and a member's year is ordinary, its 1 January of the
year after stands in (WeatherBench-X).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import xarray as xr

from data_pipelines.conventions.units import refuse_other_units
from data_pipelines.reading.stacking import channel_array, levels_of, on_grid
from data_pipelines.verification.pairs import Pair, Pairs
from data_pipelines.verification.truth import Reader
from emulators.state import State
from emulators.variables import Variable, VariableSet

Known = tuple[State, np.ndarray]  # a forecast, and which of a pair's initial times it is of (rows)


class SampledYears:
    """Every year of the truth's record as a member, for the valid times of `pairs`.

    years: first and last. Years in which the forecast itself has valid times are no members, nor are those that lack a
    field; `left_out` names them. ValueError where fewer than two remain. megabytes: of fields kept in memory.
    """

    def __init__(self, pairs: Pairs, years: Sequence[int], megabytes: float) -> None:
        self.pairs = pairs
        self.reader = Reader(pairs.truth.dataset, pairs.variables, megabytes)
        valid = np.unique(pairs.valid[pairs.index >= 0])
        own = set((valid.astype("datetime64[Y]").astype(int) + 1970).tolist())
        asked = range(int(years[0]), int(years[1]) + 1)
        whole = [year for year in asked if year not in own and (self.reader.find(_in_year(valid, year)) >= 0).all()]
        self.years, self.left_out = tuple(whole), tuple(year for year in asked if year not in whole)
        if len(whole) < 2:
            raise ValueError(
                f"A probabilistic climatology needs at least 2 years of truth that are not the forecast's own; of "
                f"{asked.start} to {asked.stop - 1} there are {len(whole)}: the truth runs from "
                f"{self.reader.times[0]} to {self.reader.times[-1]}."
            )

    def __call__(self, pair: Pair) -> Iterator[Known]:
        """The members (member, init, channel, lat, lon) for a few initial times of the pair after the other."""
        times = pair.target.time
        step = max(1, self.pairs.room * max(1, self.pairs.members) // len(self.years))
        for start in range(0, len(times), step):
            some = np.arange(start, min(start + step, len(times)))
            index = np.stack([self.reader.find(_in_year(times[some], year)) for year in self.years])
            values = self.reader.fields(index.ravel()).reshape(*index.shape, *pair.target.values.shape[1:])
            yield State(values, self.pairs.variables, times[some]), some


def _in_year(times: np.ndarray, year: int) -> np.ndarray:
    """The same day and hour of another year."""
    start = times.astype("datetime64[Y]").astype("datetime64[s]")
    return np.datetime64(str(year), "s") + (times - start)


class OtherForecast:
    """Another store of forecasts, for the initial times, leads and channels of `pairs`; what it lacks is NaN.

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
        there = (self._inits[:, None] >= 0) & (self._leads[None] >= 0)
        own = self.dataset["valid_time"].values.astype("datetime64[s]")[self._inits[:, None], self._leads[None]]
        self._there = there & (own == pairs.valid)
        self.lacking = int((~self._there & (pairs.index >= 0)).sum())
        if not (self._there & (pairs.index >= 0)).any():
            raise ValueError(f"{origin} has none of the initial times and leads that are scored.")

    def __call__(self, pair: Pair) -> Iterator[Known]:
        """Its forecasts of the pair's initial times and lead, ([member,] init, channel, lat, lon)."""
        rows = _positions(self.pairs.inits, pair.inits)
        known = np.flatnonzero(self._there[rows, pair.lead])
        if not known.size:
            return
        block = self.dataset.isel(time=self._inits[rows[known]], prediction_timedelta=int(self._leads[pair.lead]))
        lead = ("member", "time") if "member" in block.dims else ("time",)
        found = torch.from_numpy(channel_array(block, self.variables, lead))
        values = found
        if self.absent:
            shape = (*found.shape[:-3], self.pairs.variables.size, *found.shape[-2:])
            values = torch.full(shape, torch.nan, dtype=found.dtype).index_copy_(-3, self.places, found)
        yield State(values, self.pairs.variables, pair.target.time[known]), known


def _positions(have: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of `wanted` stands in `have`, -1 where it does not."""
    have = have.astype(wanted.dtype)
    order = np.argsort(have)
    at = order[np.searchsorted(have[order], wanted).clip(0, have.size - 1)]
    return np.where(have[at] == wanted, at, -1)


def _shared(dataset: xr.Dataset, wanted: VariableSet, origin: str) -> VariableSet:
    """Those of the wanted channels that the dataset has; ValueError where there is none."""
    found = []
    for variable in wanted:
        if variable.name not in dataset:
            continue
        have = levels_of(dataset[variable.name])
        if bool(have) != bool(variable.levels):
            continue
        refuse_other_units(variable.name, variable.units, str(dataset[variable.name].attrs.get("units", "")), origin)
        levels = tuple(x for x in variable.levels if np.isclose(np.array(have), x, rtol=1e-4, atol=0.0).any())
        if bool(levels) == bool(variable.levels):
            found.append(Variable(variable.name, variable.units, levels))
    if not found:
        raise ValueError(f"{origin} has none of the variables that are scored: {', '.join(wanted.channels[:10])}.")
    return VariableSet(tuple(found))
