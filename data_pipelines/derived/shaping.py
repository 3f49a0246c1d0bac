"""Shape a canonical dataset: units, masks, fill values, derived variables, levels, lags, timestep, selections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import grid_of, horizontal, timestep_of, vertical_coordinate
from data_pipelines.conventions.cells import grid_attributes
from data_pipelines.conventions.dialects import variable_hint
from data_pipelines.conventions.durations import bounds, duration, duration_text, nearest_positions
from data_pipelines.conventions.lazy_arrays import computed_when_read
from data_pipelines.conventions.suggestions import suggestion
from data_pipelines.conventions.units import in_units
from data_pipelines.derived.variables import BEFORE, DERIVED, DIAGNOSTICS
from emulators.grid import PointGrid
from emulators.statistics.area_means import Region

RULES = DERIVED | DIAGNOSTICS


def shaped(
    dataset: xr.Dataset,
    *,
    units: Mapping[str, str] | None = None,
    masks: Sequence[str] | None = None,
    fill: Mapping[str, float] | None = None,
    derive: Sequence[str] | None = None,
    levels: Sequence[float] | None = None,
    lag: Sequence[str] | None = None,
    timestep: str | None = None,
    area: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Apply these changes to a canonical dataset, in this order and lazily.

    units: variable -> units of the result, `K`, or `degC -> K` where the data do not say theirs.
    masks: variables `x` for which a variable `x_mask` is added, 1 where x is there and 0 where it is missing.
    fill: variable -> value in place of missing ones.
    derive: variables to compute from others, before levels are chosen (`data_pipelines.derived.variables`,
    `.diagnostics`). levels: those of the result, from the top down; one that the data lack is interpolated linearly in
    log(level) between its neighbours. lag: variables that stand, at every time, with their values of one timestep
    before: a forcing that is known at the start of a step only. timestep: such as 6h or 1M, kept as an attribute.
    area: see `limited`.
    """
    for name, spec in (units or {}).items():
        dataset = dataset.assign({name: in_units(name, _lazy(_named(dataset, name, "units")), spec)})
    present = {f"{name}_mask": _mask(_named(dataset, name, "masks")) for name in masks or ()}
    for name, value in (fill or {}).items():
        dataset = dataset.assign({name: _lazy(_named(dataset, name, "fill")).fillna(value)})
    dataset = dataset.assign(present)
    for name in derive or ():
        if name not in RULES:
            raise ValueError(f"derive: no rule for '{name}'; {suggestion(name, RULES)}")
        dim = "prediction_timedelta" if "prediction_timedelta" in dataset.dims else "time"
        dataset = dataset.assign({name: computed_when_read(dataset, RULES[name], dim, BEFORE.get(name, 0))})
    if levels is not None:
        dataset = _at_levels(dataset, np.unique([float(level) for level in levels]))
    if timestep is not None:
        dataset = dataset.assign_attrs(timestep=duration_text(duration(timestep)))
    dataset = limited(dataset, **area) if area else dataset
    lagged = {name: _named(dataset, name, "lag").variable for name in lag or ()}
    if lagged:
        before = _before(dataset)
        dataset = dataset.assign({name: field.isel(time=before) for name, field in lagged.items()})
    return dataset


def limited(
    dataset: xr.Dataset,
    latitude: Sequence[float],
    longitude: Sequence[float],
    boundary: float = 0.0,
    prescribe: Sequence[str] = (),
) -> xr.Dataset:
    """Cut a limited area out of a canonical dataset: the points within (south, north) and (west, east), in degrees.

    boundary: width in degrees of the zone inside of the sides that is known from outside; the variables `boundary_zone`
    and `interior`, 1 or 0, tell it. prescribe: variables that are added as forcings `<name>_at_boundary` as well, with
    their mean over the zone in the interior, of which they say nothing. ValueError where fewer than two rows, columns
    or cells are left, or no zone to prescribe in.
    """
    (south, north), (west, east) = map(float, latitude), map(float, longitude)
    box = Region("area", ((south, north),), (west, east))
    grid = grid_of(dataset)
    mask = box.mask(grid)
    if len(grid.shape) == 2:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        columns = columns[np.argsort((dataset["longitude"].values[columns] - west) % 360.0)]
        indexers = {"latitude": rows, "longitude": columns}
    else:
        indexers = {"cell": np.flatnonzero(mask)}
    if min(map(len, indexers.values())) < 2:
        raise ValueError(f"area: [{south:g}, {north:g}] x [{west:g}, {east:g}] holds no part of {grid}.")
    dataset = dataset.isel(indexers)
    if "cell" in indexers:
        share = float(grid.weights[mask].sum() / grid.weights.sum())
        coverage = grid.coverage if isinstance(grid, PointGrid) else 1.0
        area_grid = PointGrid(*grid.points, grid.weights, coverage=share * coverage)
        attributes = {name: value for name, value in dataset.attrs.items() if not str(name).startswith("grid_")}
        dataset.attrs = attributes | grid_attributes(area_grid)
    if boundary or prescribe:
        dataset = _with_boundary(dataset, (south, north, west, east), boundary, prescribe)
    return dataset


def _with_boundary(
    dataset: xr.Dataset, sides: tuple[float, float, float, float], width: float, prescribe: Sequence[str]
) -> xr.Dataset:
    south, north, west, east = sides
    grid = grid_of(dataset)
    latitude, longitude = grid.points
    across = width / np.maximum(np.cos(np.deg2rad(latitude)), 0.05)
    offset, span = (longitude - west) % 360.0, (east - west) % 360.0 or 360.0
    zone = (latitude < south + width) | (latitude > north - width)
    if span < 360.0:
        zone |= (offset < across) | (offset > span - across)
    if zone.all():
        raise ValueError(f"area: a boundary of {width:g} degrees leaves no interior; take a narrower one.")
    if prescribe and not zone.any():
        raise ValueError(f"area.prescribe: a boundary of {width:g} degrees holds no points; take a wider one.")
    marks = {"boundary_zone": zone, "interior": ~zone}
    fields: dict[str, Any] = {
        name: (horizontal(dataset), mark.reshape(grid.shape).astype(np.float32), {"units": "1"})
        for name, mark in marks.items()
    }
    for name in prescribe:
        field = _lazy(_named(dataset, name, "area.prescribe"))
        fields[f"{name}_at_boundary"] = known_in_zone(field, zone.reshape(grid.shape)).variable
    return dataset.assign(fields)


def known_in_zone(field: xr.DataArray, zone: np.ndarray) -> xr.DataArray:
    """Return the field in the zone, bool (*grid), and its mean over the zone elsewhere, which tells nothing of it."""
    mark = xr.DataArray(zone, dims=field.dims[-zone.ndim :])
    return field.where(mark, field.where(mark).mean(mark.dims)).astype(field.dtype).assign_attrs(field.attrs)


def _named(dataset: xr.Dataset, name: str, key: str) -> xr.DataArray:
    if name not in dataset.data_vars:
        raise ValueError(f"{key}: no variable '{name}' in the data; {variable_hint(name, dataset.data_vars)}")
    field = dataset[name]
    if key == "lag" and "time" not in field.dims:
        raise ValueError(f"lag: '{name}' has no times, so that it is the same at every step; leave it out of the list.")
    return field


def _mask(field: xr.DataArray) -> xr.DataArray:
    """Return 1 where the field has a value and 0 where it is missing."""
    return _lazy(field).notnull().astype("float32").assign_attrs(units="1", long_name=f"where {field.name} is there")


def _before(dataset: xr.Dataset) -> np.ndarray:
    """Return for each position of the time axis that of one timestep before, or itself if there is none."""
    times = dataset["time"].values.astype("datetime64[s]")
    step = timestep_of(dataset)
    current = np.arange(times.size)
    if step is None:
        return current
    if np.datetime_data(step)[0] == "M":
        month = times.astype("datetime64[M]")
        earlier = (month - step).astype("datetime64[s]") + (times - month.astype("datetime64[s]"))
    else:
        earlier = times - step
    position = nearest_positions(times, earlier, abs(times - earlier) // 10)
    return np.where(position >= 0, position, current)


def _lazy(field: xr.DataArray) -> xr.DataArray:
    """Chunk the field by times, so that arithmetic is done lazily."""
    return field.chunk({"time": 1} if "time" in field.dims else {})


def _at_levels(dataset: xr.Dataset, wanted: np.ndarray) -> xr.Dataset:
    if "level" not in dataset.dims:
        raise ValueError("levels: the data have no dimension of levels to choose from.")
    levels = dataset["level"].values.astype(np.float64)
    nearest = [int(np.abs(levels - level).argmin()) for level in wanted]
    if np.allclose(levels[nearest], wanted, rtol=1e-6):
        if len(nearest) != levels.size:
            dataset = _without_half_levels(dataset)
        return dataset.isel(level=nearest).assign_coords(level=("level", wanted, dataset["level"].attrs))
    dataset = _without_half_levels(dataset)
    beyond = wanted[(wanted < levels[0]) | (wanted > levels[-1])]
    if beyond.size:
        raise ValueError(f"levels: {beyond[0]:g} lies beyond those of the data, {levels[0]:g} to {levels[-1]:g}.")
    upper = np.clip(np.searchsorted(levels, wanted), 1, levels.size - 1)
    if vertical_coordinate(dataset).kind == "height":
        along, aims = levels, wanted
    else:
        along, aims = np.log(np.maximum(levels, 1e-6)), np.log(wanted)
    share = (aims - along[upper - 1]) / (along[upper] - along[upper - 1])
    weight = xr.DataArray(share, dims="level", coords={"level": wanted})
    columns = [name for name in dataset.data_vars if "level" in dataset[name].dims]

    def between(field: xr.DataArray) -> xr.DataArray:
        field = _lazy(field)
        above, below = (field.isel(level=i).assign_coords(level=wanted) for i in (upper - 1, upper))
        return (above * (1.0 - weight) + below * weight).transpose(*field.dims).assign_attrs(field.attrs)

    fields = {name: between(dataset[name]) for name in columns}
    return dataset.drop_dims("level").assign(fields).assign_coords(level=("level", wanted, dataset["level"].attrs))


def _without_half_levels(dataset: xr.Dataset) -> xr.Dataset:
    """Drop the half levels, which belong to other layers than those that remain."""
    if dataset.attrs.get("vertical_kind") != "hybrid":
        return dataset
    dataset = dataset.copy()
    dataset.attrs = {n: v for n, v in dataset.attrs.items() if n not in ("vertical_a", "vertical_b")}
    return dataset


def part_of(
    dataset: xr.Dataset,
    *,
    fields: Sequence[str] | str | None = None,
    levels: Sequence[float] | float | None = None,
    years: Any = None,
    every: str | None = None,
) -> xr.Dataset:
    """Select the variables `fields` on `levels`, at times within `years` that are `every` apart.

    years: [first, last], `2000-01-01/2000-03-31`, or one year, month or day. every: 6h, 1d, ...: times that lie whole
    multiples of it after the first. ValueError where there is no such part.
    """
    if fields is not None:
        names = [fields] if isinstance(fields, str) else [str(name) for name in fields]
        for name in names:
            if name not in dataset.data_vars:
                raise ValueError(f"fields: no variable '{name}' in the data; {variable_hint(name, dataset.data_vars)}")
        dataset = dataset[names]
        dataset = dataset.drop_vars([d for d in dataset.coords if not any(d in f.dims for f in dataset.values())])
    if levels is not None:
        dataset = shaped(dataset, levels=[float(level) for level in np.atleast_1d(np.asarray(levels, dtype=float))])
    if (years is not None or every is not None) and "time" not in dataset.dims:
        raise ValueError("years and every choose times; the data have none.")
    if years is not None:
        first, last = bounds(_period(years))
        times = dataset["time"].values.astype("datetime64[s]")
        inside = np.flatnonzero((times >= first) & (times <= last))
        if not inside.size:
            raise ValueError(f"years: no times from {first} to {last}; the data hold {times[0]} to {times[-1]}.")
        dataset = dataset.isel(time=slice(int(inside[0]), int(inside[-1]) + 1))
    return dataset if every is None else _thinned(dataset, every)


def _period(years: Any) -> Sequence[str | int]:
    if isinstance(years, str) and "/" in years:
        years = years.split("/")
    if isinstance(years, str | int):
        return [years, years]
    if len(years) != 2:
        raise ValueError(f"years: expected the first and the last, such as years=[1990,2019]; got {years}.")
    return list(years)


def _thinned(dataset: xr.Dataset, every: str) -> xr.Dataset:
    step = duration(every)
    times = dataset["time"].values.astype("datetime64[s]")
    if np.datetime_data(step)[0] == "M":
        since = (times.astype("datetime64[M]") - times[0].astype("datetime64[M]")).astype(np.int64)
        positions = np.flatnonzero(np.append(True, np.diff(since) > 0) & (since % step.astype(np.int64) == 0))
    else:
        positions = np.flatnonzero((times - times[0]).astype(np.int64) % step.astype(np.int64) == 0)
    strides = np.unique(np.diff(positions))
    rows = slice(int(positions[0]), int(positions[-1]) + 1, int(strides[0])) if strides.size == 1 else positions
    return dataset.isel(time=rows).assign_attrs(timestep=duration_text(step))
