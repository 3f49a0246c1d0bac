"""From a dataset and the roles of its variables to the World that every part is built on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.scales import scales as measured
from data_pipelines.conventions.canonical import grid_of
from data_pipelines.conventions.durations import duration, spacing
from data_pipelines.conventions.fluxes import flux_conventions
from data_pipelines.conventions.suggestions import suggestion
from data_pipelines.derived import forcings
from emulators.grid import LatLonGrid
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, Vertical, World

Entry = str | Mapping[str, Sequence[float]]
Report = Callable[[str, float], None]


@dataclass(frozen=True)
class VariableRoles:
    """Which variables play which part; an entry is a name (all its levels) or {name: [levels]}.

    prognostic: predicted and fed back. forcing: prescribed at the time of the target. diagnostic: predicted only.
    static: constant in time. prognostic null: all parts as in the packed store. Forcings and statics that the data lack
    are computed where they follow from time and place (`data_pipelines.derived.forcings`).
    """

    prognostic: Sequence[Entry] | None
    forcing: Sequence[Entry] = ()
    diagnostic: Sequence[Entry] = ()
    static: Sequence[Entry] = ()


def world_from_dataset(
    dataset: xr.Dataset,
    roles: VariableRoles,
    *,
    history: int = 1,
    timestep: str | np.timedelta64 | None = None,
    scales: Mapping[str, Scale] | None = None,
    period: Sequence[str | int] | None = None,
    report: Report | None = None,
) -> World:
    """The World of a canonical dataset.

    timestep: default that of the dataset. scales: statistics by channel; or period: [start, end] of the training
    split over which they are measured now; with neither, the World has none. ValueError names what does not fit.
    """
    if history < 1:
        raise ValueError(f"history counts the known states a step sees, at least 1; got {history}.")
    roles = stored_roles(dataset) if roles.prognostic is None else roles
    sets = {
        "prognostic": VariableSet(tuple(_archived(dataset, entry) for entry in roles.prognostic or ())),
        "diagnostic": VariableSet(tuple(_archived(dataset, entry) for entry in roles.diagnostic)),
        "forcing": VariableSet(tuple(_prescribed(dataset, entry, forcings.MOVING) for entry in roles.forcing)),
        "static": VariableSet(tuple(_prescribed(dataset, entry, forcings.FIXED) for entry in roles.static)),
    }
    if not sets["prognostic"]:
        raise ValueError("A world needs at least one prognostic variable; list some under variables.prognostic.")
    _refuse_two_roles(sets)
    grid = grid_of(dataset)
    made = World(
        grid=grid,
        timestep=_timestep(dataset, timestep),
        static_fields=_static_fields(dataset, sets["static"], grid),
        history=history,
        scales=dict(scales or {}),
        vertical=vertical_coordinate(dataset),
        **sets,
    )
    if period is None:
        return made
    return replace(made, scales=measured(Archive(dataset, made, cache_gigabytes=0.0), period, report=report))


def stored_roles(dataset: xr.Dataset) -> VariableRoles:
    """The roles with which a packed store was made; ValueError where the dataset is none, or was made without."""
    roles = json.loads(dataset.attrs.get("roles", "{}"))
    if not roles:
        raise ValueError("The data do not say which variables play which part; list some under variables.prognostic.")
    return VariableRoles(**roles)


def _timestep(dataset: xr.Dataset, timestep: str | np.timedelta64 | None) -> np.timedelta64:
    chosen = timestep or dataset.attrs.get("timestep")
    if chosen is not None:
        return duration(chosen)
    found = spacing(dataset["time"].values) if "time" in dataset.dims else None
    if found is None:
        count = dataset.sizes.get("time", 0)
        raise ValueError(f"The data hold {count} time(s), so the timestep is unknown; give one, such as timestep=6h.")
    return found


def vertical_coordinate(dataset: xr.Dataset) -> Vertical:
    """The vertical coordinate, from the attributes vertical_{kind,a,b,dry} or the presence of levels."""
    kind = dataset.attrs.get("vertical_kind") or ("pressure" if "level" in dataset.dims else "none")
    a, b = (tuple(float(x) for x in np.atleast_1d(dataset.attrs.get(f"vertical_{n}", ()))) for n in "ab")
    return Vertical(kind, a, b, bool(dataset.attrs.get("vertical_dry", False)))


def _refuse_two_roles(sets: Mapping[str, VariableSet]) -> None:
    roles: dict[str, str] = {}
    for role, variables in sets.items():
        for name in variables.names:
            if name in roles:
                raise ValueError(f"'{name}' is listed as {roles[name]} and as {role}; a variable plays one part.")
            roles[name] = role


def _entry(entry: Entry) -> tuple[str, tuple[float, ...] | None]:
    """Name and levels of a role's entry; None: all levels."""
    if isinstance(entry, str):
        return entry, None
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ValueError(f"A variable is a name or one pair {{name: [levels]}}; got {entry!r}.")
    ((name, levels),) = entry.items()
    return str(name), tuple(float(level) for level in np.atleast_1d(np.asarray(list(levels), dtype=float)))


def _archived(dataset: xr.Dataset, entry: Entry) -> Variable:
    """The Variable of a role's entry, taken from the dataset."""
    name, levels = _entry(entry)
    if name not in dataset.data_vars:
        left_out = dict(line.split(": ", 1) for line in dataset.attrs.get("left_out", "").splitlines() if ": " in line)
        if name in left_out:
            raise ValueError(f"Variable '{name}' is in the data but cannot be used: {left_out[name]}")
        raise ValueError(f"No variable '{name}' in the data; {suggestion(name, dataset.data_vars)}")
    units = str(dataset[name].attrs.get("units", "")).replace("**", "")
    if "level" not in dataset[name].dims:
        if levels:
            raise ValueError(f"Variable '{name}' has no levels in the data; list it by its name alone.")
        return Variable(name, units, (), *flux_conventions(dataset, name))
    own = dataset[name].attrs.get("levels", dataset["level"].values)  # variables of one store may differ in these
    there = tuple(float(level) for level in own)
    for level in levels or ():
        if level not in there:
            closest = min(there, key=lambda other: abs(other - level))
            raise ValueError(
                f"Variable '{name}' has no level {level:g}; the nearest is {closest:g} "
                "(give the data source `levels` to interpolate)."
            )
    return Variable(name, units, levels or there)


def _prescribed(dataset: xr.Dataset, entry: Entry, computed: Sequence[str]) -> Variable:
    """A forcing or static Variable: from the dataset where it is there, else computed where it can be."""
    name, _ = _entry(entry)
    if name not in dataset.data_vars and name in computed:
        return forcings.variable(name)
    try:
        return _archived(dataset, entry)
    except ValueError as error:
        if name in dataset.data_vars:
            raise
        raise ValueError(f"{error} Computed without data are {', '.join(computed)}.") from error


def _static_fields(dataset: xr.Dataset, static: VariableSet, grid: LatLonGrid) -> np.ndarray | None:
    """The static fields, float32, shape (channel, lat, lon); of a field with times or members, the first."""
    if not static:
        return None
    fields = []
    for var in static:
        if var.name not in dataset.data_vars:
            fields.append(forcings.fixed(var.name, grid)[None])
            continue
        field = dataset[var.name]
        field = field.isel({dim: 0 for dim in ("time", "member") if dim in field.dims})
        if var.levels:
            field = field.sel(level=list(var.levels))
        values = np.asarray(field.values, dtype=np.float32).reshape(var.size, *grid.shape)
        if not np.isfinite(values).all():
            raise ValueError(
                f"Static variable '{var.name}' is missing at {(~np.isfinite(values)).sum()} points; "
                "give the data source a value for them: fill={" + f"{var.name}: 0" + "}."
            )
        fields.append(values)
    return np.concatenate(fields)
