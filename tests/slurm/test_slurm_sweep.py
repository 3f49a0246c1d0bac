"""Sweeps as arrays of jobs of a real SLURM, several nodes a trial: what failed is named, and trained again alone."""

import re
import subprocess
import sys

import pytest
import xarray as xr

pytestmark = pytest.mark.slow

WORDS = [
    "data=planet_tiny", "model=sfno", "model.embed=8", "model.layers=1", "training.steps=4", "training.batch_size=2",
    "training.validate_every=4", "training.validation_cases=2", "training.validation_lead=1", "hardware=slurm",
    "hardware.accelerator=cpu", "hardware.precision=32", "hardware.threads=1", "hardware.slurm.cpus_per_task=1",
    "hardware.slurm.setup=['export MASTER_ADDR=127.0.0.1']", "hardware.nodes=2", "seed=1,2",
    "sweep.name=s", "sweep.jobs=1",
]  # fmt: skip


def sweep(cluster, tmp_path, *more):
    command = [sys.executable, "-m", "emul.main", "sweep", *WORDS, f"output={tmp_path}", *more]
    return subprocess.run(command, env=cluster.environment, capture_output=True, text=True, timeout=500)


def jobs_of(cluster, folder):
    """Job, nodes and state of every task of the arrays that the sweep in `folder` has submitted."""
    numbers = {log.name.partition("_")[0] for log in (folder / "slurm").glob("*_*.log")}
    shown = cluster.call("squeue", "-h", "-t", "all", "--array", "-j", ",".join(numbers), "-o", "%i %D %T")
    return {job: (int(nodes), state) for job, nodes, state in (line.split() for line in shown.splitlines())}


def test_a_sweep_is_an_array_and_what_failed_is_trained_again_alone(cluster, tmp_path):
    folder = tmp_path / "sweep" / "s"
    blocked = folder / "train" / "seed2" / "checkpoints"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way of a folder")
    done = sweep(cluster, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "seed2 failed" in done.stderr
    assert str(blocked) in done.stderr  # its last lines
    with xr.open_dataset(folder / "results.nc") as results:
        assert dict(zip(results["trial"].values, results["state"].values, strict=True)) == {
            "seed1": "finished",
            "seed2": "failed",
        }
    jobs = jobs_of(cluster, folder)
    assert sorted(re.sub(r"\d+_", "", job) for job in jobs) == ["0", "1"]
    assert {nodes for nodes, _ in jobs.values()} == {2}
    blocked.unlink()
    done = sweep(cluster, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    again = set(jobs_of(cluster, folder)) - set(jobs)
    assert [re.sub(r"\d+_", "", job) for job in again] == ["1"]
    with xr.open_dataset(folder / "results.nc") as results:
        assert results["state"].values.tolist() == ["finished", "finished"]
    assert (folder / "sweep.png").is_file()
    assert "effective batch  2 = 2 processes x 1 passes x 1 samples" in (folder / "logs" / "seed2.log").read_text()
