"""Stores with Python objects are refused before any of it is read; files of another kind are told with their source."""

import json
import os
import pickle

import numpy as np
import pytest
import xarray as xr

from data_pipelines.opening.datasets import open_dataset, open_files
from hostile import Touch

PICKLE = {"id": "pickle", "protocol": 5}
DELTA = {"id": "delta", "dtype": "<i8"}


def store(folder, marker, **changes):
    """A store of Zarr format 2 whose array `time` is a pickle that makes a file where it is read."""
    (folder / "time").mkdir(parents=True)
    (folder / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    array = {
        "zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "<i8", "compressor": None, "fill_value": 0,
        "order": "C", "filters": None, **changes,
    }  # fmt: skip
    (folder / "time" / ".zarray").write_text(json.dumps(array))
    (folder / "time" / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["time"]}))
    (folder / "time" / "0").write_bytes(pickle.dumps(Touch(str(marker))))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "|O", "fill_value": None, "filters": [PICKLE]},
        {"filters": [PICKLE]},
        {"compressor": PICKLE},
        {"filters": [DELTA, PICKLE]},
        {"dtype": "|O", "fill_value": None, "filters": [{"id": "vlen-array", "dtype": "|O"}]},
        {"dtype": "|O", "fill_value": None, "filters": [{"id": "json2"}]},
        {"dtype": "|O", "fill_value": None},
    ],
)
def test_objects_are_refused_by_name(tmp_path, changes):
    with pytest.raises(ValueError, match="the array 'time' holds Python objects"):
        open_files(store(tmp_path / "s.zarr", tmp_path / "marker", **changes))
    assert not os.path.exists(tmp_path / "marker")


def test_in_format_3_too(tmp_path):
    xr.Dataset({"t": ("x", np.zeros(3))}).to_zarr(tmp_path / "s.zarr", zarr_format=3, consolidated=False)
    file = tmp_path / "s.zarr" / "t" / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
    file.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=r"the array 't' holds Python objects \(numcodecs.pickle\)"):
        open_files(tmp_path / "s.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_text_is_read(tmp_path, zarr_format):
    names = np.array(["alps", "andes and more"], dtype=object)
    dataset = xr.Dataset({"name": ("x", names), "t": ("x", np.arange(2.0))})
    dataset.to_zarr(tmp_path / "s.zarr", zarr_format=zarr_format, consolidated=False)
    assert open_files(tmp_path / "s.zarr")[0]["name"].values.tolist() == names.tolist()


def test_a_folder_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("data_pipelines.opening.file_kinds.MOST_ENTRIES", 3)
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("")
    with pytest.raises(ValueError, match="more than 3 files and folders; give the folder or a pattern"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "engine", "said"),
    [
        ("a.nc", "zarr", "Expected a Zarr store; .*a.nc is NetCDF: open it with data=netcdf"),
        ("a.nc", "grib", "Expected GRIB; .*a.nc is NetCDF: open it with data=netcdf"),
        ("store.zarr", "netcdf", "Expected NetCDF; .*is a Zarr store: open it with data=zarr"),
        ("files", "zarr", "files is NetCDF: open it with data=netcdf"),
        ("files", "grib", "files is NetCDF: open it with data=netcdf"),
        ("b.grib", "netcdf", "b.grib is GRIB: open it with data=grib"),
        ("b.grib", None, "it is NetCDF; give it a name that ends in .nc"),
        ("b.nc", None, "it is GRIB; give it a name that ends in .grib"),
        ("gs://bucket/x.zarr", "netcdf", "gs://bucket/x.zarr is a Zarr store: open it with data=zarr"),
        ("s3://me:secret@bucket/x.nc", None, r"read from this machine; got the address s3://\*\*\*@bucket/x.nc"),
    ],
)
def test_another_kind_than_the_source_opens_is_told(tmp_path, name, engine, said):
    if (name, engine) == ("b.grib", None):
        pytest.importorskip("cfgrib")
    for place in ("a.nc", "files/a.nc", *(["b.grib"] if engine is None else [])):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        xr.Dataset({"t": 280.0}).to_netcdf(tmp_path / place, engine="netcdf4")
    for place in ("b.nc", *(["b.grib"] if engine else [])):
        (tmp_path / place).write_bytes(b"GRIB" + bytes(96))
    (tmp_path / "store.zarr").mkdir()
    (tmp_path / "store.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(ValueError, match=said):
        open_dataset(name if "://" in name else tmp_path / name, engine=engine)
