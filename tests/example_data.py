"""Small datasets as users bring them, with seas, holes and sums."""

import numpy as np
import xarray as xr


def dataset(times=120, step="6h", latitude=None, longitude=None, **more):
    """Random fields of a small grid: two that are predicted, a sea, a sum, a mask, and one with holes."""
    generator = np.random.default_rng(0)
    latitude = np.linspace(78.75, -78.75, 8) if latitude is None else latitude
    longitude = np.arange(16) * 22.5 if longitude is None else longitude
    shape = (times, latitude.size, longitude.size)

    def field(mean, units, name_shape=shape, dims=("time", "latitude", "longitude")):
        return dims, (mean + generator.standard_normal(name_shape)).astype("f4"), {"units": units}

    fields = {
        "temperature": field(270.0, "K", (times, 3, *shape[1:]), ("time", "level", "latitude", "longitude")),
        "2m_temperature": field(280.0, "K"),
        "sea_surface_temperature": field(290.0, "K"),
        "total_precipitation_6hr": field(0.0, "m"),
        "soil_temperature": field(280.0, "K"),
        "land_sea_mask": field(0.0, "1", shape[1:], ("latitude", "longitude")),
    } | more
    fields["total_precipitation_6hr"][1][:] = 1e-3
    fields["total_precipitation_6hr"][1][::2] = 0.0
    fields["sea_surface_temperature"][1][:, :, :3] = np.nan
    fields["soil_temperature"][1][:, 2, 2] = np.nan
    coords = {
        "time": xr.date_range("2001-01-01", periods=times, freq=step),
        "level": ("level", [500, 700, 850], {"units": "hPa"}),
        "latitude": latitude,
        "longitude": longitude,
    }
    return xr.Dataset(fields, coords)
