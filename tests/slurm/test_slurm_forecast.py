"""Forecasts whose initial times the processes of a job of a real SLURM share."""

import sys

import pytest

from data_pipelines.forecasts.manifest import read_manifest, verify_checksums
from emul.config.compose import compose
from emul.forecast import forecast
from emul.train import train

pytestmark = pytest.mark.slow

OWN = {"manifest.json", "config.yaml", "checksums.sha256"}  # which tell of time and place


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_two_nodes_write_the_same_bytes_as_one_process(cluster, tmp_path):
    run = train(compose("train", ["data=planet_tiny", "model=persistence", f"output={tmp_path}", "name=x"]))
    words = [f"run={run}", "every=1d", "lead=1d", "batch_size=1"]
    whole = forecast(compose("forecast", [*words, f"output={tmp_path / 'whole'}"]))
    script, said = tmp_path / "job.sh", tmp_path / "job.log"
    command = [sys.executable, "-m", "emul.main", "forecast", *words, f"output={tmp_path}"]
    script.write_text(f"#!/bin/bash\nsrun {' '.join(command)}\n")
    asked = ["--parsable", "--nodes=2", "--ntasks-per-node=1", f"--output={said}"]
    cluster.wait(cluster.call("sbatch", *asked, str(script)))
    folder = tmp_path / "forecast" / "x"
    assert "Share 1/2" in said.read_text() or "Share 2/2" in said.read_text()
    assert "verified" in said.read_text()
    assert read_manifest(folder)["verdict"] == read_manifest(whole)["verdict"] == "verified"
    assert verify_checksums(folder) == []
    one, other = contents(whole), contents(folder)
    assert {name for name in {*one} | {*other} if one.get(name) != other.get(name)} <= OWN | {"scores.nc"}
    assert len(one) > 20
