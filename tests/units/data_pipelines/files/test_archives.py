"""Damaged archives are refused in one sentence, however their decompressor fails, and kept batches are not taken."""

import zipfile

import numpy as np
import pytest
import torch

from data_pipelines.files.archives import refuse_damaged_archive, refusing_damage
from data_pipelines.files.batch_records import BatchRecords
from data_pipelines.files.checkpoints import content, newest
from data_pipelines.opening.datasets import open_dataset

METHODS = {"deflate": 8, "bzip2": 12, "lzma": 14, "unknown": 40}


def claiming(path, method):
    """Let every part of an archive claim to be packed by another method, as few flipped bits do."""
    stored = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        directory, starts = archive.start_dir, [info.header_offset for info in archive.infolist()]
    for start in starts:
        stored[start + 8] = method
    place = stored.find(b"PK\x01\x02", directory)
    while place >= 0:
        stored[place + 10] = method
        place = stored.find(b"PK\x01\x02", place + 4)
    path.write_bytes(stored)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_parts_that_claim_another_method_are_refused(tmp_path, method):
    torch.save({"x": torch.arange(5000.0)}, tmp_path / "last.ckpt")
    np.savez(tmp_path / "weights.npz", x=np.random.default_rng(0).normal(size=5000))
    records = BatchRecords(tmp_path)
    records.write(0, {"sum": np.arange(500.0)}, {})
    assert records.read(0) is not None
    for path in (tmp_path / "last.ckpt", tmp_path / "weights.npz", tmp_path / "progress" / "000000.npz"):
        refuse_damaged_archive(path)
        claiming(path, method)
        with pytest.raises(ValueError, match=f"{path.name}(:| is damaged or truncated)"):
            refuse_damaged_archive(path)
    assert records.read(0) is None
    with pytest.raises(ValueError, match=r"weights\.npz"):
        content(tmp_path / "weights.npz")
    with pytest.raises(ValueError, match=r"last\.ckpt(:| is damaged).*train anew"):
        newest(tmp_path)


@pytest.mark.parametrize("bit", [6, 8, 14])
def test_a_part_that_a_comment_swallows_is_missed(tmp_path, bit):
    records = BatchRecords(tmp_path)
    records.write(0, {"sum": np.arange(500.0)}, {})
    path = tmp_path / "progress" / "000000.npz"
    stored = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        length = archive.start_dir + 32  # of the comment on the first part
    stored[length + bit // 8] ^= 1 << bit % 8
    path.write_bytes(stored)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 1
    assert records.read(0) is None
    with pytest.raises(ValueError, match="it lists 1 of 2 parts"):
        refuse_damaged_archive(path)


def test_a_zip_without_its_list_of_parts_is_no_data(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("zarr.json", "{}")
    stored = bytearray(path.read_bytes())
    stored[stored.find(b"PK\x01\x02")] = 0
    path.write_bytes(stored)
    assert zipfile.is_zipfile(path)
    with pytest.raises(ValueError, match=r"x\.zip is damaged or truncated"):
        open_dataset(path)


def test_errors_of_the_disk_pass(tmp_path):
    with pytest.raises(FileNotFoundError), refusing_damage("x"):
        (tmp_path / "x").read_bytes()
