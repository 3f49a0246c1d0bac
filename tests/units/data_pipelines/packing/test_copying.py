"""Copies of datasets: whole or not there, resumed where they stopped, with checksums that tell damage."""

import json

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.canonical import canonical
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.packing import copying
from data_pipelines.packing.copying import copy_to_zarr, damaged_files
from data_pipelines.reading.threads import DamagedData
from emulators.grid import equiangular_grid

GRID = equiangular_grid(8)


def dataset(times=10) -> xr.Dataset:
    values = np.random.default_rng(0).random((times, 2, *GRID.shape), dtype="float32")
    values[3, 0, 0, 0] = np.nan
    return canonical(
        xr.Dataset(
            {
                "temperature": (("time", "level", "latitude", "longitude"), values, {"units": "K"}),
                "2m_temperature": (("time", "latitude", "longitude"), values[:, 0], {"units": "K"}),
                "land_sea_mask": (("latitude", "longitude"), values[0, 0], {"units": "1"}),
            },
            {
                "time": np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h"),
                "level": ("level", [500.0, 850.0], {"units": "hPa"}),
                "latitude": GRID.latitude,
                "longitude": GRID.longitude,
            },
            {"timestep": "6h"},
        )
    )


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(copying, "CHUNK_BYTES", 2 * 4 * 2 * 128)  # two times
    monkeypatch.setattr(copying, "BLOCK_BYTES", 4 * 4 * 3 * 128)  # four times
    monkeypatch.setattr(copying, "WAITS", (0.0,))


def test_a_copy_is_the_data(tmp_path):
    said = []
    path = copy_to_zarr(dataset(), tmp_path / "a" / "b.zarr", {"of": "x"}, lambda *words: said.append(words))
    found = open_dataset(path)
    xr.testing.assert_equal(found, dataset())
    assert found["temperature"].encoding["chunks"] == (2, 2, 8, 16)
    assert found.attrs["timestep"] == "6h"
    assert [share for _, share in said] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert damaged_files(path) == []
    assert [p.name for p in path.parent.iterdir()] == ["b.zarr"]
    before = (path / "checksums.json").stat().st_mtime_ns
    copy_to_zarr(dataset(), path, {"of": "x"})
    assert (path / "checksums.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="holds something else"):
        copy_to_zarr(dataset(), path, {"of": "y"})
    chunk = next(p for p in sorted(path.rglob("c/*/*/*/*")) if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    assert damaged_files(path) == [chunk.relative_to(path).as_posix()]
    assert damaged_files(tmp_path) is None


def test_a_stopped_copy_goes_on(tmp_path, monkeypatch):
    path, written = tmp_path / "b.zarr", []
    write = copying._write

    def stopped(data, partial, block):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(block.start)
        write(data, partial, block)

    monkeypatch.setattr(copying, "_write", stopped)
    with pytest.raises(KeyboardInterrupt):
        copy_to_zarr(dataset(), path, {"of": "x"})
    assert not path.exists()
    assert json.loads((tmp_path / ".b.zarr.partial" / "progress.json").read_bytes())["blocks"] == 2
    with pytest.raises(ValueError, match="unfinished copy of something else"):
        copy_to_zarr(dataset(), path, {"of": "y"})
    written.clear()
    copy_to_zarr(dataset(), path, {"of": "x"})
    assert written == [8]
    xr.testing.assert_equal(open_dataset(path), dataset())


def test_chunks_of_the_source_are_read_once(tmp_path, monkeypatch):
    data, blocks = dataset(), []
    data["temperature"].encoding["preferred_chunks"] = {"time": 7}
    monkeypatch.setattr(copying, "_write", lambda _, __, block: blocks.append(block))
    copy_to_zarr(data, tmp_path / "b.zarr", {})
    assert blocks == [slice(0, 8), slice(8, 10)]


def test_what_cannot_be_read_is_named(tmp_path):
    data = dataset().assign_attrs(origin="gs://somewhere/x.zarr")
    tries = []

    def broken(values):
        tries.append(1)
        raise OSError("connection reset")

    field = data["2m_temperature"].chunk({"time": 1})
    data["2m_temperature"] = xr.apply_ufunc(broken, field, dask="parallelized", output_dtypes=[np.float32])
    with pytest.raises(DamagedData, match=r"'2m_temperature' at 2001-01-01T00:00:00 from gs://.*connection reset"):
        copy_to_zarr(data, tmp_path / "b.zarr", {})
    assert len(tries) >= 2
    assert not (tmp_path / "b.zarr").exists()


def test_room_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(copying.shutil, "disk_usage", lambda _: copying.shutil._ntuple_diskusage(1, 1, 100))
    with pytest.raises(ValueError, match="has room for 1e-07 GB"):
        copy_to_zarr(dataset(), tmp_path / "b.zarr", {})
