"""Checkpoints: written whole or not at all, and read without running anything."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from data_pipelines.files import atomic, checkpoints


def content(number: float) -> dict:
    return {"emul": {"format": checkpoints.FORMAT, "weights": {"w": torch.full((1000, 500), number)}, "text": "a: 1"}}


def test_round_trip(tmp_path):
    path = tmp_path / "folder" / "last.ckpt"
    checkpoints.save(path, content(3.0))
    again = checkpoints.load(path)
    assert torch.equal(again["emul"]["weights"]["w"], torch.full((1000, 500), 3.0))
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_a_full_disk_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    checkpoints.save(path, content(1.0))

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="previous one is untouched"):
        checkpoints.save(path, content(2.0))
    assert float(checkpoints.load(path)["emul"]["weights"]["w"][0, 0]) == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_device_that_is_full_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    checkpoints.save(path, content(1.0))
    (tmp_path / "full").symlink_to("/dev/full")
    monkeypatch.setattr(atomic, "_temporary", lambda path: tmp_path / "full")
    with pytest.raises(OSError, match="previous one is untouched"):
        checkpoints.save(path, content(2.0), keep_previous=True)
    assert float(checkpoints.load(path)["emul"]["weights"]["w"][0, 0]) == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.slow
def test_a_kill_during_a_write_leaves_a_whole_file(tmp_path):
    path = tmp_path / "last.ckpt"
    code = (
        "import sys, itertools, torch; from data_pipelines.files import checkpoints\n"
        "for n in itertools.count():\n"
        "    checkpoints.save(sys.argv[1], {'emul': {'format': 2, 'n': n, 'w': torch.full((2**22,), float(n))}})"
    )
    for wait in (0.05, 0.13, 0.21):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        while not path.exists():
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        card = checkpoints.load(path)["emul"]
        assert bool((card["w"] == card["n"]).all())


def test_what_is_no_checkpoint_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="No checkpoint"):
        checkpoints.load(tmp_path / "none.ckpt")
    path = tmp_path / "last.ckpt"
    checkpoints.save(path, content(1.0))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="truncated"):
        checkpoints.load(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="something else"):
        checkpoints.load(path)


def test_an_older_format_is_refused(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"emul": {"format": 1}}, path)
    with pytest.raises(ValueError, match="is in format 1; this version of emul reads 2: train anew"):
        checkpoints.load(path)
