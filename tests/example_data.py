"""Small datasets as users bring them, with seas, holes and sums."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.simulators.stores import SURFACE, empty_dataset
from emulators.grid import gaussian_grid


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


class CircleSource:
    """A source of one variable on a circle, six-hourly, that can be simulated on from any State; its values are drawn.

    advance: from the variable at one time to the next.
    """

    state_variables = ("x",)
    hidden = ()

    def __init__(
        self, path: Path, times: int, points: int, advance: Callable[[np.ndarray], np.ndarray], splits: dict
    ) -> None:
        self.path, self.points, self.advance, self.splits = path, points, advance, splits
        self.times = np.datetime64("2001-01-01", "s") + np.arange(times) * np.timedelta64(6 * 3600, "s")
        self.values = np.random.default_rng(0).standard_normal((times, 1, points)).astype(np.float32)

    def template(self) -> xr.Dataset:
        return empty_dataset({"x": (SURFACE, "1", "", "x")}, gaussian_grid(1, self.points), self.times)

    def prepare(self, progress=None) -> None: ...

    def dataset(self) -> xr.Dataset:
        return self.template().assign(x=(SURFACE, self.values, {"units": "1"}))

    def twins(self, cases, leads, perturbation, report, forgotten=()): ...

    def continued(self, first, start) -> Iterator:
        x = first["x"]
        while True:
            x = self.advance(x)
            yield {"x": x.astype(np.float32)}
