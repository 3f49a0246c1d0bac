"""What an emulator is told by another forecast in place of the data, of another emulator or of any other program.

A limited area is told what lies at its boundary:

    forcing x_at_boundary at initial time + lead  <-  x of the other forecast there, bilinear in space, linear in time

in the zone at the boundary, and the mean over it in the interior, of which it says nothing. The area's own data hold
the truth in the zone, which no forecast knows. Before the first lead of the other forecast lies what the data hold at
the initial time, which is known.

A component such as an ocean is told what forces it, by a forecast of the atmosphere from the same initial time:

    forcing x at initial time + lead  <-  x of the other forecast then, or its mean or sum over the timestep before
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.conventions.attributes import grid_of
from data_pipelines.conventions.canonical import LEAD, first_member
from data_pipelines.conventions.units import in_units
from data_pipelines.derived.forcings import MOVING
from data_pipelines.derived.regridding import regridded
from data_pipelines.derived.shaping import known_in_zone
from data_pipelines.forecasts.manifest import FILES, NAME, read_manifest
from data_pipelines.opening.forecasts import open_forecast
from emulators.grid import Grid, LatLonGrid, grid_dims
from emulators.state import State
from emulators.statistics.accumulation import Accumulation
from emulators.variables import Variable
from emulators.world import World

SUFFIX = "_at_boundary"


def prescribed_names(world: World) -> list[str]:
    """Return the forcings that are prescribed at a boundary; ValueError where there are none."""
    names = [name for name in world.forcing.names if name.endswith(SUFFIX)]
    if not names:
        raise ValueError(
            f"boundary: the emulator reads no forcings *{SUFFIX}, so that another forecast has nothing to tell it. "
            "Train on data with data.area.prescribe and constraint=[prescribed]."
        )
    return names


def store_of(path: str | Path) -> Path:
    """Return the store of a forecast from its folder, or from its own path."""
    return next((Path(path) / name for name in FILES if (Path(path) / name).exists()), Path(path))


def _zone(world: World) -> np.ndarray:
    """Return where the boundary is, bool (*grid)."""
    if "boundary_zone" not in world.static or world.static_fields is None:
        raise ValueError("boundary: expected boundary_zone among variables.static, which says where the boundary is.")
    return np.asarray(world.static_fields)[world.static.slice("boundary_zone").start] > 0.5


def driving_data(data: Mapping[str, Any], grid: Grid) -> dict[str, Any]:
    """Return the configuration of the data that an area is cut out of, whole and on the grid of what drives the area.

    data: configuration of the area's data, a LimitedArea or files with an `area`. ValueError where the grid is not one
    of rows and columns around the globe.
    """
    if not isinstance(grid, LatLonGrid) or not grid.is_global:
        raise ValueError(
            "boundary: expected a run on rows and columns around the globe, whose initial states can be made from the "
            f"area's data; got {grid}. Make its forecast first, and give that: boundary=outputs/forecast/..."
        )
    is_cut = data["_target_"] == "data_pipelines.sources.limited_area.LimitedArea"
    source = dict(data["source"]) if is_cut else {key: value for key, value in data.items() if key != "area"}
    name = f"{grid.shape[1]}x{grid.shape[0]}_{grid.kind}"
    return {"_target_": "data_pipelines.sources.regridded.Regridded", "source": source, "grid": name}


class ForecastBoundary:
    """Replace forcings at a boundary by fields of another forecast.

    path: of the forecast; of an ensemble the first member counts. ValueError where it lacks variables, levels, initial
    times or leads.
    """

    option = "boundary"

    def __init__(self, path: str | Path, world: World, inits: np.ndarray, steps: int) -> None:
        self.names, self.world, self.path = prescribed_names(world), world, store_of(path)
        dataset = first_member(open_forecast(self.path))
        inside = {name: name.removesuffix(SUFFIX) for name in self.names}
        if absent := [name for name in inside.values() if name not in dataset.data_vars]:
            raise ValueError(f"boundary: {self.path} has no {', '.join(absent)}, which are prescribed at the boundary.")
        refuse_other_times(self, dataset, inits, steps)
        fields = {name: on_levels(self, dataset[inside[name]], world.forcing.variable(name)) for name in self.names}
        zone, boundary = _zone(world), regridded(xr.Dataset(fields, attrs=dataset.attrs), world.grid, "bilinear")
        self.dataset = boundary.map(lambda field: known_in_zone(field, zone), keep_attrs=True)
        self.leads = dataset[LEAD].values.astype("timedelta64[s]").astype(np.int64)

    def prescribed(self, forcing: State, archive: Archive, inits: np.ndarray, lead: int) -> State:
        """Return the forcings of a lead, in timesteps, of forecasts from `inits`, with what lies at the boundary."""
        wanted = int(self.world.lead_time(lead) / np.timedelta64(1, "s"))
        after = int(np.searchsorted(self.leads, wanted))
        later = self._fields(inits, after)
        if self.leads[after] != wanted:
            start = 0 if after == 0 else int(self.leads[after - 1])
            first = archive.forcing(inits) if after == 0 else None
            earlier = self._fields(inits, after - 1) if first is None else {name: first[name] for name in self.names}
            share = (wanted - start) / (int(self.leads[after]) - start)
            later = {name: torch.lerp(earlier[name], later[name], share) for name in self.names}
        return forcing.with_(**{name: field.to(forcing.values.dtype) for name, field in later.items()})

    def _fields(self, inits: np.ndarray, lead: int) -> dict[str, torch.Tensor]:
        fields = self.dataset.isel({LEAD: lead}).sel(time=inits.astype("datetime64[ns]"))
        axes = grid_dims(self.world.grid)
        ordered = {name: fields[name].transpose("time", ..., *axes).values for name in self.names}
        return {name: torch.from_numpy(np.array(values, dtype=np.float32)) for name, values in ordered.items()}


class ForecastForcing:
    """Replace forcings by fields of another forecast, over the timestep before each lead.

    path: of the forecast; of an ensemble the first member counts. accumulated: as of `data_pipelines.sources.averaged`,
    what forcings are made of; others are those of the same name at each lead. What the other forecast does not have
    stays as in the data. ValueError where it has none of the forcings, or lacks levels, initial times or leads.
    """

    option = "forcing"

    def __init__(
        self, path: str | Path, world: World, inits: np.ndarray, steps: int, accumulated: Mapping[str, Any]
    ) -> None:
        self.world, self.path = world, store_of(path)
        dataset = first_member(open_forecast(self.path))
        self.rules = told_forcings(dataset, world, accumulated)
        self.names = [*self.rules]
        if not self.rules:
            raise ValueError(
                f"forcing: {self.path} tells none of the forcings {', '.join(world.forcing.names)}; it has "
                f"{', '.join(map(str, dataset.data_vars))}."
            )
        refuse_other_times(self, dataset, inits, steps)
        self.leads = dataset[LEAD].values.astype("timedelta64[s]")
        for lead in range(1, steps + 1):
            self._inside(lead)
        self.dataset = xr.Dataset({name: self._terms(dataset, name) for name in self.names}, attrs=dataset.attrs)
        if not grid_of(dataset).same_as(world.grid):
            self.dataset = regridded(self.dataset, world.grid, "conservative")

    def prescribed(self, forcing: State, archive: Archive, inits: np.ndarray, lead: int) -> State:
        """Return the forcings of a lead, in timesteps, of forecasts from `inits`."""
        inside, axes = self._inside(lead), grid_dims(self.world.grid)
        fields = self.dataset.isel({LEAD: inside}).sel(time=inits.astype("datetime64[ns]"))
        forcings = {}
        for name, rule in self.rules.items():
            field = fields[name].compute().transpose(LEAD, "time", ..., *axes)
            field = field[-1] if rule.over == "last" else field.mean(LEAD) if rule.over == "mean" else field.sum(LEAD)
            forcings[name] = torch.from_numpy(np.array(field.values)).to(forcing.values.dtype)
        return forcing.with_(**forcings)

    def _inside(self, lead: int) -> np.ndarray:
        """Return which leads lie in the timestep up to one; ValueError where they do not go through it evenly."""
        start, end = (self.world.lead_time(number).astype("timedelta64[s]") for number in (lead - 1, lead))
        inside = np.flatnonzero((self.leads > start) & (self.leads <= end))
        spans = np.diff(np.array([start, *self.leads[inside]]))
        if not inside.size or self.leads[inside[-1]] != end or (spans != spans[0]).any():
            first, length = (span / np.timedelta64(1, "h") for span in (self.leads[0], end - start))
            raise ValueError(
                f"forcing: expected leads of {self.path} that divide each timestep of {length:g} h evenly; got "
                f"{inside.size} up to {end / np.timedelta64(1, 'h'):g} h, where the first of all is {first:g} h."
            )
        return inside

    def _terms(self, dataset: xr.Dataset, name: str) -> xr.DataArray:
        """Return what is accumulated, in the units of the forcing, at its levels."""
        variable = self.world.forcing.variable(name)
        (first, factor), *others = self.rules[name].terms.items()
        if not others and factor == 1.0 and variable.units and dataset[first].attrs.get("units"):
            return on_levels(self, in_units(name, dataset[first], variable.units), variable)
        return on_levels(self, sum((f * dataset[term] for term, f in others), factor * dataset[first]), variable)


OtherForecast = ForecastBoundary | ForecastForcing


def told_forcings(dataset: xr.Dataset, world: World, accumulated: Mapping[str, Any]) -> dict[str, Accumulation]:
    """Return the forcings of a World that a forecast tells, and what they are made of."""
    rules = {
        name: Accumulation.declared(f"data.accumulated.{name}", accumulated.get(name, {"last": name}))
        for name in world.forcing.names
        if name not in MOVING
    }
    return {name: rule for name, rule in rules.items() if all(term in dataset.data_vars for term in rule.terms)}


def told_names(world: World, boundary: str | None, forcing: str | None, data: Mapping[str, Any]) -> list[str]:
    """Return the forcings that other forecasts tell, of which data need none after the initial time.

    data: configuration of the data. ValueError where both are given.
    """
    if boundary and forcing:
        raise ValueError("Expected one other forecast, as boundary or as forcing; got both: leave one of them null.")
    if forcing:
        return [*told_forcings(open_forecast(store_of(forcing)), world, data.get("accumulated", {}))]
    return prescribed_names(world) if boundary else []


def later_known(other: OtherForecast) -> list[str]:
    """Return a sentence where the other forecast itself was made with forcing that the future alone knows."""
    folder = other.path.parent if other.path.name in FILES else other.path
    marks = read_manifest(folder).get("marks", {}) if (folder / NAME).is_file() else {}
    names = ", ".join(other.names)
    return [f"{names}: of {other.path}, for which {line}" for line in marks.get("future_forcing", ())]


def refuse_other_times(other: OtherForecast, dataset: xr.Dataset, inits: np.ndarray, steps: int) -> None:
    """Raise ValueError where another forecast has other initial times, or ends too early."""
    times, leads = dataset["time"].values.astype("datetime64[s]"), dataset[LEAD].values
    late = inits[~np.isin(inits.astype("datetime64[s]"), times)]
    if late.size:
        raise ValueError(
            f"{other.option}: {other.path} has no forecast from {late[0]}; it has {len(times)} from {times[0]} to "
            f"{times[-1]}. Make it from the same initial times: init=..."
        )
    longest = other.world.lead_time(steps)
    if leads.max() < longest:
        got, expected = (x / np.timedelta64(1, "h") for x in (leads.max(), longest))
        raise ValueError(f"{other.option}: {other.path} ends at a lead of {got:g} h; expected {expected:g} h.")


def on_levels(other: OtherForecast, field: xr.DataArray, variable: Variable) -> xr.DataArray:
    """Return a field at the levels of a forcing; ValueError where one is missing."""
    if not variable.levels:
        return field
    held = field["level"].values.astype(float)
    if missing := [level for level in variable.levels if not np.isclose(held, level).any()]:
        raise ValueError(
            f"{other.option}: {other.path} has no {variable.name.removesuffix(SUFFIX)} at level {missing[0]:g}; its "
            f"levels are {', '.join(f'{level:g}' for level in held)}."
        )
    return field.isel(level=[int(np.abs(held - level).argmin()) for level in variable.levels])
