"""From a dataset and the roles of its variables to the World that every part is built on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines import forcings
from emulators.grid import LatLonGrid
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, Vertical, World

Entry = str | Mapping[str, Sequence[float]]
Report = Callable[[str, float], None]

_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_MONTHS = {"M": 1, "y": 12}


@dataclass(frozen=True)
class Roles:
    """Which variables play which part; an entry is a name (all its levels) or {name: [levels]}.

    prognostic: predicted and fed back. forcing: prescribed at the time of the target. diagnostic: predicted only.
    static: constant in time. Forcings and statics that the data lack are computed where they follow from time and
    place (`data_pipelines.forcings`).
    """

    prognostic: Sequence[Entry]
    forcing: Sequence[Entry] = ()
    diagnostic: Sequence[Entry] = ()
    static: Sequence[Entry] = ()


def duration(text: str | np.timedelta64) -> np.timedelta64:
    """`6h`, `30min`, `5d`, `2w` as seconds; `1M`, `12M`, `1y` as months."""
    if isinstance(text, np.timedelta64):
        return text if np.datetime_data(text)[0] == "M" else text.astype("timedelta64[s]")
    match = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]+)\s*", str(text))
    number, unit = (int(match[1]), match[2]) if match else (0, "")
    if number > 0 and unit in _MONTHS:
        return np.timedelta64(number * _MONTHS[unit], "M")
    if number > 0 and unit in _SECONDS:
        return np.timedelta64(number * _SECONDS[unit], "s")
    raise ValueError(f"Expected a length of time such as 30min, 6h, 5d, 1M (month) or 1y; got '{text}'.")


def duration_text(length: np.timedelta64) -> str:
    """The inverse of `duration`, in the largest unit that divides."""
    unit, _ = np.datetime_data(length)
    if unit == "M":
        months = int(length.astype(int))
        return f"{months}M" if months % 12 else f"{months // 12}y"
    seconds = int(length.astype("timedelta64[s]").astype(int))
    for name in ("d", "h", "min"):
        if seconds % _SECONDS[name] == 0:
            return f"{seconds // _SECONDS[name]}{name}"
    return f"{seconds}s"


def spacing(times: np.ndarray) -> np.timedelta64 | None:
    """The usual step from one time to the next: seconds, or months where months are even and days are not."""
    times = np.asarray(times, dtype="datetime64[s]")
    if times.size < 2:
        return None
    steps = np.diff(times).astype(np.int64)
    values, counts = np.unique(steps, return_counts=True)
    usual = int(values[counts.argmax()])
    if usual >= 27 * 86400:
        months = np.diff(times.astype("datetime64[M]")).astype(np.int64)
        values, counts = np.unique(months, return_counts=True)
        day = (times - times.astype("datetime64[M]")).astype(np.int64) / 86400.0
        if values.min() > 0 and np.ptp(day) <= 3.0:  # within a day of the month that does not drift
            return np.timedelta64(int(values[counts.argmax()]), "M")
    return np.timedelta64(usual, "s")


def nearest(name: str, names: Iterable[Any]) -> str:
    """A clause that names the likeliest spelling of `name`, or what there is."""
    names = [str(n) for n in names]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"there {'are' if len(names) > 1 else 'is'} {', '.join(names[:40]) or 'none'}."


def grid_of(dataset: xr.Dataset) -> LatLonGrid:
    """The grid of a canonical dataset."""
    return LatLonGrid(dataset["latitude"].values, dataset["longitude"].values)


def world(
    dataset: xr.Dataset,
    roles: Roles,
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
    sets = {
        "prognostic": VariableSet(tuple(_archived(dataset, entry) for entry in roles.prognostic)),
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
        vertical=vertical(dataset),
        **sets,
    )
    if period is None:
        return made
    from data_pipelines.archive import Archive
    from data_pipelines.statistics import scales as measured

    return replace(made, scales=measured(Archive(dataset, made, cache_gigabytes=0.0), period, report=report))


def _timestep(dataset: xr.Dataset, timestep: str | np.timedelta64 | None) -> np.timedelta64:
    chosen = timestep or dataset.attrs.get("timestep")
    if chosen is not None:
        return duration(chosen)
    found = spacing(dataset["time"].values) if "time" in dataset.dims else None
    if found is None:
        count = dataset.sizes.get("time", 0)
        raise ValueError(f"The data hold {count} time(s), so the timestep is unknown; give one, such as timestep=6h.")
    return found


def vertical(dataset: xr.Dataset) -> Vertical:
    """The vertical coordinate, from the attributes vertical_kind, vertical_a, vertical_b or the presence of levels."""
    kind = dataset.attrs.get("vertical_kind") or ("pressure" if "level" in dataset.dims else "none")
    a, b = (tuple(float(x) for x in np.atleast_1d(dataset.attrs.get(f"vertical_{n}", ()))) for n in "ab")
    return Vertical(kind, a, b)


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
        raise ValueError(f"No variable '{name}' in the data; {nearest(name, dataset.data_vars)}")
    units = str(dataset[name].attrs.get("units", "")).replace("**", "")
    if "level" not in dataset[name].dims:
        if levels:
            raise ValueError(f"Variable '{name}' has no levels in the data; list it by its name alone.")
        return Variable(name, units)
    there = tuple(float(level) for level in dataset["level"].values)
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
    """The static fields, float32, shape (channel, lat, lon); of a field with a time dimension, its first time."""
    if not static:
        return None
    fields = []
    for var in static:
        if var.name not in dataset.data_vars:
            fields.append(forcings.fixed(var.name, grid)[None])
            continue
        field = dataset[var.name]
        field = field.isel(time=0) if "time" in field.dims else field
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
