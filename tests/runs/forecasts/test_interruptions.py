"""Forecasts that are killed, or run out of room, and what is then made again: what lacks, to the same bits."""

import errno
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import xarray as xr

import warm_starts
from data_pipelines.files.atomic import lock_or_refuse
from data_pipelines.forecasts import writers
from data_pipelines.forecasts.manifest import read_manifest, verify_checksums
from data_pipelines.forecasts.production import make_forecast
from emul.forecast import exit_code, forecast, prepare


def killed_after_two_batches(arguments, folder):
    """Start the command in a process of its own and kill it while it writes the third batch or a later one."""
    process = warm_starts.begin("forecast", *arguments)
    written = folder / "progress" / "000001_0000000_0000150.npz"
    warm_starts.wait_until(written.exists, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_killed_and_started_again_it_is_the_same_to_the_bit(home, tmp_path):
    given = ["init=2003-01-02/2003-01-09/1d", "lead=150", "batch_size=1"]
    folder = tmp_path / "two" / "forecast" / "tame"
    arguments = [f"run={home.run('tame')}", f"output={tmp_path / 'two'}", "device=cpu", *given]
    killed_after_two_batches(arguments, folder)
    finished = len(list((folder / "progress").glob("*.npz")))
    assert 2 <= finished < 8
    manifest = read_manifest(folder)
    assert (manifest["verdict"], manifest["finished"], exit_code(folder)) == ("failed", False, 1)
    assert "unfinished" in manifest["reasons"][0]
    half = xr.open_zarr(folder / "forecast.zarr")
    assert half.attrs["verdict"] == "unfinished"
    assert not half["temperature"][:2].isnull().any()
    assert half["temperature"][-1].isnull().all()

    damaged, untouched = (next((folder / "forecast.zarr" / "temperature").glob(f"c.{n}.*")) for n in (0, 1))
    os.truncate(damaged, 100)
    written = untouched.stat().st_mtime_ns
    assert forecast(home.config(tmp_path / "two", *given)) == folder
    assert untouched.stat().st_mtime_ns == written
    assert read_manifest(folder)["verdict"] == "unverified"
    assert verify_checksums(folder) == []
    whole = forecast(home.config(tmp_path / "one", *given))
    expected, found = home.contents(whole / "forecast.zarr"), home.contents(folder / "forecast.zarr")
    assert expected == found
    scores = [xr.load_dataset(path / "scores.nc", decode_timedelta=True) for path in (whole, folder)]
    xr.testing.assert_identical(*scores)


def test_a_full_disk_keeps_what_is_finished_and_says_unfinished(home, tmp_path, monkeypatch):
    job = prepare(home.config(tmp_path))
    replaced, room = os.replace, iter(range(40))

    def filling(source, target):
        if "forecast.zarr" in str(target) and next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        replaced(source, target)

    job = replace(job, writer=writers.ZarrWriter(chunk_megabytes=1e-6), layout=replace(job.layout, block=1))
    monkeypatch.setattr(os, "replace", filling)
    with pytest.raises(OSError, match=r"No space left on device.*make room"):
        make_forecast(job)
    manifest = read_manifest(job.folder)
    assert (manifest["verdict"], manifest["finished"]) == ("failed", False)
    assert "1 of 2 batches" in manifest["reasons"][0]
    assert "No space left" in manifest["reasons"][0]
    monkeypatch.undo()
    make_forecast(replace(job, writer=writers.ZarrWriter(chunk_megabytes=1e-6)))
    assert read_manifest(job.folder)["verdict"] == "verified"
    assert verify_checksums(job.folder) == []


KILLED = """
import os, signal, sys
from data_pipelines.forecasts.writers import ZarrWriter
from emul.main import main
write = ZarrWriter.write
def write_and_die(self, batch, lead, values):
    write(self, batch, lead, values)
    if lead == 30:
        os.kill(os.getpid(), signal.SIGKILL)
ZarrWriter.write = write_and_die
import emul.forecast  # once, for all
for words in sys.argv[1:]:
    child = os.fork()
    if not child:
        os._exit(main(["forecast", *words.split("|")]))
    print(os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


WAYS = {
    "tame": ("tame", ["segment=7"]),
    "averaged": ("told", ["segment=1d", "path=averaged", "intervals=[1,2,3]"]),
    "aggregated": ("told", ["segment=7", "path=aggregated", "intervals=[1,4]"]),
    "members_under_a_law": ("lawful", ["segment=2d", "members=2", "correction_maps=true"]),
}


ROLLOUT = ["init=2003-01-03", "lead=50", "writer.chunk_megabytes=1e-6"]


@pytest.fixture(scope="module")
def killed(home, tmp_path_factory):
    """A folder with a forecast of each way, killed amid lead 31 of 50."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    folder = tmp_path_factory.mktemp("killed")
    forecasts = [
        "|".join([f"run={home.run(run)}", f"output={folder}", "device=cpu", f"name={way}", *ROLLOUT, *options])
        for way, (run, options) in WAYS.items()
    ]
    environment = {**os.environ, "CI": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", KILLED, *forecasts], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * len(WAYS), done.stdout + done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_killed_rollout_goes_on_from_its_last_segment_to_the_same_bits(home, tmp_path, killed, monkeypatch, way):
    run, options = WAYS[way]
    whole = forecast(home.config(tmp_path, *ROLLOUT, *options, f"name={way}", run=run))
    half = killed / "forecast" / way
    assert re.search(r"0 of 1 batches .* up to lead [67]d", read_manifest(half)["reasons"][0])
    written = leads_written(monkeypatch)
    folder = forecast(home.config(killed, *ROLLOUT, *options, f"name={way}", run=run))
    assert written == list(range(24 if "segment=2d" in options else 28, 50))
    assert home.contents(whole / "forecast.zarr") == home.contents(folder / "forecast.zarr")
    assert verify_checksums(folder) == []
    assert not (folder / "progress").exists()
    records = [name for name in ("scores.nc", "budgets.nc") if (whole / name).exists()]
    assert records == ["scores.nc", "budgets.nc"][: 1 + (run == "lawful")]
    for name in records:
        one, other = (xr.load_dataset(path / name, decode_timedelta=True) for path in (whole, folder))
        xr.testing.assert_identical(one, other)


def leads_written(monkeypatch):
    """The leads that are written from now on."""
    calm, written = writers.ZarrWriter.write, []

    def noted(self, batch, lead, values):
        written.append(lead)
        calm(self, batch, lead, values)

    monkeypatch.setattr(writers.ZarrWriter, "write", noted)
    return written


def test_segments_change_nothing_and_one_that_lost_a_file_is_made_again(home, tmp_path, monkeypatch):
    given = ["init=2003-01-03", "lead=20", "writer.chunk_megabytes=1e-6"]
    whole = forecast(home.config(tmp_path, *given, "name=whole"))
    job = prepare(home.config(tmp_path, *given, "segment=6", "name=parts"))
    with monkeypatch.context() as patch:
        patch.setattr("data_pipelines.forecasts.production.finish", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make_forecast(job)
    assert len(list((job.folder / "progress").glob("*.npz"))) == 4
    os.truncate(job.folder / "forecast.zarr" / "temperature" / "c.0.13.0.0.0", 10)  # of the third
    written = leads_written(monkeypatch)
    make_forecast(prepare(home.config(tmp_path, *given, "segment=5", "name=parts")))
    assert written == list(range(12, 20))
    assert home.contents(whole / "forecast.zarr") == home.contents(job.folder / "forecast.zarr")


def test_two_at_work_on_one_forecast_are_refused(home, tmp_path):
    config = home.config(tmp_path)
    folder = tmp_path / "forecast" / "tame"
    (folder / "progress").mkdir(parents=True)
    with (
        lock_or_refuse(folder, "progress/000000.lock"),
        pytest.raises(ValueError, match=r"Process \d+ on .* is forecasting in"),
    ):
        forecast(config)
    assert read_manifest(forecast(config))["verdict"] == "verified"


def resident():
    """Megabytes of memory in use by this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to read the memory in use")
def test_memory_is_constant_over_five_hundred_steps(home, tmp_path):
    forecast(home.config(tmp_path, "init=2003-01-02", "lead=50", "name=warm"))
    job = prepare(home.config(tmp_path, "init=2003-01-02", "lead=500", "segment=60"))
    used, wrapped = [], job.step.network

    class Watched(torch.nn.Module):
        def forward(self, values, time):
            used.append(resident())
            return wrapped(values, time)

    job.step.network = Watched()
    make_forecast(job)
    assert len(used) == 500
    assert max(used[100:]) - used[100] < 4.0
