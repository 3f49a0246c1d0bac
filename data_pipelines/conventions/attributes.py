"""Attributes of a canonical dataset by which one part of the pipeline informs another; its grid, levels and channels.

    origin            the file, store or address that the data come from
    left_out          variables that cannot be used, a line each: `name: reason`
    timestep          the timestep that was declared for the data, such as 6h or 1M
    vertical_kind     of the levels: sigma, hybrid, height or pressure; with vertical_a, vertical_b, vertical_dry as in
                      `emulators.world.Vertical`
    flux_convention   ecmwf, where fluxes follow the European centre (below)
    roles             of a packed store, JSON: the roles of variables that it was made with
    assumed           of a forecast: what had to be assumed of its lead times
    assumed_units     what had to be assumed of the units of coordinates, a line each
    grid_family, ...  of a set of cells, the words of `emulators.grid.PointGrid`: family, name, coverage, raster
    ranges            least and greatest possible value by variable, JSON, where they are not those of
                      `emulators.physics.physical_ranges`

A variable has `units`, `levels` if it has not all levels of the dataset, and `spectral_truncation` if its fields end at
a total wavenumber, as those of spectral models. Of a flux, `positive` (up, down; in, out of the column of air) tells
the direction and `cell_methods` (`time: sum` or `time: mean`, perhaps with `(interval: 6 hours)`) whether values are
sums, means or instantaneous, as in the CF conventions, https://cfconventions.org. Fluxes of the European centre are
positive downward if vertical, evaporation therefore negative; accumulations and means of ERA5 cover the hour before
(Hersbach et al. 2020, doi 10.1002/qj.3803), those of WeatherBench 2 the hours in their names. Nothing else is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from data_pipelines.conventions.durations import duration, spacing
from data_pipelines.conventions.units import known_units
from emulators.grid import TOLERANCE, Grid, LatLonGrid, PointGrid
from emulators.variables import VariableSet
from emulators.world import Vertical


def origin_of(dataset: xr.Dataset, default: str = "the data") -> str:
    """Return where the data come from, for messages."""
    return str(dataset.attrs.get("origin", default))


def assumptions(dataset: xr.Dataset) -> list[str]:
    """Return what had to be assumed of the units of coordinates, a sentence each."""
    return str(dataset.attrs.get("assumed_units") or "").splitlines()


def left_out_reasons(dataset: xr.Dataset) -> dict[str, str]:
    """Return the reason for each variable of the source that the dataset does not have."""
    lines = str(dataset.attrs.get("left_out", "")).splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def timestep_of(dataset: xr.Dataset) -> np.timedelta64 | None:
    """Return the declared timestep, else the usual spacing of the times; None if the data have fewer than two."""
    if declared := dataset.attrs.get("timestep"):
        return duration(declared)
    return spacing(dataset["time"].values) if "time" in dataset.dims else None


def vertical_coordinate(dataset: xr.Dataset) -> Vertical:
    """Return the vertical coordinate; of a dataset that declares none, what the units of its levels say.

    Levels without units, or with units that are a ratio or not known, count as pressures.
    """
    parsed = known_units(str(dataset["level"].attrs.get("units", ""))) if "level" in dataset.coords else None
    by_units = (
        {"length": "height", "pressure": "pressure", "ratio": "pressure"}.get(parsed[0], "none") if parsed else ""
    )
    kind = dataset.attrs.get("vertical_kind") or (by_units or "pressure" if "level" in dataset.dims else "none")
    a, b = (tuple(float(x) for x in np.atleast_1d(dataset.attrs.get(f"vertical_{n}", ()))) for n in "ab")
    return Vertical(kind, a, b, bool(dataset.attrs.get("vertical_dry", False)))


def truncation_of(field: xr.DataArray) -> int | None:
    """Return the largest total wavenumber of a field; None if the data do not declare one."""
    declared = field.attrs.get("spectral_truncation")
    return None if declared is None else int(declared)


def horizontal(dataset: xr.Dataset) -> tuple[str, ...]:
    """Return the dimensions of the grid of a canonical dataset: latitude and longitude, or cell."""
    return ("cell",) if "cell" in dataset.dims else ("latitude", "longitude")


def grid_of(dataset: xr.Dataset) -> Grid:
    """Return the grid of a canonical dataset."""
    latitude, longitude = dataset["latitude"].values, dataset["longitude"].values
    if "cell" not in dataset.dims:
        return LatLonGrid(latitude, longitude)
    names = {name: dataset.attrs[f"grid_{name}"] for name in ("family", "name") if f"grid_{name}" in dataset.attrs}
    coverage = float(dataset.attrs.get("grid_coverage", 1.0))
    raster = tuple(int(size) for size in np.atleast_1d(dataset.attrs.get("grid_raster", ())))
    return PointGrid(latitude, longitude, dataset["cell_area_weight"].values, **names, coverage=coverage, raster=raster)


def with_ecmwf_fluxes(dataset: xr.Dataset) -> xr.Dataset:
    """Declare that the fluxes of a dataset follow the conventions of the European centre."""
    return dataset.assign_attrs(flux_convention="ecmwf")


def levels_of(array: xr.DataArray) -> tuple[float, ...]:
    """Return the levels of a variable: those of its attribute `levels`, else all; none for a single-level field."""
    if "level" not in array.dims:
        return ()
    declared = array.attrs.get("levels")
    return tuple(float(level) for level in np.atleast_1d(array["level"].values if declared is None else declared))


def is_near_any(levels: Sequence[float] | np.ndarray) -> Callable[[float], bool]:
    """Return a test of whether a level is among `levels`, to 1e-4 of its value."""
    values = np.asarray(list(levels), dtype=float)
    return lambda level: bool(np.isclose(values, level, rtol=1e-4, atol=0.0).any())


def channel_array(dataset: xr.Dataset, variables: VariableSet, lead: tuple[str, ...]) -> np.ndarray:
    """Read the channels of `variables` into one array, float32 or wider, shape (*lead, channel, *grid)."""
    grid = horizontal(dataset)
    shape = tuple(dataset.sizes[dim] for dim in (*lead, *grid))
    dtype = np.result_type(np.float32, *(dataset[name].dtype for name in variables.names))
    values = np.empty((*shape[: len(lead)], variables.size, *shape[len(lead) :]), dtype=dtype)
    for variable in variables:
        array = dataset[variable.name]
        if variable.levels:
            indices = level_index(array["level"].values, variable.levels)
            array = array if indices == list(range(array.sizes["level"])) else array.isel(level=indices)
            dims = (*lead, "level", *grid)
        else:
            dims = (*lead, *grid)
        stored = array.values.transpose([array.dims.index(dim) for dim in dims])  # as stored: the quickest way to read
        channels = (*[slice(None)] * len(lead), variables.slice(variable.name))
        values[channels] = stored if variable.levels else np.expand_dims(stored, len(lead))
    return values


def level_index(have: np.ndarray, wanted: Sequence[float]) -> list[int]:
    """Return the index of each wanted level; ValueError names one that is absent."""
    close = np.isclose(have.astype(float)[None], np.asarray(wanted, dtype=float)[:, None], rtol=1e-4, atol=0.0)
    if not close.any(axis=1).all():
        absent = np.asarray(wanted)[~close.any(axis=1)][0]
        raise ValueError(f"No level {absent:g}; there are {', '.join(f'{level:g}' for level in have)}.")
    return close.argmax(axis=1).tolist()


def on_grid(dataset: xr.Dataset, grid: Grid) -> xr.Dataset:
    """Select the points of `grid` from a dataset that holds them all to the tolerance of grids; else ValueError."""
    source = grid_of(dataset)
    if source.same_as(grid):
        return dataset
    if not isinstance(source, LatLonGrid) or not isinstance(grid, LatLonGrid):
        raise ValueError(
            f"Forecast and truth lie on different grids: {grid} and {source}; bring both to one grid before scoring: "
            "`emul data regrid`."
        )
    rows = np.abs(source.latitude[None] - grid.latitude[:, None])
    columns = np.abs((source.longitude[None] - grid.longitude[:, None] + 180.0) % 360.0 - 180.0)
    if rows.min(axis=1).max() > TOLERANCE or columns.min(axis=1).max() > TOLERANCE:
        raise ValueError(
            f"Forecast and truth lie on different grids: {_described(grid)} and {_described(source)}; "
            "bring both to one grid before scoring."
        )
    return dataset.isel(latitude=rows.argmin(axis=1), longitude=columns.argmin(axis=1))


def _described(grid: LatLonGrid) -> str:
    latitude, longitude = grid.latitude, grid.longitude
    return (
        f"{grid.shape[0]} latitudes {latitude[0]:g} to {latitude[-1]:g} x "
        f"{grid.shape[1]} longitudes {longitude[0]:g} to {longitude[-1]:g}"
    )


UPPER_AIR = (
    "geopotential", "geopotential_height", "temperature", "u_component_of_wind", "v_component_of_wind", "wind_speed",
    "vertical_velocity", "specific_humidity", "relative_humidity", "vorticity", "divergence",
)  # fmt: skip


def with_levels(dataset: xr.Dataset) -> xr.Dataset:
    """Stack `temperature_850`, `temperature_500`, ... into `temperature` with levels, unless it exists.

    Where variables then differ in their levels, the attribute `levels` of each names its own; the rest reads as NaN.
    """
    layers: dict[str, dict[int, str]] = {}
    for name in map(str, dataset.data_vars):
        match = re.fullmatch(r"(\w+?)_(\d+)", name)
        if match and match[1] in UPPER_AIR and match[1] not in dataset:
            layers.setdefault(match[1], {})[int(match[2])] = name
    gathered = {}
    for name, by_level in layers.items():
        levels = sorted(by_level)
        template = dataset[by_level[levels[0]]]
        chunks = {str(dim): 1 for dim in template.dims if dim not in ("latitude", "longitude", "cell")}  # keeps it lazy
        fields = [dataset[by_level[level]].chunk(chunks) for level in levels]
        joined = xr.concat(
            fields, dim=xr.DataArray(levels, dims="level", name="level").astype(float), combine_attrs="override"
        )
        gathered[name] = joined.transpose(..., "level", *horizontal(dataset)).rename(name)
    if not gathered:
        return dataset
    for field in [*dataset.data_vars.values(), *gathered.values()]:
        if "level" in field.dims:
            field.attrs.setdefault("levels", field["level"].values.tolist())
    used = [name for by_level in layers.values() for name in by_level.values()]
    return xr.merge([dataset.drop_vars(used), *gathered.values()], join="outer", compat="override").assign_attrs(
        dataset.attrs
    )
