"""Open a climatology file by hour and day of the year."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from data_pipelines.conventions.attributes import channel_array, horizontal, level_index, on_grid, with_levels
from data_pipelines.conventions.canonical import canonical
from data_pipelines.conventions.dialects import variable_hint
from data_pipelines.opening.datasets import open_files
from emulators.grid import Grid
from emulators.variables import Variable, VariableSet


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
