"""Digests do not depend on order or spelling; fingerprints notice other data, and nothing else."""

import os
import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from zarr.codecs import Crc32cCodec

from data_pipelines.files.fingerprints import data_differences, fingerprint, is_rewritten
from data_pipelines.files.identity import differences, digest, recipe_of, weights_digest


def fields(seed=0, times=40, size=8):
    values = np.random.default_rng(seed).normal(size=(times, size, 2 * size)).astype("f4")
    coordinates = {
        "time": xr.date_range("2001-01-01", periods=times, freq="6h"),
        "latitude": np.linspace(80, -80, size),
        "longitude": np.arange(2 * size) * 180.0 / size,
    }
    dims = ("time", "latitude", "longitude")
    return xr.Dataset({"t": (dims, values, {"units": "K"})}, coordinates)


def test_a_digest_ignores_order_and_the_spelling_of_numbers():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": (1.0, np.int64(2)), "a": np.float32(1)})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest({"a": True}) != digest({"a": 1})
    assert digest({"a": "1"}) != digest({"a": 1})
    assert digest(np.datetime64("2001-01-01")) == digest("2001-01-01")


def test_differences_are_told_by_key():
    before, after = {"a": {"b": 1, "c": 2}, "d": None}, {"a": {"b": 1.0, "c": 3}, "e": [1]}
    assert differences(before, after) == ["a.c was 2, is 3", "d was null, is gone", "e was not there, is [1]"]
    assert differences(before, before) == []


def test_a_recipe_is_what_data_hold_not_where_they_lie():
    one = {"_target_": "x", "path": "/a", "fill": None, "splits": {"train": [1, 2]}, "units": {"t": "K"}}
    assert recipe_of(one) == recipe_of({**one, "path": "/b", "cache_gigabytes": 3})
    assert recipe_of({"sources": [one]}) == recipe_of({"sources": [{**one, "path": "/b"}]})
    assert recipe_of(one) != recipe_of({**one, "units": {"t": "degC"}})


def test_weights_are_digested_by_name_and_bit():
    weights = {"b": torch.zeros(3), "a": torch.ones(2, 2)}
    assert weights_digest(weights) == weights_digest(dict(reversed(weights.items())))
    assert weights_digest(weights) != weights_digest({**weights, "b": torch.tensor([0.0, 0.0, -0.0])})


@pytest.mark.parametrize("form", [2, 3, "crc32c", "nc"])
def test_data_are_recognised_after_a_copy_and_others_are_not(tmp_path, form):
    """crc32c: chunks of one size, each with its CRC behind it, as all that is written here."""

    def write(dataset, name):
        path = tmp_path / name
        shutil.rmtree(path, ignore_errors=True)
        if form == "nc":
            dataset.to_netcdf(path)
        elif form == "crc32c":
            encoding = {name: {"compressors": [Crc32cCodec()]} for name in dataset.data_vars}
            dataset.to_zarr(path, zarr_format=3, mode="w", encoding=encoding)
        else:
            dataset.to_zarr(path, zarr_format=form, mode="w")
        return path

    first = fingerprint(write(fields(), "a"))
    os.utime(tmp_path / "a", (1, 1))
    assert data_differences(first, fingerprint(tmp_path / "a")) == []
    copy = shutil.copy if form == "nc" else shutil.copytree
    copy(tmp_path / "a", tmp_path / "b")
    assert data_differences(first, fingerprint(tmp_path / "b")) == []
    assert data_differences(first, fingerprint(write(fields(1), "a")))
    assert data_differences(first, fingerprint(write(fields(0, 44), "a")))
    renamed = fields().rename(t="u")
    assert data_differences(first, fingerprint(write(renamed, "a")))
    kelvin = fields()
    kelvin["t"].attrs["units"] = "C"
    assert data_differences(first, fingerprint(write(kelvin, "a")))


def test_large_files_are_sampled_and_say_when_they_were_written(tmp_path):
    path = tmp_path / "d.nc"
    content = np.random.default_rng(0).bytes(8_000_000)
    path.write_bytes(content)
    before = fingerprint(str(path))
    assert before["bytes"] == 8_000_000
    assert not before["whole"]
    path.write_bytes(content)
    os.utime(path, (1, 1))
    assert data_differences(before, fingerprint(path)) == []
    assert is_rewritten(before, fingerprint(path))
    path.write_bytes(content[:-1] + b"x")
    assert data_differences(before, fingerprint(path)) == ["other content"]


def test_several_files_and_patterns_are_one_dataset(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.nc").write_bytes(b"a" * (number + 1))
    both = fingerprint(str(tmp_path / "*.nc"))
    assert both == fingerprint([str(tmp_path / f"{number}.nc") for number in range(3)])
    assert both["files"] == 3
    (tmp_path / "3.nc").write_bytes(b"a")
    found = data_differences(both, fingerprint(str(tmp_path / "*.nc")))
    assert "number of files was 3, is 4" in found


def test_a_dataset_tells_times_grid_and_variables():
    one, two = (fingerprint("memory://x", dataset) for dataset in (fields(), fields(times=44)))
    assert one["times"] == "40 from 2001-01-01T00:00:00 to 2001-01-10T18:00:00"
    assert one["variables"] == "t (K)"
    assert [text.split(" was ")[0] for text in data_differences(one, two)] == ["times", "other times"]
    assert data_differences(None, two) == []
    assert data_differences({"content": "a"}, two) == []  # unknown
