"""Forecasts that several processes make together: the same bytes as one writes, whoever is last or killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

import warm_starts
from data_pipelines.forecasts.manifest import read_manifest, verify_checksums
from data_pipelines.jobs.processes import share_of_process
from emul.forecast import forecast, hardware_of
from emul.main import main

GIVEN = ["batch_size=1", "lead=12h"]


@pytest.fixture(scope="module")
def whole(home, tmp_path_factory):
    folder = forecast(home.config(tmp_path_factory.mktemp("whole"), *GIVEN))
    assert read_manifest(folder)["verdict"] == "verified"
    return folder


def command(home, tmp_path, *more):
    words = [f"run={home.run('tame')}", f"output={tmp_path}", "device=cpu", *GIVEN, *more]
    return [sys.executable, "-m", "emul.main", "forecast", *words]


def finished(words):
    environment = {**os.environ, "CI": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)


def assert_same(home, whole, folder):
    assert read_manifest(folder)["verdict"] == read_manifest(whole)["verdict"]
    assert verify_checksums(folder) == []
    assert not (folder / "progress").exists()
    one, other = (home.contents(path) for path in (whole, folder))
    for record in ("manifest.json", "config.yaml", "checksums.sha256", "scores.nc"):  # which tell of time and place
        assert {record} <= {*one} & {*other}
        del one[record], other[record]
    assert one == other


@pytest.mark.slow
def test_shares_add_up_to_the_whole_and_the_last_one_judges(home, tmp_path, whole, capfd):
    folder = tmp_path / "forecast" / "tame"
    words = command(home, tmp_path)[3:]
    for share in ("2/3", "3/3", "3/3"):
        assert main([*words, f"share={share}"]) == 0
        assert not read_manifest(folder)["finished"]
    assert "Share 3/3" in (said := capfd.readouterr().out)
    assert "5 of 8 batches of initial times are written" in said
    assert not (folder / "scores.nc").exists()
    assert main([*words, "share=1/3"]) == 0
    assert_same(home, whole, folder)


def test_a_share_that_was_damaged_is_awaited_again(home, tmp_path, whole):
    folder = forecast(home.config(tmp_path, *GIVEN, "share=1/2"))
    next((folder / "forecast.zarr" / "temperature").glob("c.2.*")).write_bytes(b"short")
    forecast(home.config(tmp_path, *GIVEN, "share=2/2"))
    assert not read_manifest(folder)["finished"]
    forecast(home.config(tmp_path, *GIVEN, "share=1/2"))
    assert_same(home, whole, folder)


def test_more_shares_than_batches_and_nodes_that_nobody_starts(home, tmp_path, capfd):
    forecast(home.config(tmp_path, "share=9/9"))
    assert "a smaller batch_size or member_batch makes more work" in capfd.readouterr().err
    assert main([*command(home, tmp_path)[3:], "hardware=ddp", "hardware.nodes=2"]) == 2
    assert "started by srun or torchrun" in capfd.readouterr().err


SRUN = {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}


@pytest.mark.parametrize(
    ("started", "more", "expected"),
    [
        ({}, [], (1, 1)),
        ({}, ["share=2/3"], (2, 3)),
        (SRUN, [], (3, 4)),
        (SRUN, ["share=2/3", "hardware=ddp", "hardware.nodes=2"], (8, 12)),
        (TORCHRUN, [], (2, 2)),
        (TORCHRUN, ["hardware=ddp", "hardware.devices=3"], "Expected 3 processes"),
    ],
)
def test_every_process_knows_its_own_share(home, tmp_path, monkeypatch, started, more, expected):
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    config = home.config(tmp_path, *more)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            share_of_process(config.share, hardware_of(config))
    else:
        assert share_of_process(config.share, hardware_of(config)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("more", [["hardware=ddp"], ["share=1/2"]], ids=str)
def test_processes_share_the_initial_times(home, tmp_path, whole, more):
    """Two that the command starts, or that torchrun has started."""
    words = command(home, tmp_path, *more)
    done = finished(words) if "hardware=ddp" in more else warm_starts.together(*words[3:])
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "forecast" / "tame"
    if "share=1/2" in words:
        assert not read_manifest(folder)["finished"]
        assert "4 of 8 batches" in read_manifest(folder)["reasons"][0]
        forecast(home.config(tmp_path, *GIVEN, "share=2/2"))
    else:
        assert "verified" in done.stdout
    assert_same(home, whole, folder)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")
def test_a_killed_process_is_named_and_its_part_is_made_by_the_same_command(home, tmp_path):
    given = ["init=2003-01-02/2003-01-05/1d", "lead=120"]
    words = command(home, tmp_path, *given, "hardware=ddp")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    second, end = tmp_path / "forecast" / "tame" / "progress" / "000001.lock", time.monotonic() + 120
    while not second.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        os.kill(int(file.read().split()[0]), signal.SIGKILL)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert "process 2 of 2 was killed by SIGKILL; what is written is kept" in said
    assert "Traceback" not in said
    assert finished(words).returncode == 0
    assert_same(home, forecast(home.config(tmp_path / "whole", *GIVEN, *given)), tmp_path / "forecast" / "tame")
