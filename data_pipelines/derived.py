"""Fields that follow from others in the data: geopotential from heights, surface pressure from geopotential.

    ln p_s = ln p_k + (phi_k - phi_s) / (phi_k - phi_{k+1}) * (ln p_{k+1} - ln p_k),    phi_k >= phi_s >= phi_{k+1}

the hydrostatic relation with ln p linear in geopotential between levels, and beyond the lowest. phi_s: geopotential at
the surface, 0 where the data have none (an ocean planet; the pressure is then that at mean sea level).
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from data_pipelines.naming import nearest
from data_pipelines.units import in_units
from emulators.constants import GRAVITY


def surface_pressure(dataset: xr.Dataset) -> xr.DataArray:
    """Surface pressure in Pa from `geopotential` of a canonical dataset on pressure levels, lazily."""
    if "geopotential" not in dataset.data_vars or "level" not in dataset["geopotential"].dims:
        raise ValueError("derive: surface_pressure needs geopotential on at least two pressure levels.")
    if dataset.sizes["level"] < 2:
        raise ValueError("derive: surface_pressure needs at least two levels; the data have one.")
    ground = dataset.get("geopotential_at_surface", xr.DataArray(0.0))
    pressure = xr.apply_ufunc(
        _pressure_where,
        dataset["geopotential"].chunk({"time": 1, "level": -1} if "time" in dataset.dims else {"level": -1}),
        ground,
        kwargs={"log_pressure": np.log(100.0 * dataset["level"].values.astype(np.float64))},
        input_core_dims=[["level"], []],
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    return pressure.assign_attrs(units="Pa", standard_name="surface_air_pressure", long_name="Surface pressure")


def _pressure_where(geopotential: np.ndarray, ground: np.ndarray, log_pressure: np.ndarray) -> np.ndarray:
    """Pressure where geopotential, (..., level) from the top down, equals `ground`."""
    below = np.clip((geopotential > np.asarray(ground)[..., None]).sum(axis=-1), 1, log_pressure.size - 1)[..., None]
    upper, lower = (np.take_along_axis(geopotential, i, axis=-1)[..., 0] for i in (below - 1, below))
    log_upper, log_lower = log_pressure[below - 1][..., 0], log_pressure[below][..., 0]
    share = (upper - ground) / (upper - lower)
    return np.exp(log_upper + share * (log_lower - log_upper)).astype(np.float32)


def geopotential(dataset: xr.Dataset) -> xr.DataArray:
    """Geopotential in m2 s-2 from `geopotential_height` of a canonical dataset, lazily."""
    return _times_gravity(dataset, "geopotential_height", "geopotential")


def geopotential_at_surface(dataset: xr.Dataset) -> xr.DataArray:
    """Geopotential of the ground in m2 s-2 from `surface_altitude` of a canonical dataset, lazily."""
    return _times_gravity(dataset, "surface_altitude", "geopotential_at_surface")


def _times_gravity(dataset: xr.Dataset, height: str, name: str) -> xr.DataArray:
    if height not in dataset.data_vars:
        raise ValueError(f"derive: {name} needs {height}; {nearest(height, dataset.data_vars)}")
    field = in_units(height, dataset[height], "m" if dataset[height].attrs.get("units") else "m -> m")
    lazy = field.chunk({"time": 1} if "time" in field.dims else {})
    return (lazy * np.float32(GRAVITY)).assign_attrs(units="m2 s-2", long_name=name.replace("_", " "))


DERIVED = {
    "surface_pressure": surface_pressure,
    "geopotential": geopotential,
    "geopotential_at_surface": geopotential_at_surface,
}
