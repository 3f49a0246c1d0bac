"""Stack the variables and levels of a dataset into one channel array."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import grid_of
from emulators.grid import TOLERANCE, LatLonGrid
from emulators.variables import VariableSet


def channel_array(dataset: xr.Dataset, variables: VariableSet, lead: tuple[str, ...]) -> np.ndarray:
    """Read the channels of `variables` into one array, float32 or wider, shape (*lead, channel, lat, lon)."""
    shape = tuple(dataset.sizes[dim] for dim in (*lead, "latitude", "longitude"))
    kind = np.result_type(np.float32, *(dataset[name].dtype for name in variables.names))
    values = np.empty((*shape[:-2], variables.size, *shape[-2:]), dtype=kind)
    for variable in variables:
        array = dataset[variable.name]
        if variable.levels:
            chosen = level_index(array["level"].values, variable.levels)
            array = array if chosen == list(range(array.sizes["level"])) else array.isel(level=chosen)
            wanted = (*lead, "level", "latitude", "longitude")
        else:
            wanted = (*lead, "latitude", "longitude")
        read = array.values.transpose([array.dims.index(dim) for dim in wanted])  # as stored: the quickest way to read
        values[..., variables.slice(variable.name), :, :] = read if variable.levels else read[..., None, :, :]
    return values


def level_index(have: np.ndarray, wanted: Sequence[float]) -> list[int]:
    """Return the index of each wanted level; ValueError names one that is absent."""
    close = np.isclose(have.astype(float)[None], np.asarray(wanted, dtype=float)[:, None], rtol=1e-4, atol=0.0)
    if not close.any(axis=1).all():
        absent = np.asarray(wanted)[~close.any(axis=1)][0]
        raise ValueError(f"No level {absent:g}; there are {', '.join(f'{level:g}' for level in have)}.")
    return close.argmax(axis=1).tolist()


def levels_of(array: xr.DataArray) -> tuple[float, ...]:
    """Return the levels of a variable: those of its attribute `levels`, else all; none for a single-level field."""
    if "level" not in array.dims:
        return ()
    named = array.attrs.get("levels")
    return tuple(float(level) for level in np.atleast_1d(array["level"].values if named is None else named))


def is_near_any(levels: Sequence[float] | np.ndarray) -> Callable[[float], bool]:
    """Return a test of whether a level is among `levels`, to 1e-4 of its value."""
    values = np.asarray(list(levels), dtype=float)
    return lambda level: bool(np.isclose(values, level, rtol=1e-4, atol=0.0).any())


def on_grid(dataset: xr.Dataset, grid: LatLonGrid) -> xr.Dataset:
    """Select the points of `grid` from a dataset that holds them all to the tolerance of grids; else ValueError."""
    own = grid_of(dataset)
    if own.same_as(grid):
        return dataset
    rows = np.abs(own.latitude[None] - grid.latitude[:, None])
    columns = np.abs((own.longitude[None] - grid.longitude[:, None] + 180.0) % 360.0 - 180.0)
    if rows.min(axis=1).max() > TOLERANCE or columns.min(axis=1).max() > TOLERANCE:
        raise ValueError(
            f"Forecast and truth lie on different grids: {_described(grid)} and {_described(own)}; "
            "bring both to one grid before scoring."
        )
    return dataset.isel(latitude=rows.argmin(axis=1), longitude=columns.argmin(axis=1))


def _described(grid: LatLonGrid) -> str:
    latitude, longitude = grid.latitude, grid.longitude
    return (
        f"{grid.shape[0]} latitudes {latitude[0]:g} to {latitude[-1]:g} x "
        f"{grid.shape[1]} longitudes {longitude[0]:g} to {longitude[-1]:g}"
    )
