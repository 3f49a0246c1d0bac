"""Chunks read past zarr: the same numbers, whatever the format, the compression and the selection."""

import numpy as np
import pytest
import xarray as xr
from numcodecs import Blosc, GZip, Zstd
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from data_pipelines.reading.zarr_chunks import ChunkArray, with_direct_reads

COMPRESSORS = {
    2: [Blosc("lz4", 5, Blosc.SHUFFLE), Zstd(3), GZip(1), None],
    3: [BloscCodec(cname="lz4"), ZstdCodec(), GzipCodec(), None],
}


@pytest.mark.parametrize(
    ("version", "compressor"),
    [(v, c) for v, some in COMPRESSORS.items() for c in some],
    ids=lambda part: type(part).__name__,
)
def test_as_zarr_reads_them(tmp_path, version, compressor):
    random = np.random.default_rng(0)
    packed = {"scale_factor": 0.5, "add_offset": 3.0, "_FillValue": np.int16(7)}
    data = xr.Dataset(
        {
            "t": (("time", "level", "lon", "lat"), random.normal(size=(23, 3, 8, 6)).astype("f4")),
            "n": (("time", "lon", "lat"), random.integers(0, 99, (23, 8, 6)).astype("i2"), packed),
        },
        {"time": np.arange(23), "lat": np.arange(6.0)},
    )
    chosen = [compressor] if compressor else None
    encoding = {"t": {"chunks": (4, 3, 8, 4), "compressors": chosen}, "n": {"chunks": (5, 8, 6), "compressors": chosen}}
    data.to_zarr(tmp_path, zarr_format=version, encoding=encoding, consolidated=False)
    for path in [*tmp_path.glob("t/1.*"), *tmp_path.glob("t/c/1/*")][:1]:
        path.unlink() if path.is_file() else [p.unlink() for p in path.rglob("*") if p.is_file()]
    opened = with_direct_reads(xr.open_zarr(tmp_path, chunks=None, decode_cf=False, consolidated=False), tmp_path)
    assert all(isinstance(opened[name].variable._data.array, ChunkArray) for name in ("t", "n"))
    ours = xr.decode_cf(opened, decode_times=False)
    theirs = xr.open_zarr(tmp_path, chunks=None, decode_times=False, consolidated=False)
    xr.testing.assert_identical(ours.compute(), theirs.compute())
    assert ours["t"].isnull().any()  # the chunk that is gone
    reversed_ = slice(None, None, -1)
    for part in (
        {"time": [5, 2, 2, 9], "lat": reversed_},
        {"time": slice(3, 9), "lon": [1, 7], "level": 1},
        {"time": 7},
    ):
        xr.testing.assert_identical(ours.isel(part).compute(), theirs.isel(part).compute())


def test_what_is_more_than_bytes_is_left_to_zarr(tmp_path):
    field = xr.Dataset({"t": (("time", "lat"), np.zeros((8, 4), ">f4"))})
    field.to_zarr(tmp_path, zarr_format=3, encoding={"t": {"chunks": (1, 4), "shards": (4, 4)}}, consolidated=False)
    opened = xr.open_zarr(tmp_path, chunks=None, decode_cf=False, consolidated=False)
    assert not isinstance(getattr(with_direct_reads(opened, tmp_path)["t"].variable._data, "array", None), ChunkArray)
