"""Files that the readers of the tutorials have: ERA5 of the Climate Data Store, and forecasts of another system."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

LATITUDE = np.linspace(90.0, -90.0, 9)
LONGITUDE = np.arange(0.0, 360.0, 22.5)
LEVELS = np.array([500.0, 850.0])


def waves(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Weather of a kind: waves that travel eastward, and noise. shape: (time, ..., lat, lon)."""
    generator = np.random.default_rng(seed)
    time = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    phase = 3 * np.deg2rad(LONGITUDE) - 2 * np.pi * time / 17
    field = np.cos(np.deg2rad(LATITUDE))[:, None] * np.sin(phase) + 0.1 * generator.standard_normal(shape)
    return field.astype(np.float32)


def climate_data_store(folder: Path, first: str = "2015-01-01", last: str = "2021-01-01", hours: int = 24) -> None:
    """Write era5/*.nc: levels and single levels in files of their own, with short names and `valid_time`."""
    folder.mkdir(parents=True, exist_ok=True)
    time = np.arange(first, last, np.timedelta64(hours, "h"), dtype="datetime64[h]").astype("datetime64[ns]")
    coords = {"valid_time": time, "latitude": LATITUDE, "longitude": LONGITUDE}
    columns = (time.size, LEVELS.size, LATITUDE.size, LONGITUDE.size)
    at = ("valid_time", "pressure_level", "latitude", "longitude")
    z = 5e4 + 1e3 * waves(columns, 1)
    t = 260.0 + 10.0 * waves(columns, 2)
    upper = xr.Dataset(
        {"z": (at, z, {"units": "m**2 s**-2"}), "t": (at, t, {"units": "K"})},
        {**coords, "pressure_level": ("pressure_level", LEVELS, {"units": "hPa"})},
    )
    upper.to_netcdf(folder / "levels.nc")
    surface = 280.0 + 10.0 * waves((time.size, LATITUDE.size, LONGITUDE.size), 3)
    xr.Dataset({"t2m": ((at[0], *at[2:]), surface, {"units": "K"})}, coords).to_netcdf(folder / "surface.nc")


def forecasts_and_truth(folder: Path) -> None:
    """Write era5.zarr, forecasts.zarr and hres.zarr in the layout of WeatherBench 2."""
    time = np.arange("2015-01-01", "2020-12-31T12", np.timedelta64(12, "h"), dtype="datetime64[h]")
    coords = {"time": time.astype("datetime64[ns]"), "latitude": LATITUDE[::-1].copy(), "longitude": LONGITUDE}
    truth = xr.Dataset(coords=coords)
    for seed, (name, mean, units) in enumerate(
        (("2m_temperature", 280.0, "K"), ("10m_u_component_of_wind", 2.0, "m s**-1"))
    ):
        field = mean + 5.0 * waves((time.size, LATITUDE.size, LONGITUDE.size), seed)
        truth[name] = (("time", "latitude", "longitude"), field, {"units": units})
    truth.to_zarr(folder / "era5.zarr", mode="w")
    starts = truth["time"].sel(time=slice("2020-02-01", "2020-11-30")).values[::10]
    leads = np.arange(24, 121, 24).astype("timedelta64[h]").astype("timedelta64[ns]")
    for name, size in (("forecasts", 0.5), ("hres", 0.8)):
        generator = np.random.default_rng(len(name))
        valid = truth.sel(time=xr.DataArray(starts[:, None] + leads, dims=("start", "prediction_timedelta")))
        made = valid.drop_vars("time")
        for key, field in made.data_vars.items():
            noise = size * generator.standard_normal(field.shape)
            made[key] = (field + noise).astype(np.float32).assign_attrs(units=truth[key].attrs["units"])
        made = made.rename(start="time").assign_coords(time=starts, prediction_timedelta=leads)
        made.to_zarr(folder / f"{name}.zarr", mode="w")
