"""Trainings as jobs of a real SLURM: submitted, told to save, requeued, and gone on with as if nothing had been."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest
import torch

from data_pipelines import checkpoints
from emul.build import compose
from emul.train import train

pytestmark = pytest.mark.slow

SETTINGS = [
    "data=planet_tiny", "model=sfno", "model.embed=8", "model.layers=1", "training.steps=200", "training.batch_size=4",
    "training.validate_every=80", "training.validation_cases=4", "training.checkpoint_every=10",
]  # fmt: skip
JOB = [
    "hardware=slurm", "hardware.accelerator=cpu", "hardware.precision=32", "hardware.threads=1",
    "hardware.slurm.cpus_per_task=1", "hardware.slurm.setup=['export MASTER_ADDR=127.0.0.1']",
]  # fmt: skip


def emul(environment, *arguments):
    command = [sys.executable, "-m", "emul.main", "train", *SETTINGS, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def submitted(cluster, tmp_path, name, *more):
    """A training as a job; its number and its run folder."""
    done = emul(cluster.environment, *JOB, f"output={tmp_path}", f"name={name}", *more)
    assert done.returncode == 0, done.stderr
    job = re.search(r"Submitted job (\d+)", done.stdout)
    assert job, done.stdout
    return job[1], tmp_path / "train" / name


def wait_for_checkpoint(cluster, job, folder, seconds=200):
    end = time.monotonic() + seconds
    while not (folder / "checkpoints" / "last.ckpt").exists():
        assert cluster.state(job) in ("PENDING", "RUNNING"), log_of(folder)
        assert time.monotonic() < end, "no checkpoint in time"
        time.sleep(0.1)


def log_of(folder):
    return "\n".join(path.read_text() for path in sorted((folder / "slurm").glob("*.log")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same training without SLURM and without a disturbance."""
    folder = tmp_path_factory.mktemp("whole")
    settings = [*SETTINGS, f"output={folder}", "name=whole", "hardware.threads=1"]
    return checkpoints.load(train(compose("train", settings)) / "checkpoints" / "last.ckpt")


def test_the_script_is_printed(tmp_path):
    done = emul({**os.environ, "CI": "true"}, *JOB, f"output={tmp_path}", "name=x", "hardware.nodes=2", "--dry-run")
    assert done.returncode == 0, done.stderr
    for line in ("#SBATCH --nodes=2", "#SBATCH --signal=USR1@120", "#SBATCH --requeue", "export MASTER_ADDR=127.0.0.1"):
        assert line in done.stdout.splitlines()
    assert re.search(r"^srun --kill-on-bad-exit=1 .* train .* name=x\b", done.stdout, re.M)
    assert not (tmp_path / "train").exists()


def test_a_requeued_job_goes_on_to_the_same_weights(cluster, tmp_path, whole):
    job, folder = submitted(cluster, tmp_path, "single")
    wait_for_checkpoint(cluster, job, folder)
    cluster.call("scontrol", "requeue", job)
    cluster.hurry(job)
    cluster.wait(job)
    said = log_of(folder)
    assert re.search(r"Stopped at step \d+ as asked", said), said
    assert re.search(r"from step \d+", said), said
    again = checkpoints.load(folder / "checkpoints" / "last.ckpt")
    assert again["emul"]["finished"]
    for name, value in whole["state_dict"].items():
        assert torch.equal(again["state_dict"][name], value), name


@pytest.mark.parametrize(("number", "nodes"), [("USR1", 2), ("TERM", 1)])
def test_a_job_that_is_told_to_save_requeues_itself(cluster, tmp_path, whole, number, nodes):
    job, folder = submitted(cluster, tmp_path, "told", f"hardware.nodes={nodes}")
    wait_for_checkpoint(cluster, job, folder)
    cluster.call("scancel", f"--signal={number}", job)
    cluster.hurry(job)
    cluster.wait(job)
    said = log_of(folder)
    assert "The job is back in the queue" in said, said
    assert "Restarts=1" in cluster.call("scontrol", "show", "job", job, "-o")
    again = checkpoints.load(folder / "checkpoints" / "last.ckpt")["emul"]
    assert again["finished"]
    assert again["validation"]["score"] == pytest.approx(whole["emul"]["validation"]["score"], rel=1e-5)
    for name, value in whole["emul"]["weights"].items():
        torch.testing.assert_close(again["weights"][name], value, rtol=1e-3, atol=1e-5 if nodes > 1 else 0.0)


def test_a_job_that_is_cancelled_stays_cancelled(cluster, tmp_path):
    job, folder = submitted(cluster, tmp_path, "cancelled", "training.steps=100000")
    wait_for_checkpoint(cluster, job, folder)
    cluster.call("scancel", job)
    end = time.monotonic() + 60
    while cluster.state(job) in ("RUNNING", "COMPLETING"):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert cluster.state(job) == "CANCELLED"
    assert checkpoints.load(folder / "checkpoints" / "last.ckpt")["emul"]["step"] > 0
