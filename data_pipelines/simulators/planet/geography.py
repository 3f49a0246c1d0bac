"""Geography of the planet: land fraction and surface height.

    land  = 1 - prod_i (1 - w_i),    w = 1/4 (tanh((x - x0) / s) - tanh((x - x1) / s)) (tanh((y - y0) / s) - ...)
    height = sum_j h_j exp(-((x - x_j) / a_j)^2 - ((y - y_j) / b_j)^2)

in longitude x and latitude y. The continents are idealised after the Earth's: a long double continent with a ridge
along its western coast, a large one with a plateau, one across the equator, a small southern one, a northern island
under ice and one at the south pole. Heights are filtered in spectral space, exp(-2 (l (l + 1) / (N (N + 1)))^2), to
avoid ringing of the heights and of the flow above them (Navarra, Stern & Miyakoda 1994, doi
10.1175/1520-0442(1994)007<1169:ROTGOI>2.0.CO;2).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.conventions.suggestions import suggestion
from emulators.constants import GRAVITY
from emulators.grid import LatLonGrid, lat_lon

COAST = 4.0  # degrees, width of the transition from land to water


# west, east (degrees at the equator), shift of both by degree of latitude, south, north
CONTINENTS = (
    (243.0, 283.0, -0.25, 12.0, 72.0),
    (283.0, 318.0, 0.15, -55.0, 8.0),
    (345.0, 42.0, 0.0, -34.0, 36.0),
    (0.0, 130.0, 0.15, 32.0, 72.0),
    (68.0, 105.0, 0.2, 10.0, 40.0),
    (115.0, 152.0, 0.0, -38.0, -14.0),
    (306.0, 331.0, 0.0, 62.0, 82.0),
    (-180.0, 180.0, 0.0, -100.0, -72.0),
)


# longitude, latitude, half-widths of both in degrees, height in m
MOUNTAINS = (
    (250.0, 44.0, 10.0, 16.0, 2200.0),
    (289.0, -22.0, 8.0, 22.0, 2600.0),
    (88.0, 34.0, 20.0, 9.0, 3800.0),
    (55.0, 36.0, 18.0, 7.0, 1200.0),
    (33.0, -8.0, 11.0, 22.0, 1100.0),
    (318.0, 72.0, 14.0, 8.0, 1500.0),
)
ICE_CAP = (-90.0, 16.0, 2600.0)  # latitude, half-width, height of the southern continent


@dataclass(frozen=True)
class Geography:
    """Hold land fraction (0 to 1) and surface geopotential (m2 s-2), both float64, (lat, lon)."""

    land: np.ndarray
    geopotential: np.ndarray

    @property
    def is_water(self) -> bool:
        """Whether there is no land at all."""
        return not self.land.any()


def water(grid: LatLonGrid) -> Geography:
    """Return the geography of a planet covered with water."""
    return Geography(np.zeros(grid.shape), np.zeros(grid.shape))


def continents(grid: LatLonGrid, truncation: int) -> Geography:
    """Return the idealised continents on `grid`; the geopotential is truncated at degree `truncation`."""
    latitude, longitude = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    sea = np.ones(grid.shape)
    for west, east, shift, south, north in CONTINENTS:
        width = (
            east - west
        ) % 360.0 or 720.0  # 720 for a continent all around the globe, which has no coasts in longitude
        along = _eastward(longitude - west - 0.5 * width - shift * latitude) if width < 360.0 else 0.0 * longitude
        across = np.tanh((along + 0.5 * width) / COAST) - np.tanh((along - 0.5 * width) / COAST)
        sea *= 1.0 - 0.25 * across * (np.tanh((latitude - south) / COAST) - np.tanh((latitude - north) / COAST))
    height = np.zeros(grid.shape)
    for x, y, width, depth, top in MOUNTAINS:
        height += top * np.exp(-((_eastward(longitude - x) / width) ** 2) - ((latitude - y) / depth) ** 2)
    pole, depth, top = ICE_CAP
    height += top * np.exp(-(((latitude - pole) / depth) ** 2))
    return Geography(np.clip(1.0 - sea, 0.0, 1.0).round(4), _filtered(GRAVITY * height, grid, truncation))


def from_file(path: str | Path, grid: LatLonGrid, truncation: int) -> Geography:
    """Read land_sea_mask and geopotential_at_surface (or orography in m) and interpolate them linearly to `grid`.

    Raises ValueError if the file lacks a field, or if a field has gaps or other dimensions than latitude and longitude.
    """
    from data_pipelines.conventions.attributes import grid_of
    from data_pipelines.opening.datasets import open_dataset

    rename = {"orog": "orography", "z": "geopotential_at_surface"}
    dataset = open_dataset(path)
    dataset = dataset.rename({old: new for old, new in rename.items() if old in dataset and new not in dataset})
    scales = {"geopotential_at_surface": 1.0, "orography": GRAVITY}
    for name in (["land_sea_mask"] if "land_sea_mask" not in dataset else []) + (
        [] if any(name in dataset for name in scales) else ["geopotential_at_surface"]
    ):
        raise ValueError(f"geography: no '{name}' in {path}; {suggestion(name, dataset.data_vars)}")
    name = next(name for name in scales if name in dataset)
    source = lat_lon(grid_of(dataset))
    fields = [dataset[field].squeeze(drop=True) for field in ("land_sea_mask", name)]
    for field in fields:
        if field.dims != ("latitude", "longitude") or not np.isfinite(field.values).all():
            raise ValueError(
                f"geography: expected '{field.name}' on (latitude, longitude) without gaps; got {field.dims} in {path}."
            )
    land, height = (_interpolated(field.values.astype(np.float64), source, grid) for field in fields)
    return Geography(land.clip(0.0, 1.0), _filtered(scales[name] * height, grid, truncation))


def _eastward(degrees: np.ndarray) -> np.ndarray:
    """Map differences of longitude to [-180, 180)."""
    return (degrees + 180.0) % 360.0 - 180.0


def _interpolated(field: np.ndarray, source: LatLonGrid, grid: LatLonGrid) -> np.ndarray:
    """Interpolate linearly in latitude, then periodically in longitude; poleward of the last row, use the last row."""
    rows = np.stack([np.interp(-grid.latitude, -source.latitude, column) for column in field.T], axis=1)
    return np.stack([np.interp(grid.longitude, source.longitude, row, period=360.0) for row in rows])


def _filtered(field: np.ndarray, grid: LatLonGrid, truncation: int) -> np.ndarray:
    """Truncate `field` (lat, lon) at degree `truncation` and damp its finest scales."""
    import torch

    from emulators.sphere.transform import SphericalHarmonics

    sphere = SphericalHarmonics(grid, truncation + 1, truncation + 1, torch.float64)
    degree = np.arange(truncation + 1)
    taper = np.exp(-2.0 * (degree * (degree + 1) / (truncation * (truncation + 1))) ** 2)
    coefficients = sphere.analysis(torch.from_numpy(field.T.copy())[..., None])
    return sphere.synthesis(coefficients * torch.from_numpy(taper)[None, :, None])[..., 0].T.contiguous().numpy()
