"""Forecasts as a user makes them: whole, resumed after a kill, checked, scored, refused where they cannot be made."""

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from omegaconf import OmegaConf

from data_pipelines import checkpoints, writers
from data_pipelines.manifest import read_manifest, verify_checksums
from data_pipelines.worlds import Roles, world
from emul.build import compose
from emul.eval import evaluate
from emul.forecast import exit_code, forecast, make
from emul.job import prepare
from emul.main import main
from emul.runs import emulator
from emulators.grid import gaussian_grid

START = np.datetime64("2003-01-01", "s")
STEP = np.timedelta64(21_600, "s")
ROLES = {
    "prognostic": ["temperature", "2m_temperature"],
    "forcing": ["sin_year", "cos_day"],
    "static": ["sin_latitude"],
}


def fields(count=80):
    """A warm equator and a wave that moves east, on 8 x 16 points."""
    grid, rng = gaussian_grid(8), np.random.default_rng(0)
    phase = np.deg2rad(grid.longitude) - 0.1 * np.arange(count)[:, None, None]
    wave = 290.0 - 40.0 * np.sin(np.deg2rad(grid.latitude))[:, None] ** 2 + 5.0 * np.sin(3.0 * phase)
    wave = (wave + rng.normal(0.0, 0.1, wave.shape)).astype(np.float32)
    temperature = np.stack([wave - 30.0, wave - 10.0], axis=1)
    return xr.Dataset(
        {
            "temperature": (("time", "level", "latitude", "longitude"), temperature, {"units": "K"}),
            "2m_temperature": (("time", "latitude", "longitude"), wave, {"units": "K"}),
        },
        {
            "time": (START + STEP * np.arange(count)).astype("datetime64[ns]"),
            "level": ("level", [500, 850], {"units": "hPa"}),
            "latitude": ("latitude", grid.latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", grid.longitude, {"units": "degrees_east"}),
        },
    )


def save_run(folder, path, dataset, growth=1e-3, history=1, **model):
    """An untrained SFNO whose tendencies are `growth` times what it would give; a run folder as training leaves it."""
    splits = {"train": ["2003-01-01", "2003-01-10"], "validation": ["2003-01-11", "2003-01-12"]}
    config = OmegaConf.create(
        {
            "seed": 0,
            "model": {"_target_": "emulators.models.sfno.SFNO", "embed": 8, "layers": 1, **model},
            "step": {"_target_": "emulators.step.Step", "output": "residual"},
            "constraint": {},
            "metric": {"rmse": {"_target_": "emulators.metrics.rmse.RMSE"}},
            "data": {
                "_target_": "data_pipelines.sources.netcdf.NetCDF",
                "path": str(path),
                "splits": splits | {"test": ["2003-01-13", "2003-01-20"]},
            },
            "forecast": {"every": "1d", "lead": "2d", "batch_size": 3},
            "eval": {"regions": ["global", "tropics"]},
        }
    )
    a_world = world(dataset, Roles(**ROLES), history=history, timestep="6h", period=splits["train"])
    step = emulator(config, a_world)
    with torch.no_grad():
        for parameter in step.network.head.parameters():
            parameter.mul_(growth)
        for name, parameter in step.network.named_parameters():
            if "maps.noise" in name:
                parameter.fill_(0.1)
    card = {
        "format": checkpoints.FORMAT,
        "world": a_world.plain(),
        "config": OmegaConf.to_yaml(config),
        "weights": step.state_dict(),
        "step": 0,
    }
    checkpoints.save(folder / "checkpoints" / "last.ckpt", {"emul": card})
    OmegaConf.save(config, folder / "config.yaml")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a data file and a run."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("home")
    fields().to_netcdf(folder / "data.nc")
    save_run(folder / "train" / "tame", folder / "data.nc", fields())
    save_run(folder / "train" / "wild", folder / "data.nc", fields(), growth=100.0)
    save_run(folder / "train" / "past", folder / "data.nc", fields(), history=2)
    return folder


def config(home, tmp_path, *more, run="tame"):
    return compose("forecast", [f"run={home / 'train' / run}", f"output={tmp_path}", "device=cpu", *more])


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_forecast_lands_whole_checked_and_scored(home, tmp_path):
    folder = forecast(config(home, tmp_path))
    assert folder == tmp_path / "forecast" / "tame"
    names = {"checksums.sha256", "config.yaml", "forecast.zarr", "manifest.json", "scores.nc"}
    assert {path.name for path in folder.iterdir()} == names
    manifest = read_manifest(folder)
    assert (manifest["verdict"], manifest["reasons"], exit_code(folder)) == ("verified", [], 0)
    assert manifest["inits"] == {"first": "2003-01-13T00:00:00", "last": "2003-01-18T00:00:00", "count": 6}
    assert manifest["leads"] == {"steps": 8, "timestep": "6h"}
    assert manifest["truth"] == {"pairs": 48, "of": 48}
    assert manifest["variables"]["temperature"]["nan_share"] == 0.0
    assert verify_checksums(folder) == []
    found = xr.open_zarr(folder / "forecast.zarr")
    assert dict(found.sizes) == {
        "time": 6, "prediction_timedelta": 8, "level": 2, "latitude": 8, "longitude": 16,
    }  # fmt: skip
    assert found.attrs["verdict"] == "verified"
    assert float(abs(found["2m_temperature"] - fields()["2m_temperature"].sel(time=found["time"])).max()) < 1.0


def test_scores_are_those_of_the_stored_fields(home, tmp_path):
    folder = forecast(config(home, tmp_path, "batch_size=4"))
    found, truth = xr.open_zarr(folder / "forecast.zarr"), fields()
    weights = xr.DataArray(gaussian_grid(8).weights, dims=("latitude", "longitude"))
    target = truth.sel(time=found["valid_time"]).drop_vars(("time", "latitude", "longitude"))
    square = (found["temperature"].drop_vars(("latitude", "longitude")) - target["temperature"]) ** 2
    expected = np.sqrt((square * weights).mean(("time", "latitude", "longitude")))
    with xr.open_dataset(folder / "scores.nc", decode_timedelta=True) as scores:
        assert scores["temperature"].dims == ("metric", "region", "lead_time", "level")
        assert list(scores["region"].values) == ["global", "tropics"]
        rmse = scores["temperature"].sel(metric="rmse", region="global")
        np.testing.assert_allclose(rmse, expected, rtol=1e-5)
        assert scores.attrs["verdict"] == "verified"


def test_scores_taken_in_the_rollout_are_those_of_emul_eval(home, tmp_path):
    folder = forecast(config(home, tmp_path, "batch_size=4"))
    options = ["metric=[rmse,mae,bias]", "pictures=false", "maps.leads=[6h]", "spectra.fields=[]", "baselines=[]"]
    given = [f"run={home / 'train' / 'tame'}", f"forecasts={folder}", f"output={tmp_path}", *options]
    later = xr.load_dataset(evaluate(compose("eval", given)) / "scores.nc", decode_timedelta=True)
    online = xr.load_dataset(folder / "scores.nc", decode_timedelta=True)
    both = [np.intersect1d(later[dim], online[dim]) for dim in ("metric", "region")]
    assert all(found.size for found in both)
    for name in online.data_vars:
        offline, here = (scores[name].sel(metric=both[0], region=both[1]) for scores in (later, online))
        np.testing.assert_allclose(offline, here, rtol=1e-9, atol=1e-12)


def test_the_same_command_again_does_nothing(home, tmp_path):
    folder = forecast(config(home, tmp_path))
    before = contents(folder)
    assert forecast(config(home, tmp_path)) == folder
    assert contents(folder) == before
    with pytest.raises(ValueError, match=r"other settings \(inits: .*choose another name"):
        forecast(config(home, tmp_path, "every=2d"))
    assert contents(folder) == before


def test_netcdf_holds_the_same_numbers(home, tmp_path):
    one = forecast(config(home, tmp_path))
    two = forecast(config(home, tmp_path, "writer=netcdf", "writer.compression=1", "name=nc"))
    assert {path.name for path in two.iterdir()} == {
        "checksums.sha256", "config.yaml", "forecast.nc", "manifest.json", "scores.nc",
    }  # fmt: skip
    with xr.open_dataset(two / "forecast.nc", decode_timedelta=True) as found:
        xr.testing.assert_identical(found.load(), xr.open_zarr(one / "forecast.zarr").load())
    assert read_manifest(two)["verdict"] == "verified"
    assert verify_checksums(two) == []
    with open(two / "forecast.nc", "r+b") as file:
        file.truncate(1000)
    assert "forecast.nc was changed or truncated" in verify_checksums(two)[0]


def test_history_and_single_dates(home, tmp_path):
    given = "init=[2003-01-15T06,2003-01-14]"
    folder = forecast(config(home, tmp_path, given, "lead=3", run="past"))
    found = xr.open_zarr(folder / "forecast.zarr")
    assert found["time"].dt.strftime("%dT%H").values.tolist() == ["14T00", "15T06"]
    assert found.sizes["prediction_timedelta"] == 3
    with pytest.raises(ValueError, match="No fields at 2002-12-31T18:00:00"):
        forecast(config(home, tmp_path, "init=2003-01-01", "name=b", run="past"))


def killed_after_two_batches(arguments, folder):
    """Start the command in a process of its own and kill it while it writes the third batch or a later one."""
    process = subprocess.Popen(
        [sys.executable, "-m", "emul.main", "forecast", *arguments],
        env={**os.environ, "CI": "true", "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    end = time.monotonic() + 120
    while not (folder / "progress" / "000001.npz").exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_killed_and_started_again_it_is_the_same_to_the_bit(home, tmp_path):
    given = ["init=2003-01-02/2003-01-09/1d", "lead=150", "batch_size=1"]
    folder = tmp_path / "two" / "forecast" / "tame"
    arguments = [f"run={home / 'train' / 'tame'}", f"output={tmp_path / 'two'}", "device=cpu", *given]
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
    assert forecast(config(home, tmp_path / "two", *given)) == folder
    assert untouched.stat().st_mtime_ns == written
    assert read_manifest(folder)["verdict"] == "unverified"
    assert verify_checksums(folder) == []
    whole = forecast(config(home, tmp_path / "one", *given))
    expected, found = contents(whole / "forecast.zarr"), contents(folder / "forecast.zarr")
    assert expected == found
    scores = [xr.load_dataset(path / "scores.nc", decode_timedelta=True) for path in (whole, folder)]
    xr.testing.assert_identical(*scores)


def test_out_of_range_is_failed_and_says_why(home, tmp_path, capsys):
    arguments = [f"run={home / 'train' / 'wild'}", f"output={tmp_path}", "device=cpu"]
    assert main(["forecast", *arguments]) == 1
    folder = tmp_path / "forecast" / "wild"
    manifest = read_manifest(folder)
    assert (manifest["verdict"], manifest["finished"]) == ("failed", True)
    assert "beyond the physical range" in manifest["reasons"][0]
    assert "beyond the physical range" in capsys.readouterr().out
    assert xr.open_zarr(folder / "forecast.zarr").attrs["verdict"] == "failed"
    assert main(["forecast", *arguments]) == 1


class Breaking(torch.nn.Module):
    """Wraps a network; one number becomes NaN at the third step."""

    def __init__(self, network):
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, fields, time):
        self.calls += 1
        values = self.network(fields, time).clone()
        if self.calls == 3:
            values[0, 0, 0, 0] = float("nan")
        return values


def test_a_single_nan_is_failed(home, tmp_path):
    job = prepare(config(home, tmp_path, "init=2003-01-13", "lead=3"))
    job.step.network = Breaking(job.step.network)
    folder = make(job)
    manifest = read_manifest(folder)
    assert manifest["verdict"] == "failed"
    assert manifest["reasons"] == ["temperature: 0.13% of the numbers are NaN or infinite, first at lead 18h"]


def test_batches_are_as_even_as_can_be(home, tmp_path):
    folder = forecast(config(home, tmp_path, "init=2003-01-13/2003-01-16/1d", "lead=2"))  # 4 in batches of at most 3
    found = xr.open_zarr(folder / "forecast.zarr")
    assert found["temperature"].encoding["chunks"][0] == 2
    assert read_manifest(folder)["settings"]["batch_size"] == 3


def test_stricter_ranges_can_be_asked_for(home, tmp_path):
    folder = forecast(config(home, tmp_path, "ranges={2m_temperature: [200, 280]}"))
    assert "2m_temperature: reaches 29" in read_manifest(folder)["reasons"][0]


def test_without_truth_it_is_unverified(home, tmp_path):
    folder = forecast(config(home, tmp_path, "init=2003-01-20T18", "lead=1d"))
    manifest = read_manifest(folder)
    assert (manifest["verdict"], exit_code(folder)) == ("unverified", 0)
    assert not (folder / "scores.nc").exists()
    partly = forecast(config(home, tmp_path, "init=2003-01-20", "lead=1d", "name=partly"))
    manifest = read_manifest(partly)
    assert (manifest["verdict"], manifest["truth"]) == ("unverified", {"pairs": 3, "of": 4})
    assert "truth was at hand for 3 of 4 pairs" in manifest["reasons"][0]
    assert (partly / "scores.nc").exists()


def test_beyond_a_gap_in_the_data_there_is_no_truth(home, tmp_path):
    whole = fields()
    whole.isel(time=np.r_[0:50, 56:80]).to_netcdf(tmp_path / "gap.nc")
    given = ["data=netcdf", f"data.path={tmp_path / 'gap.nc'}", "data.timestep=6h", "lead=4d"]
    folder = forecast(config(home, tmp_path, *given, "init=2003-01-10T00"))
    manifest = read_manifest(folder)
    assert (manifest["verdict"], manifest["truth"]) == ("unverified", {"pairs": 13, "of": 16})
    with xr.open_dataset(folder / "scores.nc", decode_timedelta=True) as scores:
        assert scores["inits"].values.tolist() == [1] * 13 + [0] * 3


def test_other_data_give_the_initial_conditions(home, tmp_path):
    other = fields(1).assign_coords(time=[np.datetime64("2020-07-01", "ns")]).sel(latitude=slice(None, None, -1))
    other.to_netcdf(tmp_path / "analysis.nc")
    given = ["data=netcdf", f"data.path={tmp_path / 'analysis.nc'}", "lead=1d", "name=other"]
    folder = forecast(config(home, tmp_path, *given, "init=2020-07-01"))
    found = xr.open_zarr(folder / "forecast.zarr")
    assert found["valid_time"].dt.strftime("%Y-%m-%dT%H").values[0, -1] == "2020-07-02T00"
    assert float(abs(found["2m_temperature"][0, 0] - fields(1)["2m_temperature"][0]).max()) < 0.2
    assert read_manifest(folder)["verdict"] == "unverified"
    with pytest.raises(ValueError, match="no test split"):
        forecast(config(home, tmp_path, *given))


def test_data_that_do_not_fit_the_run_are_refused_before_any_work(home, tmp_path):
    fields().isel(latitude=slice(0, 6)).to_netcdf(tmp_path / "cut.nc")
    fields().drop_vars("2m_temperature").to_netcdf(tmp_path / "less.nc")
    for name, said in (("cut", "Expected the grid"), ("less", "No variable '2m_temperature'")):
        given = ["data=netcdf", f"data.path={tmp_path / name}.nc", "init=2003-01-02"]
        with pytest.raises(ValueError, match=said):
            forecast(config(home, tmp_path, *given))
    assert not (tmp_path / "forecast").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("init=1999-01-01", "No fields at 1999-01-01T00:00:00"),
        ("init=tomorrow", "Expected a date"),
        ("lead=5h", "whole number of timesteps of 6h"),
        ("checkpoint=worst", "checkpoint must be 'best' or 'last'"),
        ("batch_size=0", "batch_size must be at least 1"),
        ("device=cuda", "finds no GPU"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(home, tmp_path, override, said):
    if override == "device=cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ValueError, match=said):
        forecast(config(home, tmp_path, override))
    assert not (tmp_path / "forecast").exists()


def test_missing_runs_are_named(home, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No run at .*nowhere"):
        forecast(config(home, tmp_path, run="nowhere"))


def test_a_full_disk_keeps_what_is_finished_and_says_unfinished(home, tmp_path, monkeypatch):
    job = prepare(config(home, tmp_path))
    replaced, room = os.replace, iter(range(40))

    def filling(source, target):
        if "forecast.zarr" in str(target) and next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        replaced(source, target)

    job = replace(job, writer=writers.ZarrWriter(chunk_megabytes=1e-6), layout=replace(job.layout, block=1))
    monkeypatch.setattr(writers.os, "replace", filling)
    with pytest.raises(OSError, match=r"No space left on device.*unfinished"):
        make(job)
    manifest = read_manifest(job.folder)
    assert (manifest["verdict"], manifest["finished"]) == ("failed", False)
    assert "1 of 2 batches" in manifest["reasons"][0]
    assert "No space left" in manifest["reasons"][0]
    monkeypatch.undo()
    make(replace(job, writer=writers.ZarrWriter(chunk_megabytes=1e-6)))
    assert read_manifest(job.folder)["verdict"] == "verified"
    assert verify_checksums(job.folder) == []


def resident():
    """Megabytes of memory in use by this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to read the memory in use")
def test_memory_is_constant_over_five_hundred_steps(home, tmp_path):
    forecast(config(home, tmp_path, "init=2003-01-02", "lead=50", "name=warm"))
    job = prepare(config(home, tmp_path, "init=2003-01-02", "lead=500"))
    used, wrapped = [], job.step.network

    class Watched(torch.nn.Module):
        def forward(self, values, time):
            used.append(resident())
            return wrapped(values, time)

    job.step.network = Watched()
    make(job)
    assert len(used) == 500
    assert max(used[100:]) - used[100] < 4.0


def test_a_later_checkpoint_is_another_forecast(home, tmp_path):
    run = save_run(tmp_path / "train" / "a", home / "data.nc", fields())
    settings = config(home, tmp_path, f"run={run}")
    settings.run = str(run)
    forecast(settings)
    save_run(run, home / "data.nc", fields(), growth=2e-3)
    with pytest.raises(ValueError, match="weights: "):
        forecast(settings)


def test_members_of_an_ensemble_are_written_by_number_and_made_again_one_by_one(home, tmp_path):
    save_run(home / "train" / "noisy", home / "data.nc", fields(), growth=0.1, noise=2, norm="layer")
    folder = forecast(config(home, tmp_path, "members=3", "every=3d", "lead=12h", run="noisy"))
    assert read_manifest(folder)["verdict"] == "verified"
    found = xr.open_zarr(folder / "forecast.zarr")
    assert found["temperature"].dims == ("time", "number", "prediction_timedelta", "level", "latitude", "longitude")
    assert (found["temperature"].std("number") > 0).all()
    fewer = config(home, tmp_path, "members=2", "init=2003-01-16", "lead=12h", "writer=netcdf", "name=few", run="noisy")
    with xr.open_dataset(forecast(fewer) / "forecast.nc", decode_timedelta=True) as again:
        expected = found.isel(number=slice(2)).sel(time=again["time"])
        np.testing.assert_allclose(again["2m_temperature"], expected["2m_temperature"], rtol=1e-5)
        np.testing.assert_allclose(again["temperature"], expected["temperature"], rtol=1e-5)
    asked = ["metric=[crps,spread_skill,rmse]", f"output={tmp_path}", "pictures=false", "baselines=[]"]
    assert main(["eval", f"forecast={folder}", f"truth={home / 'data.nc'}", *asked]) == 0
    (file,) = (tmp_path / "eval").rglob("scores.nc")
    with xr.open_dataset(file, decode_timedelta=True) as scores:
        assert scores["temperature"].sel(metric=["crps", "spread_skill", "rmse"]).notnull().all()
    with pytest.raises(ValueError, match="draws no noise"):
        forecast(config(home, tmp_path, "members=3", "name=other"))
