"""What a limited area is told at its boundary by another forecast, of a global emulator or of any other program.

    forcing x_at_boundary at initial time + lead  <-  x of the other forecast there, bilinear in space, linear in time

in the zone at the boundary, and the mean over it in the interior, of which it says nothing. The area's own data hold
the truth in the zone, which no forecast knows. Before the first lead of the other forecast lies what the data hold at
the initial time, which is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.conventions.canonical import LEAD, first_member
from data_pipelines.derived.regridding import regridded
from data_pipelines.derived.shaping import known_in_zone
from data_pipelines.forecasts.manifest import FILES
from data_pipelines.opening.forecasts import open_forecast
from emulators.grid import Grid, LatLonGrid, grid_dims
from emulators.state import State
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
    """Replace forcings by fields of another forecast.

    path: of the forecast; of an ensemble the first member counts. ValueError where it lacks variables, levels, initial
    times or leads.
    """

    def __init__(self, path: str | Path, world: World, inits: np.ndarray, steps: int) -> None:
        self.names, self.world, self.path = prescribed_names(world), world, store_of(path)
        dataset = first_member(open_forecast(self.path))
        inside = {name: name.removesuffix(SUFFIX) for name in self.names}
        self._refuse_absent(dataset, [*inside.values()], inits, steps)
        fields = {name: self._levels(dataset[inside[name]], world.forcing.variable(name)) for name in self.names}
        zone, told = _zone(world), regridded(xr.Dataset(fields, attrs=dataset.attrs), world.grid, "bilinear")
        self.dataset = told.map(lambda field: known_in_zone(field, zone), keep_attrs=True)
        self.leads = dataset[LEAD].values.astype("timedelta64[s]").astype(np.int64)

    def prescribed(self, forcing: State, archive: Archive, inits: np.ndarray, lead: int) -> State:
        """Return the forcings of a lead, in timesteps, of forecasts from `inits`, with what lies at the boundary."""
        wanted = int(self.world.lead_time(lead) / np.timedelta64(1, "s"))
        after = int(np.searchsorted(self.leads, wanted))
        later = self._fields(inits, after)
        if self.leads[after] != wanted:
            start = 0 if after == 0 else int(self.leads[after - 1])
            known = archive.forcing(inits) if after == 0 else None
            earlier = self._fields(inits, after - 1) if known is None else {name: known[name] for name in self.names}
            share = (wanted - start) / (int(self.leads[after]) - start)
            later = {name: torch.lerp(earlier[name], later[name], share) for name in self.names}
        return forcing.with_(**{name: field.to(forcing.values.dtype) for name, field in later.items()})

    def _fields(self, inits: np.ndarray, lead: int) -> dict[str, torch.Tensor]:
        found = self.dataset.isel({LEAD: lead}).sel(time=inits.astype("datetime64[ns]"))
        axes = grid_dims(self.world.grid)
        ordered = {name: found[name].transpose("time", ..., *axes).values for name in self.names}
        return {name: torch.from_numpy(np.array(values, dtype=np.float32)) for name, values in ordered.items()}

    def _levels(self, field: xr.DataArray, variable: Variable) -> xr.DataArray:
        if not variable.levels:
            return field
        held = field["level"].values.astype(float)
        if missing := [level for level in variable.levels if not np.isclose(held, level).any()]:
            raise ValueError(
                f"boundary: {self.path} has no {variable.name.removesuffix(SUFFIX)} at level {missing[0]:g}; its "
                f"levels are {', '.join(f'{level:g}' for level in held)}."
            )
        return field.isel(level=[int(np.abs(held - level).argmin()) for level in variable.levels])

    def _refuse_absent(self, dataset: xr.Dataset, names: Sequence[str], inits: np.ndarray, steps: int) -> None:
        if absent := [name for name in names if name not in dataset.data_vars]:
            raise ValueError(f"boundary: {self.path} has no {', '.join(absent)}, which are prescribed at the boundary.")
        times, leads = dataset["time"].values.astype("datetime64[s]"), dataset[LEAD].values
        late = inits[~np.isin(inits.astype("datetime64[s]"), times)]
        if late.size:
            raise ValueError(
                f"boundary: {self.path} has no forecast from {late[0]}; it has {len(times)} from {times[0]} to "
                f"{times[-1]}. Make it from the same initial times: init=..."
            )
        if leads.max() < self.world.lead_time(steps):
            raise ValueError(
                f"boundary: {self.path} ends at a lead of {leads.max() / np.timedelta64(1, 'h'):g} h; expected "
                f"{self.world.lead_time(steps) / np.timedelta64(1, 'h'):g} h."
            )
