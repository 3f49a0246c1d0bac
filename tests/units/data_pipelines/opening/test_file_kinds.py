"""Stores with Python objects are refused, by the name of the array and of the codec, before any of it is read."""

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
