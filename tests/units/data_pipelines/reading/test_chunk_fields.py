"""Chunks of whole fields decoded into their place: the same numbers as through xarray, whatever the layout."""

import threading
import time

import numpy as np
import pytest
import xarray as xr
from numcodecs import Blosc, Zstd

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.reading import fields, threads
from data_pipelines.reading.threads import DamagedData

POSITIONS = np.array([7, 3, 3, 4, 22, 0])
LAYOUTS = {
    "as wanted": (("time", "level", "latitude", "longitude"), 1, Blosc("lz4", 5, Blosc.SHUFFLE), slice(None, None, -1)),
    "as WeatherBench 2 has it": (("time", "level", "longitude", "latitude"), 5, Blosc("zstd"), slice(None)),
    "levels first": (("level", "latitude", "time", "longitude"), 4, Zstd(1), slice(None)),
    "plain": (("time", "level", "latitude", "longitude"), 7, None, slice(None)),
}


def stored(path, layout, west=0.0):
    """A store of temperature and 2m_temperature at 23 times; the chunk of the first times is missing."""
    dims, times, compressor, rows = LAYOUTS[layout]
    random = np.random.default_rng(0)
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(23) * np.timedelta64(6, "h"),
        "level": ("level", [300, 500, 850], {"units": "hPa"}),
        "latitude": np.linspace(-70, 70, 6)[rows],
        "longitude": west + 45.0 * np.arange(8),
    }
    sizes = {"time": 23, "level": 3, "latitude": 6, "longitude": 8}
    surface = tuple(d for d in dims if d != "level")
    fields = {"temperature": dims, "2m_temperature": surface}
    data = xr.Dataset(
        {n: (d, random.normal(size=[sizes[k] for k in d]).astype("f4"), {"units": "K"}) for n, d in fields.items()},
        coords,
    )
    compressors = [compressor] if compressor else None
    encoding = {
        n: {"chunks": tuple(times if k == "time" else sizes[k] for k in d), "compressors": compressors}
        for n, d in fields.items()
    }
    data.to_zarr(path, zarr_format=2, encoding=encoding, consolidated=True)
    return open_dataset(path)


def archive(data, *variables):
    return Archive(data, world_from_dataset(data, VariableRoles(list(variables))), cache_gigabytes=0)


@pytest.mark.parametrize("west", [0.0, -180.0])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_numbers_of_the_source(tmp_path, layout, west):
    data = stored(tmp_path, layout, west)
    made = archive(data, {"temperature": [850, 300]}, "2m_temperature")
    assert set(made.fields._chunked) == {"temperature", "2m_temperature"}
    for _ in range(2):  # memory that is used again
        found = made.gather(POSITIONS).numpy()
        expected = data["temperature"].sel(level=[850, 300]).isel(time=POSITIONS).values
        np.testing.assert_array_equal(found[:, :2], expected)
        np.testing.assert_array_equal(found[:, 2], data["2m_temperature"].isel(time=POSITIONS).values)
    np.testing.assert_array_equal(np.flatnonzero(made._checked), np.unique(POSITIONS))


def test_cut_data_and_other_chunks(tmp_path):
    data = stored(tmp_path / "a", "plain")
    part = data.isel(time=slice(2, 20), latitude=slice(1, 4), longitude=[0, 1, 5])
    found = archive(part, {"temperature": [500]})
    assert set(found.fields._chunked) == {"temperature"}
    np.testing.assert_array_equal(
        found.gather(np.array([4, 17]))[:, 0], part["temperature"].sel(level=500).isel(time=[4, 17])
    )
    changed = data.assign(temperature=data["temperature"] + 1.0)
    assert not archive(changed, {"temperature": [500]}).fields._chunked
    data.drop_encoding().to_zarr(tmp_path / "b", encoding={"temperature": {"chunks": (1, 2, 6, 8)}})
    assert "temperature" not in archive(open_dataset(tmp_path / "b"), "temperature").fields._chunked


def test_absent_and_damaged_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "WAITS", (0.0,))
    made = archive(stored(tmp_path, "as wanted"), "temperature")
    chunk = tmp_path / "temperature" / "4.0.0.0"
    content = chunk.read_bytes()
    for damaged in (content[:-9], content[:20], b""):
        chunk.write_bytes(damaged)
        with pytest.raises(DamagedData, match="'temperature' at 2001-01-02T00:00:00"):
            made.gather(np.array([3, 4, 5]))
    chunk.unlink()
    with pytest.raises(ValueError, match=r"is missing .* at 2001-01-02T00:00:00"):
        made.gather(np.array([4]))


def test_a_read_that_hangs_writes_no_more(tmp_path, monkeypatch):
    made, awake, done = archive(stored(tmp_path, "as wanted"), "temperature"), threading.Event(), threading.Event()
    read = fields.read_as_stored

    def hanging(*arguments):
        awake.wait(10.0)
        found = read(*arguments)
        done.set()
        return found

    monkeypatch.setattr(fields, "read_as_stored", hanging)
    monkeypatch.setattr(threads, "TIMEOUT", 0.05)
    out = np.zeros((1, 3, 6, 8), np.float32)
    expected = made.gather(np.array([4]), out).clone()
    assert (expected != 0).all()
    out[...] = 5.0
    awake.set()
    done.wait(10.0)
    time.sleep(0.01)
    assert (out == 5.0).all()
