"""Data whose fields lie on a set of points, in one form: dimension `cell`, latitude and longitude along it.

Understood are one dimension with latitudes and longitudes along it (reduced Gaussian, ICON, anemoi-datasets, stations),
two dimensions with latitudes and longitudes on both (WRF, MEPS, ocean models), two of a projection with a CF grid
mapping, and HEALPix by its grid mapping or attributes. The area of each cell stands beside them as `cell_area_weight`:
that of the data where they bring it, else that of the grid which the points are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.units import RADIANS, refuse_radians
from emulators.grid import Grid, PointGrid

LATITUDES = ("latitude", "lat", "lats", "latitudes", "nav_lat", "XLAT", "clat", "gridlat_0", "TLAT")
LONGITUDES = ("longitude", "lon", "lons", "longitudes", "nav_lon", "XLONG", "clon", "gridlon_0", "TLONG")
AREAS = ("cell_area_weight", "cell_area", "area", "areacella")
HEALPIX = ("cell", "cells", "pix", "healpix", "values", "ncells")


def with_cells(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Return the dataset with the dimension `cell` where its fields lie on points; others as they are."""
    points = _of_points(dataset, origin) or _of_projection(dataset) or _of_healpix(dataset)
    if points is None and "cell" in dataset.dims:
        raise ValueError(
            f"{origin} lies on a set of points (dimension 'cell') and does not tell where these are; add their "
            "latitudes and longitudes along it."
        )
    if points is None:
        return dataset
    dims, latitude, longitude, grid = points
    if not (np.isfinite(latitude).all() and np.isfinite(longitude).all()):
        raise ValueError(f"Latitudes or longitudes of the points in {origin} are missing; leave these points out.")
    refuse_radians(latitude, longitude, origin)
    area, attributes = _area(dataset, dims), {}
    if grid is None and area is not None and "grid_family" in dataset.attrs:
        attributes = {name: value for name, value in dataset.attrs.items() if str(name).startswith("grid_")}
    elif grid is None:
        from emulators.grids.catalogue import recognised

        grid = recognised(latitude, longitude, tuple(dataset.sizes[dim] for dim in dims) if len(dims) > 1 else ())
    if grid is not None:
        area = grid.area / grid.area.mean() if area is None else area
        attributes = grid_attributes(grid)
    dropped = {
        name for name, field in dataset.variables.items() if {*field.dims} & {*dims} and _is_axis(dataset, name, dims)
    }
    dataset = dataset.drop_vars(
        [*dropped, *({"latitude", "longitude", "cell_area_weight"} & {*dataset.variables} - dropped)]
    )
    if len(dims) > 1:
        dataset = dataset.stack(cell=list(dims), create_index=False)
    elif dims[0] != "cell":
        dataset = dataset.rename({dims[0]: "cell"})
    coordinates: dict[str, Any] = {
        "latitude": ("cell", latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("cell", np.mod(longitude, 360.0), {"units": "degrees_east", "standard_name": "longitude"}),
        "cell_area_weight": ("cell", area, {"units": "1"}),
    }
    return dataset.assign_coords(coordinates).assign_attrs(attributes)


Points = tuple[tuple[str, ...], np.ndarray, np.ndarray, PointGrid | None]


def _of_points(dataset: xr.Dataset, origin: str) -> Points | None:
    """Latitudes and longitudes along the same one or two dimensions, unless they are rows and columns."""
    latitude, longitude = _coordinate(dataset, LATITUDES, "latitude"), _coordinate(dataset, LONGITUDES, "longitude")
    if latitude is None or longitude is None or latitude.dims != longitude.dims:
        return None
    if latitude.ndim == 3 and latitude.dims[0] in ("Time", "time"):  # WRF writes them at every time
        latitude, longitude = latitude[0], longitude[0]
    if latitude.ndim not in (1, 2) or (latitude.ndim == 1 and latitude.dims[0] in ("time", "Time", "latitude")):
        return None
    north, east = _degrees(latitude), _degrees(longitude)
    if latitude.ndim == 2:
        along, across = north[:, :1], east[:1]
        if np.allclose(north, along, atol=1e-4) and np.allclose(east, across, atol=1e-4):
            return None
    dims = tuple(map(str, latitude.dims))
    return dims, north.reshape(-1), east.reshape(-1), None


def _coordinate(dataset: xr.Dataset, names: Sequence[str], kind: str) -> xr.DataArray | None:
    """The latitudes or longitudes by name, else by standard name; those of the cells rather than of their corners."""
    candidates = [name for name in names if name in dataset.variables]
    candidates += [str(name) for name in dataset.variables if dataset[name].attrs.get("standard_name") == kind]
    usable = [dataset[name] for name in dict.fromkeys(candidates) if dataset[name].ndim]
    return next((array for array in usable if array.ndim > 1 or array.name not in dataset.dims), None)


def _degrees(coordinate: xr.DataArray) -> np.ndarray:
    values = np.asarray(coordinate.values, dtype=np.float64)
    return np.rad2deg(values) if str(coordinate.attrs.get("units", "")).strip().lower() in RADIANS else values


def _of_projection(dataset: xr.Dataset) -> Points | None:
    """Coordinates x and y of a CF grid mapping, without latitudes and longitudes."""
    from emulators.grids.limited_area import from_mapping

    mappings = [
        v.attrs for v in dataset.variables.values() if v.attrs.get("grid_mapping_name") not in (None, "healpix")
    ]
    if not mappings or _coordinate(dataset, LATITUDES, "latitude") is not None:
        return None
    axes: list[xr.DataArray | None] = []
    for letter, names in (
        ("y", ("projection_y_coordinate", "grid_latitude")),
        ("x", ("projection_x_coordinate", "grid_longitude")),
    ):
        matching = [dataset[name] for name in dataset.variables if dataset[name].attrs.get("standard_name") in names]
        axes.append(matching[0] if matching else (dataset[letter] if letter in dataset.variables else None))
    y, x = axes
    if y is None or x is None or mappings[0]["grid_mapping_name"] == "latitude_longitude":
        return None
    metres = (1000.0 if str(axis.attrs.get("units")) == "km" else 1.0 for axis in (x, y))
    across, up = (np.asarray(axis.values, dtype=np.float64) * unit for axis, unit in zip((x, y), metres, strict=True))
    grid = from_mapping(across, up, mappings[0])
    return (str(y.dims[0]), str(x.dims[0])), *grid.points, grid


def _of_healpix(dataset: xr.Dataset) -> Points | None:
    """A HEALPix dimension without coordinates, described by a grid mapping or by attributes."""
    from emulators.grids.catalogue import named_grid

    mappings = [dict(v.attrs) for v in dataset.variables.values() if v.attrs.get("grid_mapping_name") == "healpix"]
    mappings += [dict(dataset.attrs)] if {"healpix_nside", "nside"} & {*dataset.attrs} else []
    dims = [dim for dim in HEALPIX if dim in dataset.dims]
    if not mappings or not dims:
        return None
    keys = {str(key).removeprefix("healpix_"): value for key, value in mappings[0].items()}
    side = int(keys["nside"]) if "nside" in keys else 2 ** int(keys.get("refinement_level", keys.get("level", 0)))
    order = str(keys.get("order", keys.get("indexing_scheme", "ring"))).lower()
    grid = named_grid(f"healpix:{side}" + (":nested" if order.startswith("nest") else ""))
    assert isinstance(grid, PointGrid)
    if grid.size != dataset.sizes[dims[0]]:
        raise ValueError(
            f"HEALPix of {side} cells a side has {grid.size} cells; the data have {dataset.sizes[dims[0]]}."
        )
    return (dims[0],), *grid.points, grid


def _area(dataset: xr.Dataset, dims: tuple[str, ...]) -> np.ndarray | None:
    """The areas that the data bring, over their mean."""
    for name in (*AREAS, *(n for n in dataset.variables if dataset[n].attrs.get("standard_name") == "cell_area")):
        if name in dataset.variables and dataset[name].dims == dims:
            area = np.asarray(dataset[name].values, dtype=np.float64).reshape(-1)
            if np.isfinite(area).all() and area.min() >= 0.0 and area.max() > 0.0:
                return area / area.mean()
    return None


def _is_axis(dataset: xr.Dataset, name: Any, dims: tuple[str, ...]) -> bool:
    """Return whether a variable describes the points and is no field."""
    return (
        name in dims
        or name in (*LATITUDES, *LONGITUDES, *AREAS)
        or (name in dataset.coords and {*dataset[name].dims} <= {*dims})
    )


def grid_attributes(grid: Grid) -> dict[str, object]:
    """Return what a dataset says of its set of cells; nothing of latitudes and longitudes."""
    if not isinstance(grid, PointGrid):
        return {}
    attributes = {"grid_family": grid.family, "grid_name": grid.name, "grid_coverage": grid.coverage}
    return attributes | ({"grid_raster": list(grid.raster)} if grid.raster else {})
