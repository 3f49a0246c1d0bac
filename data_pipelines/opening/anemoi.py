"""Convert stores of anemoi-datasets: one array `data` (time, variable, ensemble, cell) to variables on a grid.

    t_850, t_500, ...  ->  temperature (time, level, latitude, longitude);    field_shape  ->  (latitude, longitude)

Dates that the store lists as missing are left out, so that they are gaps. The statistics inside it cover a period of
its own, not the one that is trained on; they are not used. Layout: https://anemoi.readthedocs.io, anemoi-datasets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.dialects import dialects, stacked

DIMENSIONS = ("time", "variable", "ensemble", "cell")


# Units in which the European centre has what the store names by its short names.
UNITS = {
    **dict.fromkeys(("t", "2t", "2d", "skt", "sst"), "K"),
    **dict.fromkeys(("u", "v", "10u", "10v", "100u", "100v"), "m s-1"),
    **dict.fromkeys(("sp", "msl"), "Pa"),
    **dict.fromkeys(("tp", "cp", "sf", "ro"), "m"),
    **dict.fromkeys(("lsm", "tcc", "ci"), "1"),
    **dict.fromkeys(("tcw", "tcwv"), "kg m-2"),
    **dict.fromkeys(("ssrd", "strd"), "J m-2"),
    "q": "kg kg-1",
    "w": "Pa s-1",
    "z": "m2 s-2",
}
SURFACE = {"z": "geopotential_at_surface"}


def is_anemoi(dataset: xr.Dataset) -> bool:
    """Return whether an opened store is one of anemoi-datasets."""
    return "variables" in dataset.attrs and "data" in dataset.variables and dataset["data"].ndim == len(DIMENSIONS)


def fields_by_name(dataset: xr.Dataset) -> xr.Dataset:
    """Return the fields of a store by name, with the dimension `ensemble` if there are several members.

    ValueError if its cells do not form rows and columns.
    """
    data = dataset["data"]
    data = data.rename(dict(zip(data.dims, DIMENSIONS, strict=True)))
    if data.sizes["ensemble"] == 1:
        data = data.isel(ensemble=0)
    data = data.chunk({"time": 1})
    rows, columns, latitude, longitude = _rows_and_columns(dataset)
    names = [str(name) for name in dataset.attrs["variables"]]
    short = {name: _short(name, dataset.attrs.get("variables_metadata", {}).get(name, {})) for name in names}
    times = dataset["dates"].rename({dataset["dates"].dims[0]: "time"}).reset_coords(drop=True)
    dims = (*(d for d in data.dims if d not in ("variable", "cell")), "latitude", "longitude")
    fields = {}
    for index, name in enumerate(names):
        field = data.isel(variable=index)
        values = field.data.reshape(*field.shape[:-1], rows, columns)
        fields[short[name]] = (dims, values, {"units": UNITS.get(re.sub(r"_\d+$", "", short[name]), "")})
    coords = {"time": times.variable, "latitude": ("latitude", latitude), "longitude": ("longitude", longitude)}
    made = xr.Dataset(fields, coords)
    for base in dict.fromkeys(re.sub(r"_\d+$", "", name) for name in fields if re.search(r"_\d+$", name)):
        made = stacked(made, base, _long(base), "hPa")
    made = made.rename({name: long for name, long in SURFACE.items() if name in made.variables})
    kept = np.isin(_texts(times), list(dataset.attrs.get("missing_dates") or []), invert=True)
    return made if kept.all() else made.isel(time=np.flatnonzero(kept))


def _rows_and_columns(dataset: xr.Dataset) -> tuple[int, int, np.ndarray, np.ndarray]:
    latitude, longitude = (np.asarray(dataset[n].values, dtype=np.float64) for n in ("latitudes", "longitudes"))
    shape = [int(n) for n in dataset.attrs.get("field_shape") or ()]
    if len(shape) != 2:
        rows = np.unique(np.round(latitude, 4)).size
        shape = [rows, latitude.size // rows]
    if shape[0] * shape[1] == latitude.size:
        by_row, by_column = latitude.reshape(shape), longitude.reshape(shape)
        if np.ptp(by_row, axis=1).max() < 1e-3 and np.ptp(by_column, axis=0).max() < 1e-3:
            return shape[0], shape[1], by_row[:, 0], by_column[0]
    raise ValueError(
        f"The {latitude.size} cells of this store are no rows and columns of latitude and longitude, as on a reduced "
        "Gaussian grid; make it on a regular grid, or regrid it first."
    )


def _short(name: str, metadata: Mapping[str, Any]) -> str:
    """Return a name such as `t_850` from the retrieval keys of a variable if the store has them, else its name."""
    keys = metadata.get("mars", {})
    if keys.get("levtype") == "pl" and "param" in keys and "levelist" in keys:
        return f"{keys['param']}_{keys['levelist']}"
    return name


def _long(short: str) -> str:
    """Return the name of a variable that is stacked from its levels."""
    return "geopotential" if short == "z" else dialects()["common"].names.get(short, short)


def _texts(times: xr.DataArray) -> np.ndarray:
    """Format times as the store lists dates, `2020-01-01T06:00:00`."""
    from data_pipelines.conventions.calendars import datetimes

    return datetimes(times, "the store").astype("datetime64[s]").astype(str)
