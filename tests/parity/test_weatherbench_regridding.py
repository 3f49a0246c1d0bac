"""Regridding as WeatherBench 2 does it (weatherbench2 0.2.1), missing values included."""

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.conventions.canonical import canonical
from data_pipelines.derived.regridding import Regridding, regridded
from emulators.grid import LatLonGrid
from places import SHARED

FOLDER = SHARED / "reference" / "verification"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the reference numbers are not beside this checkout")


def reference(field: str, method: str, grid: str) -> xr.DataArray:
    expected = xr.open_dataset(FOLDER / "expected_regrid_from_240x121.nc")[f"{field}_{method}_{grid}"]
    names = {f"{name}_{grid}": name for name in ("latitude", "longitude")}
    return expected.rename(names).transpose("latitude", "longitude").isel(latitude=slice(None, None, -1))


def source(with_nan: bool) -> xr.Dataset:
    opened = xr.open_dataset(FOLDER / "obs_240x121.nc")[["2m_temperature"]].isel(time=[0]).load()
    if with_nan:
        opened["2m_temperature"][:, 34:60, 21:40] = np.nan
    return canonical(opened)


@pytest.mark.parametrize("grid", ["64x32", "60x31"])
@pytest.mark.parametrize("field", ["2m_temperature", "with_nan"])
@pytest.mark.parametrize("method", ["conservative", "bilinear", "nearest"])
def test_as_weatherbench2(method: str, field: str, grid: str) -> None:
    expected, dataset = reference(field, method, grid), source(field == "with_nan")
    target = LatLonGrid(expected["latitude"].values, expected["longitude"].values)
    found = regridded(dataset, target, method)["2m_temperature"][0].values
    known = ~np.isnan(expected.values)
    if method == "nearest":  # where two columns are equally near, either may be taken
        apart = np.sort(np.abs((target.longitude[:, None] - grid_of(dataset).longitude + 180) % 360 - 180), axis=1)
        known &= (apart[:, 1] - apart[:, 0] > 1e-9)[None]
    if method == "bilinear" and grid == "60x31":  # there also missing where a neighbour of no weight is
        assert (np.isnan(found) <= ~known).all()
    elif method != "nearest":
        np.testing.assert_array_equal(np.isnan(found), ~known)
    np.testing.assert_allclose(found[known], expected.values[known], rtol=1e-6)


def test_the_global_mean_is_exact() -> None:
    dataset = source(with_nan=False)
    where, field = grid_of(dataset), torch.from_numpy(dataset["2m_temperature"].values.astype(np.float64))
    expected = reference("2m_temperature", "conservative", "64x32")
    target = LatLonGrid(expected["latitude"].values, expected["longitude"].values)
    found = Regridding(where, target).conservative(field).numpy()
    np.testing.assert_allclose((found * target.weights).mean(), (field.numpy() * where.weights).mean(), rtol=1e-12)
