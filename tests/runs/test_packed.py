"""Packed data as a user meets them: converted, trained from with the same result, damaged, continued."""

import gc
import re
import shutil

import pytest
import torch

from data_pipelines.batches.loader import BatchBuffers
from data_pipelines.files import checkpoints
from data_pipelines.reading import threads
from data_pipelines.reading.threads import DamagedData
from emul.config.compose import compose
from emul.data.arguments import main as data
from emul.data.convert import main as convert
from emul.train import train

pytestmark = pytest.mark.slow
SHORT = [
    "model=sfno", "model.embed=8", "model.layers=1", "hardware.threads=1", "training.steps=24", "training.batch_size=4",
    "training.validate_every=100", "training.validation_cases=4", "training.log_every=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "planet.zarr"
    convert(["data=planet_tiny", f"to={path}", "per_file=16", "workers=1"])
    return path


def test_a_store_is_looked_at_by_its_path(store, tmp_path, capsys):
    output = f"output={tmp_path}"
    assert data(["inspect", str(store)]) == 0
    assert "160 x 4 x 16 x 32" in capsys.readouterr().out
    assert data(["check", str(store), output]) == 0
    told = capsys.readouterr().out
    assert "all files as they were written" in told
    assert "temperature" in told
    shutil.copytree(store, tmp_path / "a.zarr")
    file = min((tmp_path / "a.zarr").glob("fields/c/*/0/0/0"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert data(["check", str(tmp_path / "a.zarr"), output]) == 2
    told = capsys.readouterr()
    assert "1 files or chunks differ" in told.out
    assert "damaged, make or fetch it again: 2001-01-" in told.err


def trained(tmp_path, name, *words):
    folder = train(compose("train", [*words, *SHORT, f"output={tmp_path}", f"name={name}"]))
    return checkpoints.load(folder / "checkpoints" / "last.ckpt")


def same(one, two):
    return all(torch.equal(value, two["state_dict"][name]) for name, value in one["state_dict"].items())


def test_training_from_it_gives_the_same_weights(store, tmp_path, capsys):
    packed = trained(tmp_path, "packed", "data=packed", f"data.path={store}", "loader.gigabytes=0")
    told = capsys.readouterr().out
    assert "straight from the packed store" in told
    assert "batches read at up to" in told
    assert same(packed, trained(tmp_path, "source", "data=planet_tiny"))


def test_a_training_keeps_to_the_memory_that_it_announced(store, tmp_path, monkeypatch, capsys):
    made = []

    class Counted(BatchBuffers):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr("data_pipelines.batches.loader.BatchBuffers", Counted)
    words = ["data=packed", f"data.path={store}", "loader.gigabytes=0", "loader.stride=2"]
    trained(tmp_path, "counted", *words)
    told = capsys.readouterr().out
    assert re.search(r"wait \d+%", told)
    most = float(re.search(r"memory of data +at most (\S+) GB", told)[1])
    gc.collect()
    held = sum(memory.nbytes for buffers in made for memory in buffers._free)
    assert 0.3 * most < held / 1e9 <= most


@pytest.mark.parametrize("damaged", ["stop", "skip"])
def test_damage_ends_a_training_with_its_state_or_is_left_out(store, tmp_path, damaged, monkeypatch, capsys):
    monkeypatch.setattr(threads, "WAITS", ())
    words = ["data=packed", f"data.path={tmp_path / 'a.zarr'}", "loader.gigabytes=0", f"loader.damaged={damaged}"]
    shutil.copytree(store, tmp_path / "a.zarr")
    whole = trained(tmp_path, "whole", *words)
    read = faults_from(monkeypatch, after=150)
    if damaged == "skip":
        trained(tmp_path, "again", *words)
        assert "damaged windows replaced" in capsys.readouterr().out
        return
    with pytest.raises(DamagedData, match="its checksum is wrong"):
        trained(tmp_path, "again", *words)
    reached = checkpoints.load(tmp_path / "train" / "again" / "checkpoints" / "last.ckpt")["emul"]["step"]
    assert 0 < reached < 24
    monkeypatch.setattr("data_pipelines.reading.packed_store.PackedStore._read_one", read)  # the disk is well again
    assert same(trained(tmp_path, "again", *words), whole)


def faults_from(monkeypatch, after):
    """The disk goes bad after so many reads, for one time in seven; how it read before."""
    from data_pipelines.reading.packed_store import PackedStore

    read, done = PackedStore._read_one, []

    def failing(self, position, out, wanted):
        done.append(position)
        if len(done) > after and position % 7 == 0:
            raise OSError("its checksum is wrong")
        read(self, position, out, wanted)

    monkeypatch.setattr(PackedStore, "_read_again", lambda *given: False)  # the short path
    monkeypatch.setattr(PackedStore, "_read_one", failing)
    return read
