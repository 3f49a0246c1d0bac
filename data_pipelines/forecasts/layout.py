"""The WeatherBench 2 layout of a forecast: (time[, number], prediction_timedelta[, level], latitude, longitude).

Fields on a set of cells have the dimension `cell` in place of the last two, with latitude and longitude beside it.
`time` is the initial time, `number` the member of an ensemble; `valid_time` = `time` + `prediction_timedelta` is
written beside them (Rasp et al. 2024, arXiv 2308.15560; CF conventions 1.11).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.cells import grid_attributes
from data_pipelines.conventions.durations import duration_text
from emulators.grid import grid_coordinates, grid_dims
from emulators.state import State
from emulators.variables import Variable
from emulators.world import World

STANDARD_NAMES = {
    "temperature": "air_temperature",
    "2m_temperature": "air_temperature",
    "u_component_of_wind": "eastward_wind",
    "v_component_of_wind": "northward_wind",
    "10m_u_component_of_wind": "eastward_wind",
    "10m_v_component_of_wind": "northward_wind",
    "vertical_velocity": "lagrangian_tendency_of_air_pressure",
    "specific_humidity": "specific_humidity",
    "geopotential": "geopotential",
    "geopotential_height": "geopotential_height",
    "surface_pressure": "surface_air_pressure",
    "mean_sea_level_pressure": "air_pressure_at_mean_sea_level",
    "sea_surface_temperature": "sea_surface_temperature",
    "total_column_water_vapour": "atmosphere_mass_content_of_water_vapor",
}
LEVELS: dict[str, dict[str, Any]] = {
    "pressure": {"long_name": "pressure", "standard_name": "air_pressure", "units": "hPa", "positive": "down"},
    "sigma": {"long_name": "sigma level", "positive": "down"},
    "hybrid": {"long_name": "hybrid level", "positive": "down"},
    "height": {"long_name": "height or depth", "units": "m"},
    "none": {"long_name": "level"},
}


@dataclass(frozen=True, eq=False)
class Layout:
    """Define the shape, coordinates and chunks of one forecast.

    inits: initial times, datetime64[s], shape (init,). steps: number of leads, each one timestep of `world`.
    batch: initial times a chunk. block: leads a chunk. attributes: of the whole file. members: of an ensemble; 0: none.
    member_batch: members a chunk; 0: all.
    """

    world: World
    inits: np.ndarray
    steps: int
    batch: int
    block: int = 1
    attributes: Mapping[str, str] = field(default_factory=dict)
    members: int = 0
    member_batch: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "inits", np.asarray(self.inits, dtype="datetime64[s]"))
        if self.inits.size < 1 or self.steps < 1 or self.batch < 1 or self.block < 1:
            raise ValueError(
                "A forecast needs at least one initial time, one step, and chunks of one; got "
                f"{self.inits.size} initial times, {self.steps} steps, chunks of {self.batch} x {self.block}."
            )

    @cached_property
    def leads(self) -> np.ndarray:
        """Nominal lead times, timedelta64[s], shape (lead,)."""
        return np.array([self.world.lead_time(n) for n in range(1, self.steps + 1)], dtype="timedelta64[s]")

    @property
    def valid_times(self) -> np.ndarray:
        """Calendar times of the forecasts, datetime64[s], shape (init, lead)."""
        return np.stack([self.world.after(self.inits, n) for n in range(1, self.steps + 1)], axis=1)

    @property
    def batches(self) -> list[slice]:
        """The initial times of each batch."""
        count = self.inits.size
        return [slice(start, min(start + self.batch, count)) for start in range(0, count, self.batch)]

    @property
    def is_grouped(self) -> bool:
        """Whether the members of an initial time are made in several groups."""
        return 0 < self.member_batch < self.members

    @cached_property
    def groups(self) -> list[range]:
        """The numbers of the members that are rolled out together; one empty group without an ensemble."""
        size = self.member_batch if self.is_grouped else max(1, self.members)
        return [range(first, min(first + size, self.members)) for first in range(0, max(1, self.members), size)]

    @cached_property
    def pieces(self) -> list[tuple[slice, range]]:
        """The units of work: each batch of initial times with each group of members, by batch."""
        return [(rows, members) for rows in self.batches for members in self.groups]

    @cached_property
    def levels(self) -> np.ndarray:
        """The levels of all variables, each once, in the order in which they appear."""
        levels = dict.fromkeys(level for variable in self.world.predicted for level in variable.levels)
        values = np.array(list(levels), dtype=np.float64)
        several = len({variable.levels for variable in self.world.predicted if variable.levels}) > 1
        values = np.sort(values) if several else values
        return values.astype(np.int64) if values.size and (values == values.round()).all() else values

    def level_positions(self, variable: Variable) -> np.ndarray | slice:
        """The positions of the levels of `variable` among all levels."""
        return slice(None) if tuple(self.levels) == variable.levels else np.searchsorted(self.levels, variable.levels)

    def dims(self, variable: Variable) -> tuple[str, ...]:
        """The names of the dimensions of `variable`."""
        number = ("number",) if self.members else ()
        level = ("level",) if variable.levels else ()
        return ("time", *number, "prediction_timedelta", *level, *grid_dims(self.world.grid))

    @property
    def ensemble(self) -> tuple[int, ...]:
        """The lengths of the dimensions between initial time and lead: how many members, or nothing."""
        return (self.members,) if self.members else ()

    def shape(self, variable: Variable) -> tuple[int, ...]:
        """The lengths of the dimensions of `variable`."""
        levels = (self.levels.size,) if variable.levels else ()
        return (self.inits.size, *self.ensemble, self.steps, *levels, *self.world.grid.shape)

    def chunks(self, variable: Variable) -> tuple[int, ...]:
        """The lengths of a chunk: a batch of initial times, a group of members, a block of leads, the whole rest."""
        fields = self.shape(variable)[2 + len(self.ensemble) :]
        members = (len(self.groups[0]),) if self.members else ()
        return (min(self.batch, self.inits.size), *members, min(self.block, self.steps), *fields)

    def attrs(self, variable: Variable) -> dict[str, Any]:
        """CF attributes of `variable`; `levels` names what is forecast where variables differ in their levels."""
        attrs: dict[str, Any] = {"long_name": variable.name.replace("_", " "), "units": variable.units or "1"}
        if variable.name in STANDARD_NAMES:
            attrs["standard_name"] = STANDARD_NAMES[variable.name]
        if variable.levels and len(variable.levels) < self.levels.size:
            attrs["levels"] = [float(level) for level in variable.levels]
        auxiliary = "" if len(self.world.grid.shape) > 1 else " latitude longitude"
        return attrs | {"coordinates": f"valid_time{auxiliary}"}

    def attrs_of_file(self) -> dict[str, Any]:
        """Attributes of the whole file, from which a World can be made again."""
        vertical = self.world.vertical
        attrs: dict[str, Any] = {
            "Conventions": "CF-1.11",
            **self.attributes,
            "timestep": duration_text(self.world.timestep),
            **grid_attributes(self.world.grid),
        }
        if self.levels.size:
            attrs |= {"vertical_kind": vertical.kind, "vertical_dry": int(vertical.dry)}
        if vertical.b:
            attrs |= {"vertical_a": list(vertical.a), "vertical_b": list(vertical.b)}
        return attrs

    def coordinates(self) -> dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, Any]]]:
        """(dimensions, values, attributes) of each coordinate in the file."""
        leads = self.leads.astype(np.int64)
        hours = bool((leads % 3600 == 0).all())
        clock = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
        lead_attrs = {"long_name": "lead time", "standard_name": "forecast_period"}
        lead_attrs |= {"units": "hours" if hours else "seconds", "dtype": "timedelta64[s]"}
        coordinates: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, Any]]] = {
            "time": (
                ("time",),
                self.inits.astype(np.int64),
                {"long_name": "initial time", "standard_name": "forecast_reference_time", **clock},
            ),
            "prediction_timedelta": (("prediction_timedelta",), leads // 3600 if hours else leads, lead_attrs),
            "valid_time": (
                ("time", "prediction_timedelta"),
                self.valid_times.astype(np.int64),
                {"long_name": "valid time", "standard_name": "time", **clock},
            ),
            **grid_coordinates(self.world.grid),
        }
        if self.members:
            number = {"long_name": "member of the ensemble", "standard_name": "realization", "units": "1"}
            coordinates["number"] = (("number",), np.arange(self.members), number)
        if self.levels.size:
            coordinates["level"] = (("level",), self.levels, {**LEVELS[self.world.vertical.kind], "axis": "Z"})
        return coordinates

    def plain(self) -> dict[str, Any]:
        """All settings that the bytes of the file depend on, as numbers and strings."""
        world = self.world.plain()
        return {
            "inits": np.datetime_as_string(self.inits).tolist(),
            "steps": self.steps,
            **({"members": self.members} if self.members else {}),
            **({"member_batch": self.member_batch} if self.is_grouped else {}),
            "grid": f"{self.world.grid!r} {hashlib.sha256(json.dumps(world['grid']).encode()).hexdigest()}",
            **{name: world[name] for name in ("prognostic", "diagnostic", "timestep", "vertical")},
        }


def attributes_of(run: str) -> dict[str, str]:
    """Return the attributes of a file with forecasts of the run of this name."""
    return {"title": f"Forecasts of {run}", "source": f"emul, {run}"}


def batched_layout(
    world: World,
    inits: np.ndarray,
    steps: int,
    batch_size: int,
    run: str,
    leads_per_chunk: Callable[[int], int],
    members: int = 0,
    member_batch: int | None = None,
) -> Layout:
    """Return the layout of a forecast in batches of `batch_size` initial times at most, as even as can be.

    Chunks are as long as the longest batch. run: name of the run. leads_per_chunk: of the writer. member_batch: members
    that are rolled out together, None for all. ValueError where a batch would be empty.
    """
    for name, size in {"batch_size": batch_size, "member_batch": member_batch}.items():
        if size is not None and size < 1:
            raise ValueError(f"{name} must be at least 1; got {size}.")
    together = int(member_batch or 0)
    batches = -(-inits.size // batch_size)
    batch = -(-inits.size // batches)
    fields = max(variable.size for variable in world.predicted) * batch * max(1, min(members, together or members))
    block = min(steps, leads_per_chunk(fields * int(np.prod(world.grid.shape))))
    return Layout(world, inits, steps, batch, block, attributes_of(run), members, together)


def forecast_dataset(layout: Layout, states: Iterable[State]) -> xr.Dataset:
    """A forecast in memory, in the form in which it is stored: one State a lead, from `forecast_states`."""
    world, ensemble = layout.world, bool(layout.members)
    arrays = {v.name: np.full(layout.shape(v), np.nan, dtype=np.float32) for v in world.predicted}
    for lead, state in enumerate(states):
        for variable in world.predicted:
            channels = world.predicted.slice(variable.name)
            values = state.values.narrow(state.channel_axis, channels.start, variable.size).float().cpu().numpy()
            values = np.moveaxis(values, 0, 1) if ensemble else values  # (init, [member,] level, *grid)
            place = arrays[variable.name][:, :, lead] if ensemble else arrays[variable.name][:, lead]
            axis = values.ndim + state.channel_axis
            if variable.levels:
                place[(*[slice(None)] * axis, layout.level_positions(variable))] = values
            else:
                place[...] = values.take(0, axis)
    fields = {}
    for variable in world.predicted:
        attrs = {name: value for name, value in layout.attrs(variable).items() if name != "coordinates"}
        fields[variable.name] = (layout.dims(variable), arrays[variable.name], attrs)
    coordinates: dict[str, Any] = {name: (dims, v, attrs) for name, (dims, v, attrs) in layout.coordinates().items()}
    return xr.decode_cf(xr.Dataset(fields, coordinates, layout.attrs_of_file()), decode_timedelta=True)
