"""Trainings as jobs of a real SLURM: submitted, told to save, requeued, and gone on with as if nothing had been."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import warm_starts
from data_pipelines.files import checkpoints
from emul.config.compose import compose
from emul.train import train
from emulators.training.hardware import seconds_of

pytestmark = pytest.mark.slow

SETTINGS = [
    "data=planet_tiny", "model=sfno", "model.embed=8", "model.layers=1", "training.steps=200", "training.batch_size=4",
    "training.validate_every=80", "training.validation_cases=4", "training.checkpoint_every=10",
]  # fmt: skip
JOB = [
    "hardware=slurm", "hardware.accelerator=cpu", "hardware.precision=32", "hardware.threads=1",
    "hardware.slurm.cpus_per_task=1", "hardware.slurm.setup=['export MASTER_ADDR=127.0.0.1']",
]  # fmt: skip


def words_of(*arguments, verb="train"):
    return [sys.executable, "-m", "emul.main", verb, *SETTINGS, *arguments]


def emul(environment, *arguments, verb="train"):
    return warm_starts.run(verb, *SETTINGS, *arguments, timeout=300.0, **environment)


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


def last(folder):
    return checkpoints.load(folder / "checkpoints" / "last.ckpt")


def assert_same(folder, whole):
    """The training in `folder` is finished, and its weights are those of another to the last bit."""
    again = last(folder)
    assert again["emul"]["finished"]
    for name, value in whole["state_dict"].items():
        assert torch.equal(again["state_dict"][name], value), name


def processes_of(job, number):
    """The processes on this machine that are number `number` of a job, those they started among them."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            told = (folder / "environ").read_bytes().split(b"\0")
            if {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={number}".encode(), b"SLURM_STEP_ID=0"} <= {*told}:
                yield int(folder.name)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    """The same training without SLURM and without a disturbance, on as many processes as the key says."""
    folder = tmp_path_factory.mktemp("whole")
    settings = [*SETTINGS, f"output={folder}", "name=one", "hardware.threads=1"]
    one = train(compose("train", settings))
    two = ["hardware=ddp", "hardware.threads=1", f"output={folder}", "name=two"]
    done = warm_starts.together("train", *SETTINGS, *two)
    assert done.returncode == 0, done.stderr
    return {1: last(one), 2: last(folder / "train" / "two")}


@pytest.mark.parametrize("verb", ["train", "run"])
def test_the_script_is_printed(tmp_path, verb):
    more = [f"output={tmp_path}", "name=x", "hardware.nodes=2", "--dry-run"]
    done = emul({}, *JOB, *more, verb=verb)
    assert done.returncode == 0, done.stderr
    for line in (
        "#SBATCH --nodes=2", "#SBATCH --signal=USR1@120", "#SBATCH --requeue", "export SRUN_CPUS_PER_TASK=1",
        "export MASTER_ADDR=127.0.0.1",
    ):  # fmt: skip
        assert line in done.stdout.splitlines()
    assert re.search(rf"^srun --kill-on-bad-exit=1 .* {verb} .* name=x\b", done.stdout, re.M)
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_requeued_job_goes_on_to_the_same_weights(cluster, tmp_path, wholes, nodes):
    job, folder = submitted(cluster, tmp_path, "requeued", f"hardware.nodes={nodes}")
    wait_for_checkpoint(cluster, job, folder)
    cluster.call("scontrol", "requeue", job)
    cluster.hurry(job)
    cluster.wait(job)
    said = log_of(folder)
    assert re.search(r"Stopped at step \d+ as asked", said), said
    assert re.search(r"from step \d+", said), said
    assert_same(folder, wholes[nodes])


@pytest.mark.parametrize(("number", "nodes"), [("USR1", 2), ("TERM", 1)])
def test_a_job_that_is_told_to_save_requeues_itself(cluster, tmp_path, wholes, number, nodes):
    job, folder = submitted(cluster, tmp_path, "told", f"hardware.nodes={nodes}")
    wait_for_checkpoint(cluster, job, folder)
    cluster.call("scancel", f"--signal={number}", job)
    cluster.hurry(job)
    cluster.wait(job)
    said = log_of(folder)
    assert "The job is back in the queue" in said, said
    assert "Restarts=1" in cluster.call("scontrol", "show", "job", job, "-o")
    assert_same(folder, wholes[nodes])
    score = wholes[1]["emul"]["validation"]["score"]  # one process or two, the result is one
    assert last(folder)["emul"]["validation"]["score"] == pytest.approx(score, rel=1e-5)


def test_a_job_whose_time_ends_goes_back_to_the_queue_and_on(cluster, tmp_path):
    """SLURM looks at limits every half minute, and tells of them in whole minutes: this training takes longer."""
    longer = ["training.steps=4000", "training.checkpoint_every=100", "training.validate_every=2000"]
    job, folder = submitted(cluster, tmp_path, "limited", *longer, "hardware.slurm.time='60:00'")
    wait_for_checkpoint(cluster, job, folder)
    since = seconds_of(cluster.call("squeue", "-h", "-j", job, "-o", "%M"))
    cluster.call("scontrol", "update", f"jobid={job}", f"timelimit={int(since + 35) // 60 + 1}")
    cluster.wait(job, ("PENDING",), 120.0)
    cluster.call("scontrol", "update", f"jobid={job}", "timelimit=60")
    cluster.hurry(job)
    cluster.wait(job)
    said = log_of(folder)
    stopped = re.search(r"Stopped at step (\d+) as asked.*\n.*The job is back in the queue", said)
    assert stopped, said
    assert f"from step {stopped[1]}" in said, said
    assert "DUE TO TIME LIMIT" not in said
    assert last(folder)["emul"]["finished"]


def test_a_killed_process_ends_the_job_with_the_cause_named_and_the_next_goes_on(cluster, tmp_path, wholes):
    job, folder = submitted(cluster, tmp_path, "killed", "hardware.nodes=2", "hardware.slurm.requeue=false")
    wait_for_checkpoint(cluster, job, folder)
    victims = list(processes_of(job, 1))
    assert victims
    begun = time.monotonic()
    for victim in victims:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    cluster.wait(job, ("FAILED",), 60.0)
    assert time.monotonic() - begun < 60.0
    assert re.search(r"task 1: Killed", log_of(folder)), log_of(folder)
    assert not last(folder)["emul"]["finished"]
    job, folder = submitted(cluster, tmp_path, "killed", "hardware.nodes=2", "hardware.slurm.requeue=false")
    cluster.wait(job)
    assert_same(folder, wholes[2])


def test_within_a_job_srun_starts_the_training(cluster, tmp_path, wholes):
    """Who has an allocation already is not sent to the queue; the cores of a process are those that were asked for."""
    job_words = [word for word in JOB if not word.startswith(("hardware.threads", "hardware.slurm.setup"))]
    words = words_of(*job_words, "hardware.nodes=2", f"output={tmp_path}", "name=within")
    script = tmp_path / "own.sh"
    script.write_text(
        "#!/bin/bash\nexport MASTER_ADDR=127.0.0.1\nunset OMP_NUM_THREADS\n"
        + " ".join(f"'{word}'" for word in words)
        + "\n"
    )
    asked = ["--parsable", "--nodes=2", "--ntasks-per-node=1", f"--output={tmp_path / 'own.log'}"]
    job = cluster.call("sbatch", *asked, str(script))
    cluster.wait(job)
    said = (tmp_path / "own.log").read_text()
    assert "effective batch  4 = 2 processes x 1 passes x 2 samples" in said, said
    assert "1 threads a process" in said
    assert "Submitted" not in said
    assert_same(tmp_path / "train" / "within", wholes[2])


def test_a_job_goes_all_the_way_to_scores(cluster, tmp_path):
    """Two processes train, and the first goes on alone."""
    short = ["training.steps=20", "forecast.lead=1d", "forecast.every=2d", "eval.pictures=false", "hardware.nodes=2"]
    done = emul(cluster.environment, *JOB, *short, f"output={tmp_path}", "name=all", verb="run")
    assert done.returncode == 0, done.stderr
    job = re.search(r"Submitted job (\d+)", done.stdout)
    assert job, done.stdout
    cluster.wait(job[1])
    assert "verified" in log_of(tmp_path / "train" / "all")
    assert (tmp_path / "eval" / "all" / "scores.nc").is_file()


def test_a_job_that_is_cancelled_stays_cancelled(cluster, tmp_path):
    job, folder = submitted(cluster, tmp_path, "cancelled", "training.steps=100000")
    wait_for_checkpoint(cluster, job, folder)
    cluster.call("scancel", job)
    end = time.monotonic() + 60
    while cluster.state(job) in ("RUNNING", "COMPLETING"):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert cluster.state(job) == "CANCELLED"
    assert last(folder)["emul"]["step"] > 0
