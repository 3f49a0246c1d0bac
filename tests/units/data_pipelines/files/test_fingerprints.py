"""One flipped bit, and one lost chunk, are noticed in everything that is kept."""

import random

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from data_pipelines.files import checkpoints
from data_pipelines.files.fingerprints import (
    every_chunk,
    fingerprint,
    read_json,
    seal_store,
    sealed_root,
    store_faults,
    write_json,
)
from data_pipelines.files.netcdf import read_groups, read_netcdf, write_netcdf
from data_pipelines.opening.datasets import open_dataset


def flipped(path, place, bit=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_json_differs_from_its_digest_when_a_value_is_changed(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"best": 0.25, "finished": True})
    assert read_json(path) == {"best": 0.25, "finished": True}
    flipped(path, path.read_bytes().index(b"25"))
    with pytest.raises(ValueError, match="differs from its checksum"):
        read_json(path)
    path.write_text('{"best": 1}')  # of another program
    assert read_json(path) == {"best": 1}
    path.write_text('{"best": ')
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        read_json(path)


def test_damaged_names_and_lists_too_deep_are_refused(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"best": 0.25})
    flipped(path, path.read_bytes().index(b"digest"))
    with pytest.raises(ValueError, match="differs from its checksum"):
        read_json(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        read_json(path)


def test_a_flipped_bit_in_a_tensor_is_named(tmp_path):
    path, weights = tmp_path / "best.ckpt", torch.arange(1000.0)
    checkpoints.save(path, {"emul": {"format": checkpoints.FORMAT, "weights": {"head": weights}}})
    assert torch.equal(checkpoints.load(path)["emul"]["weights"]["head"], weights)
    flipped(path, path.read_bytes().index(weights.numpy().tobytes()) + 777, bit=4)
    with pytest.raises(ValueError, match=r"best\.ckpt: the checksum of its part .* is wrong"):
        checkpoints.load(path)


def test_the_newest_checkpoint_without_damage_is_taken(tmp_path):
    for step in (1, 2):
        content = {"emul": {"format": checkpoints.FORMAT, "step": step, "weights": torch.full((500,), float(step))}}
        checkpoints.save(tmp_path / "last.ckpt", content, keep_previous=True)
    flipped(tmp_path / "last.ckpt", (tmp_path / "last.ckpt").read_bytes().index(np.full(500, 2, "<f4").tobytes()))
    path, content, fault = checkpoints.newest(tmp_path)
    assert (path.name, content["emul"]["step"]) == ("previous.ckpt", 1)
    assert "checksum" in fault


def dataset():
    times = np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(6, "h")
    axes = {"time": times, "latitude": [30.0, -30.0], "longitude": [0.0, 120.0, 240.0]}
    values = np.random.default_rng(0).normal(280.0, 10.0, (4, 2, 3)).astype(np.float32)
    values[1] = np.nan
    return xr.Dataset({"temperature": (tuple(axes), values, {"units": "K"})}, axes)


def test_netcdf_is_compared_with_its_digest(tmp_path):
    path, groups = tmp_path / "a.nc", {"more": xr.Dataset({"name": ("x", ["one", "two"]), "flag": ((), True)})}
    write_netcdf(path, dataset(), groups, deflate=False)
    assert read_netcdf(path).drop_attrs().identical(dataset().drop_attrs())
    assert read_groups(path)["/more"]["name"].values.tolist() == ["one", "two"]
    values = dataset()["temperature"].values
    flipped(path, path.read_bytes().index(values[0].tobytes()) + 2)
    with pytest.raises(OSError, match="differs from its checksum"):
        read_netcdf(path)
    dataset().to_netcdf(path)  # of another program
    assert "temperature" in read_netcdf(path)


def test_damaged_netcdf_is_refused_before_its_library_opens_it(tmp_path, monkeypatch):
    """The library of HDF5 may crash on flipped bits of its structures."""
    path, chance = tmp_path / "a.nc", random.Random(0)
    write_netcdf(path, dataset())
    whole = path.read_bytes()
    monkeypatch.setattr("netCDF4.Dataset", None)
    for place in chance.sample(range(len(whole) - 12), 50):
        flipped(path, place, chance.randrange(8))
        with pytest.raises(OSError, match="differs from its checksum"):
            read_netcdf(path)
        path.write_bytes(whole)


def test_any_flipped_bit_of_netcdf_is_noticed_or_harmless(tmp_path):
    path, chance, noticed = tmp_path / "a.nc", random.Random(0), 0
    write_netcdf(path, dataset(), {"more": xr.Dataset({"name": ("x", ["one", "two"])})})
    sound, content = read_groups(path), path.read_bytes()
    for _ in range(200):
        path.write_bytes(content)
        flipped(path, chance.randrange(len(content)), chance.randrange(8))
        try:
            found = read_groups(path)
        except (OSError, ValueError, KeyError):
            noticed += 1
            continue
        assert all(found[name].identical(group) for name, group in sound.items())
    assert noticed > 10


@pytest.fixture
def store(tmp_path):
    """A sealed store, of which one chunk holds nothing but NaN and a coordinate nothing but 0."""
    path, data = tmp_path / "a.zarr", dataset()
    with every_chunk():
        group = zarr.create_group(path, zarr_format=3)
        for name, values in data.coords.items():
            numbers = values.values.astype("datetime64[h]").astype("<i8") if name == "time" else values.values
            more = {"attributes": {"units": "hours since 1970-01-01"}} if name == "time" else {}
            group.create_array(
                name, data=numbers, chunks=numbers.shape, compressors=[Crc32cCodec()], dimension_names=(name,), **more
            )
        codecs = {"plain": [Crc32cCodec()], "packed": [ZstdCodec(level=1), Crc32cCodec()]}
        for name, compressors in codecs.items():
            array = group.create_array(
                name, shape=(4, 2, 3), chunks=(1, 2, 3), dtype="<f4", fill_value=np.nan, compressors=compressors,
                dimension_names=("time", "latitude", "longitude"), attributes={"units": "K"},
            )  # fmt: skip
            array[...] = data["temperature"].values
    seal_store(path)
    return path


@pytest.mark.parametrize("name", ["plain", "packed"])
def test_chunks_are_compared_with_their_checksum_and_missed(store, name):
    expected = dataset()["temperature"].values
    np.testing.assert_array_equal(open_dataset(store)[name].values, expected)
    assert store_faults(store) == []
    path = store / name / "c" / "2" / "0" / "0"
    flipped(path, 3)
    assert store_faults(store) == [f"{name}/c/2/0/0: its checksum is wrong"]
    opened = open_dataset(store)[name]
    np.testing.assert_array_equal(opened[0].values, expected[0])
    with pytest.raises(OSError, match=f"{name}/c/2/0/0: its checksum is wrong"):
        opened[2].values  # noqa: B018
    path.unlink()
    assert store_faults(store) == [f"{name}/c/2/0/0 is missing"]
    with pytest.raises(OSError, match=f"{name}/c/2/0/0 is missing"):
        open_dataset(store)[name][2].values  # noqa: B018


def test_coordinates_and_metadata_are_checked_on_opening(store):
    chunk = store / "latitude" / "c" / "0"
    flipped(chunk, 3)
    with pytest.raises(ValueError, match="damaged"):
        open_dataset(store)
    chunk.unlink()
    with pytest.raises(ValueError, match="latitude/c/0 is missing"):
        open_dataset(store)


def test_metadata_of_a_sealed_store(store):
    root = store / "zarr.json"
    whole = root.read_bytes()
    flipped(root, whole.index(b'"K"') + 1)
    with pytest.raises(ValueError, match=r"zarr\.json differs from its checksum"):
        open_dataset(store)
    assert len(store_faults(store)) == 1
    root.write_bytes(whole)
    own = store / "plain" / "zarr.json"
    flipped(own, own.read_bytes().index(b'"K"') + 1)
    assert store_faults(store) == ["plain/zarr.json differs from the metadata at the root"]


def test_a_copy_by_another_program_is_not_sealed(store, tmp_path):
    open_dataset(store).drop_attrs().to_zarr(tmp_path / "copy.zarr", zarr_format=3, consolidated=True)
    assert sealed_root(tmp_path / "copy.zarr") is None
    assert store_faults(tmp_path / "copy.zarr") is None
    assert open_dataset(tmp_path / "copy.zarr").sizes["time"] == 4


def test_the_fingerprint_of_a_folder_is_that_of_its_files(tmp_path):
    for name in ("a.nc", "b.nc"):
        (tmp_path / name).write_bytes(b"x" * 100)
    before = fingerprint(str(tmp_path))
    assert before["files"] == 2
    assert fingerprint([str(tmp_path / "a.nc"), str(tmp_path / "b.nc")])["content"] == before["content"]
    (tmp_path / "b.nc").write_bytes(b"y" * 100)
    assert fingerprint(str(tmp_path))["content"] != before["content"]
