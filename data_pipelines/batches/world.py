"""Build the World, on which every part is built, from a dataset and the roles of its variables."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import (
    grid_of,
    left_out_reasons,
    timestep_of,
    truncation_of,
    vertical_coordinate,
)
from data_pipelines.conventions.dialects import variable_hint
from data_pipelines.derived import forcings
from data_pipelines.files.identity import differences
from emulators.grid import Grid
from emulators.physics.fluxes import BOUNDARY, usual_name
from emulators.variables import Variable, VariableSet
from emulators.world import World

Entry = str | Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class VariableRoles:
    """Say which variables have which role; an entry is a name (all its levels) or {name: [levels]}.

    prognostic: predicted and fed back; None takes all roles from the packed store. forcing: prescribed at the time of
    the target. diagnostic: predicted only. static: constant in time. Forcings and static fields that the data do not
    hold are computed if they follow from time and place (`data_pipelines.derived.forcings`).
    """

    prognostic: Sequence[Entry] | None
    forcing: Sequence[Entry] = ()
    diagnostic: Sequence[Entry] = ()
    static: Sequence[Entry] = ()


def world_from_dataset(dataset: xr.Dataset, roles: VariableRoles, *, history: int = 1) -> World:
    """Build the World of a canonical dataset, without scales. ValueError names what does not fit.

    history: number of known states that a step sees.
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
    return World(
        grid=grid,
        timestep=_timestep(dataset),
        static_fields=static_fields(dataset, sets["static"], grid),
        history=history,
        scales={},
        vertical=vertical_coordinate(dataset),
        learned=None,
        **sets,
    )


def stored_roles(dataset: xr.Dataset) -> VariableRoles:
    """Return the roles with which a packed store was made; ValueError if the dataset does not come from one."""
    roles = json.loads(dataset.attrs.get("roles", "{}"))
    if not roles:
        raise ValueError("The data do not say which variables play which part; list some under variables.prognostic.")
    return VariableRoles(**roles)


def _timestep(dataset: xr.Dataset) -> np.timedelta64:
    timestep = timestep_of(dataset)
    if timestep is None:
        count = dataset.sizes.get("time", 0)
        raise ValueError(f"The data hold {count} time(s), so the timestep is unknown; give one, such as timestep=6h.")
    return timestep


def _refuse_two_roles(sets: Mapping[str, VariableSet]) -> None:
    roles: dict[str, str] = {}
    for role, variables in sets.items():
        for name in variables.names:
            if name in roles:
                raise ValueError(f"'{name}' is listed as {roles[name]} and as {role}; a variable has one role.")
            roles[name] = role


def _entry(entry: Entry) -> tuple[str, tuple[float, ...] | None]:
    """Return name and levels of an entry; None: all levels."""
    if isinstance(entry, str):
        return entry, None
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ValueError(f"A variable is a name or one pair {{name: [levels]}}; got {entry!r}.")
    ((name, levels),) = entry.items()
    return str(name), tuple(float(level) for level in np.atleast_1d(np.asarray(list(levels), dtype=float)))


def _archived(dataset: xr.Dataset, entry: Entry) -> Variable:
    """Return the Variable that an entry names, as the dataset holds it."""
    name, levels = _entry(entry)
    if name not in dataset.data_vars:
        reasons = left_out_reasons(dataset)
        if name in reasons:
            raise ValueError(f"Variable '{name}' is in the data but cannot be used: {reasons[name]}")
        raise ValueError(f"No variable '{name}' in the data; {variable_hint(name, dataset.data_vars)}")
    units = str(dataset[name].attrs.get("units", "")).replace("**", "")
    if "level" not in dataset[name].dims:
        if levels:
            raise ValueError(f"Variable '{name}' has no levels in the data; list it by its name alone.")
        return Variable(name, units, (), *flux_conventions(dataset, name), truncation_of(dataset[name]))
    values = dataset[name].attrs.get("levels", dataset["level"].values)  # variables of one store may differ in these
    stored_levels = tuple(float(level) for level in values)
    for level in levels or ():
        if level not in stored_levels:
            closest = min(stored_levels, key=lambda other: abs(other - level))
            raise ValueError(
                f"Variable '{name}' has no level {level:g}; the nearest is {closest:g} "
                "(give the data source `levels` to interpolate)."
            )
    return Variable(name, units, levels or stored_levels, truncation=truncation_of(dataset[name]))


def _prescribed(dataset: xr.Dataset, entry: Entry, computed: Sequence[str]) -> Variable:
    """Return a forcing or static Variable: that of the dataset, else one of those that can be computed."""
    name, _ = _entry(entry)
    if name not in dataset.data_vars and name in computed:
        return forcings.variable(name)
    try:
        return _archived(dataset, entry)
    except ValueError as error:
        if name in dataset.data_vars:
            raise
        raise ValueError(f"{error} Computed without data are {', '.join(computed)}.") from error


def static_fields(dataset: xr.Dataset, static: VariableSet, grid: Grid) -> np.ndarray | None:
    """Read the static fields, float32 (channel, lat, lon); of a field with times or members, the first."""
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


def meaning_of(step: Mapping[str, Any], world: World) -> dict[str, Any]:
    """What has to be the same for the numbers of a network to mean the same: output, vertical coordinate, units.

    step: the settings of the Step around it.
    """
    return {
        "step.output": str(step.get("output", "residual")),
        "vertical coordinate": world.vertical.kind,
        "units": {variable.name: variable.units for variables in world.by_role.values() for variable in variables},
    }


def meaning_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List what differs of `meaning_of`, of the variables that both have."""
    shared = before["units"].keys() & now["units"].keys()
    return differences(
        *({**meaning, "units": {name: meaning["units"][name] for name in shared}} for meaning in (before, now))
    )


CELL = re.compile(r"time:\s*(sum|mean|point)(?:\s*\(interval:\s*(\d+)\s*h)?")


def flux_conventions(dataset: xr.Dataset, name: str) -> tuple[str, str]:
    """Return (positive, cell) of a variable as in `emulators.variables.Variable`; empty if nothing is declared."""
    attributes = dataset[name].attrs
    positive, cell = str(attributes.get("positive", "")), ""
    match = CELL.search(str(attributes.get("cell_methods", "")))
    if match:
        cell = f"{match[1]} {match[2]}h" if match[2] else match[1]
    if dataset.attrs.get("flux_convention") == "ecmwf" and usual_name(name) in BOUNDARY:
        hours = re.search(r"_(\d+)hr$", name)
        usual = "mean" if name.startswith("mean_") else "sum"
        positive = positive or ("out" if "divergence" in name else "down")
        cell = cell or f"{usual} {hours[1] if hours else 1}h"
    return positive, cell
