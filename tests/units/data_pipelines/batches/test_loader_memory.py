"""Memory of the loader: what it takes is what it announced, of whatever source it reads."""

import gc
import tracemalloc
import warnings

import numpy as np
import pytest
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.loader import LoaderSettings, SequentialBatches, ShuffledBatches
from data_pipelines.batches.windows import Windows
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.packing.pack import PackingSettings, pack
from data_pipelines.reading.packed_store import PackedStore
from data_pipelines.reading.packed_view import packed_dataset
from emulators.grid import equiangular_grid

GRID, TIMES = equiangular_grid(32), 48
ROLES = VariableRoles(["temperature", "wind"])
SOURCES = {
    "packed": ({"per_file": 8}, ROLES, 0.0),
    "packed, compressed": ({"compression": "zstd", "dtype": "float16"}, ROLES, 0.0),
    "packed, some channels": ({}, VariableRoles([{"temperature": [500, 925]}]), 0.0),
    "one time a chunk": (1, ROLES, 0.0),
    "many times a chunk": (12, ROLES, 0.0),
    "many times a chunk, some kept": (6, ROLES, 0.005),
    "computed": (1, VariableRoles(["wind"], ["mean_toa_incident_solar_radiation_6hr"]), 0.0),
    "netcdf": (None, ROLES, 0.0),
    "all in memory": (None, ROLES, 1.0),
}


def stored(path, how) -> xr.Dataset:
    random = np.random.default_rng(0)
    dims = ("time", "level", "latitude", "longitude")
    fields = {
        name: (dims, random.normal(size=(TIMES, 5, *GRID.shape)).astype("f4"), {"units": units})
        for name, units in (("temperature", "K"), ("wind", "m s-1"))
    }
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(TIMES) * np.timedelta64(6, "h"),
        "level": ("level", [200.0, 500.0, 700.0, 850.0, 925.0], {"units": "hPa"}),
        "latitude": GRID.latitude,
        "longitude": GRID.longitude,
    }
    data = xr.Dataset(fields, coords)
    if isinstance(how, dict):
        pack(data, world_from_dataset(data, ROLES), path / "a.zarr", PackingSettings(**how))
        return packed_dataset(PackedStore(path / "a.zarr"))
    if how is None:
        data.to_netcdf(path / "a.nc")
        return open_dataset(path / "a.nc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoding = {name: {"chunks": (how, 5, *GRID.shape)} for name in fields}
        data.to_zarr(path / "a.zarr", encoding=encoding, consolidated=False)
    return open_dataset(path / "a.zarr")


def taken(batches, count) -> int:
    """Bytes that reading so many batches took at most, one of them in use."""
    gc.collect()
    tracemalloc.start()
    try:
        made = iter(batches)
        for _ in range(count):
            held = next(made)
        del held
        made.close()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOURCES)
def test_no_more_is_taken_than_was_announced(kind, tmp_path):
    how, roles, gigabytes = SOURCES[kind]
    data = stored(tmp_path, how)
    archive = Archive(data, world_from_dataset(data, roles), cache_gigabytes=gigabytes)
    windows = Windows(archive, ["2001", "2001"], rollout=3)
    training = ShuffledBatches(windows, 4, seed=1, reading=LoaderSettings(gigabytes=gigabytes))
    most = taken(training, 12)
    fields = archive.memory_bytes if archive.in_memory else 0  # PyTorch's, which are not traced
    assert most <= training.memory_bytes - fields + 500_000
    assert most > 0.2 * (training.memory_bytes - fields)
    validation = SequentialBatches(windows, 4)
    assert taken(validation, len(validation)) <= validation.memory_bytes + archive.memory_bytes + 500_000
