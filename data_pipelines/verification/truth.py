"""Read truth and climatology at valid times, through a cache of fields."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.conventions.durations import nearest_positions, spacing
from data_pipelines.conventions.periods import bounds
from data_pipelines.conventions.valid_times import month_starts
from data_pipelines.reading.fields import Fields
from data_pipelines.reading.stacking import channel_array, level_index
from data_pipelines.reading.zarr_chunks import as_slice
from emulators.state import State
from emulators.statistics.harmonic_climatology import HarmonicClimatology
from emulators.variables import VariableSet

SAMPLES = 4000  # fields that a climatology is fitted to


class FieldCache:
    """Cache fields by key, least recently used first out.

    make(keys): makes fields (key, ...) that are not in memory. room: number of fields that are kept.
    """

    def __init__(self, make: Callable[[np.ndarray], np.ndarray], room: int) -> None:
        self.make, self.room = make, max(1, room)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def prefetch(self, keys: np.ndarray) -> None:
        """Make the fields of `keys` that are not in memory, in one call."""
        absent = np.array(sorted({int(key) for key in keys} - set(self._kept)), dtype=np.int64)
        if absent.size:
            self._kept.update(zip(absent.tolist(), self.make(absent), strict=True))

    def __call__(self, keys: np.ndarray) -> torch.Tensor:
        """The fields of `keys`, shape (key, ...), not to be written to."""
        self.prefetch(keys)
        fields = []
        for key in keys.tolist():
            self._kept.move_to_end(key)
            fields.append(self._kept[key])
        while len(self._kept) > self.room:
            self._kept.popitem(last=False)
        return torch.from_numpy(fields[0][None] if len(fields) == 1 else np.stack(fields))


class Reader:
    """Read the States of a canonical dataset by time, through a cache.

    megabytes: of the most recently used fields that are kept in memory. Fields of float32 are read by the same `Fields`
    as those of training, wider ones through xarray.
    """

    def __init__(self, dataset: xr.Dataset, variables: VariableSet, megabytes: float = 1024) -> None:
        self.dataset, self.variables = dataset, variables
        self.times = dataset["time"].values.astype("datetime64[s]")
        step = spacing(self.times)
        months = step is not None and np.datetime_data(step)[0] == "M"
        self.tolerance = np.diff(self.times).min() / 10 if months else np.timedelta64(0, "s")
        field = 4 * variables.size * dataset.sizes["latitude"] * dataset.sizes["longitude"]
        self.fields = FieldCache(self.load, int(megabytes * 2**20 / field))
        self._direct = _direct_fields(dataset, variables)

    def load(self, index: np.ndarray) -> np.ndarray:
        """The fields at the ascending times of `index`, past the cache; (time, channel, lat, lon)."""
        if self._direct is None:
            return channel_array(self.dataset.isel(time=as_slice(index)), self.variables, ("time",))
        values = np.empty((index.size, self.variables.size, *self._direct.grid.shape), dtype=np.float32)
        self._direct.read(index, values)
        return values

    def find(self, times: np.ndarray) -> np.ndarray:
        """The index of each time, -1 where it does not exist; in monthly and yearly series, whose steps are uneven, of
        the nearest time where it lies within a tenth of a step."""
        if self.tolerance > 0:  # dated by the first or the last day, one month is the same month
            return nearest_positions(month_starts(self.times), month_starts(times), self.tolerance)
        return nearest_positions(self.times, times, self.tolerance)

    def read(self, index: np.ndarray) -> State:
        """The State at the times of `index`, shape (time, channel, lat, lon)."""
        return State(self.fields(index), self.variables, self.times[index])


def _direct_fields(dataset: xr.Dataset, variables: VariableSet) -> Fields | None:
    """Fields that read `variables` as they are stored; None where they are wider than float32 or in another order."""
    stored = []
    for variable in variables:
        field = dataset[variable.name]
        level = ("level",) if variable.levels else ()
        if field.dims != ("time", *level, "latitude", "longitude") or np.result_type(field.dtype, "f4") != np.float32:
            return None
        levels = field["level"].values[level_index(field["level"].values, variable.levels)] if level else ()
        stored.append(replace(variable, levels=tuple(float(value) for value in levels)))
    return Fields(dataset, VariableSet(tuple(stored)), grid_of(dataset))


class CachedClimatology:
    """Cache the fields of a climatology, times -> (time, channel, lat, lon).

    climatology(times, *name): gives the mean, or the field of that name. room: number of fields that are kept. further:
    names besides the mean, such as `quantile_0.9`.
    """

    def __init__(self, climatology: Callable[..., torch.Tensor], room: int, further: Sequence[str] = ()) -> None:
        def latest(*name: str) -> FieldCache:
            return FieldCache(
                lambda s: climatology(s.astype("datetime64[s]"), *name).numpy(), room // (1 + len(further))
            )

        self._fields = {"mean": latest(), **{name: latest(name) for name in further}}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its fields: `mean` and the further ones."""
        return tuple(self._fields)

    def __call__(self, times: np.ndarray) -> torch.Tensor:
        """The mean at `times`."""
        return self._fields["mean"](np.asarray(times, dtype="datetime64[s]").astype(np.int64))

    def named(self, times: np.ndarray) -> dict[str, torch.Tensor]:
        """The mean and the further fields at `times`, by name."""
        seconds = np.asarray(times, dtype="datetime64[s]").astype(np.int64)
        return {name: fields(seconds) for name, fields in self._fields.items()}


def fit_climatology(truth: Reader, period: Sequence[str | int], room: int) -> tuple[CachedClimatology, str]:
    """Fit harmonics of the year and the day to the truth in a period; the climatology, and a phrase that describes it.

    room: number of fields that are read, and later kept in memory, at a time. At most `SAMPLES` fields are read.
    """
    first, last = bounds(period)
    index = np.flatnonzero((truth.times >= first) & (truth.times <= last))
    step = -(-index.size // SAMPLES) | 1  # odd, so that every hour of the day comes round
    index = index[::step]
    has_year = index.size and truth.times[index[-1]] - truth.times[index[0]] > np.timedelta64(330, "D")
    timestep = spacing(truth.times) or np.timedelta64(1, "D")
    fitted = HarmonicClimatology.for_timestep(timestep, annual=2 if has_year else 0)  # no cycle from a part of it
    block = max(1, min(64, room))
    for start in range(0, index.size, block):
        some = index[start : start + block]
        fields = truth.load(some)
        absent = np.isnan(fields).all(axis=(-2, -1))
        known = ~absent[:, ~absent.all(axis=0)].any(axis=1)  # sums are not known where the data begin
        fitted.accumulate(truth.times[some][known], fields[known])
    kind = (
        f"{fitted.annual} harmonics of the year and {fitted.diurnal} of the day, fitted to {index.size} fields of the "
        f"training period {period[0]} to {period[1]}"
    )
    return CachedClimatology(fitted.solve().evaluate, room), kind
