"""An evaluation that was killed, and one that was shared out, end in the scores of one that ran through."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr
import zarr

from data_pipelines.files.atomic import lock_or_refuse
from data_pipelines.verification.scoring import PartialSums
from emul.config.compose import compose
from emul.eval import evaluate

KILLED = """
import os, signal, sys
from emul.main import main
from data_pipelines.verification.scoring import PartialSums
save = PartialSums.save
def save_and_die(self, accumulators, blocks, of):
    save(self, accumulators, blocks, of)
    if blocks == 3:
        os.kill(os.getpid(), signal.SIGKILL)
PartialSums.save = save_and_die
main(sys.argv[1:])
"""
OPTIONS = {
    "pictures": "false", "maps.leads": "[6h]", "save_every": 0, "megabytes": 0.002,  # a pair of times at a time
    "metric": "[rmse,bias,acc_by_init]", "spectra.chaosbench": "true",
}  # fmt: skip


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Forecasts of seven initial times and two leads, with truth and a climatology."""
    folder = tmp_path_factory.mktemp("stores")
    generator = np.random.default_rng(0)
    space = {"latitude": np.linspace(75, -75, 6), "longitude": np.arange(12) * 30.0}
    time = np.datetime64("2001-01-01", "ns") + np.arange(9) * np.timedelta64(6, "h")

    def dataset(axes):
        shape = (*map(len, axes.values()), 6, 12)
        fields = generator.normal(280, 5, shape).astype("float32")
        return xr.Dataset({"2m_temperature": ((*axes, *space), fields, {"units": "K"})}, {**axes, **space})

    leads = np.array([6, 12]).astype("timedelta64[h]").astype("timedelta64[ns]")
    made = {
        "forecast": {"time": time[:7], "prediction_timedelta": leads},
        "truth": {"time": time},
        "climatology": {"hour": np.array([0, 6, 12, 18]), "dayofyear": np.arange(1, 5)},
    }
    for name, axes in made.items():
        dataset(axes).to_netcdf(folder / f"{name}.nc")
    return {"forecasts": folder / "forecast.nc", **{n: folder / f"{n}.nc" for n in ("truth", "climatology")}}


def overrides(stores, output, **more):
    return [f"{key}={value}" for key, value in {**stores, **OPTIONS, "name": "n", "output": output, **more}.items()]


def run(stores, output, **more):
    return evaluate(compose("eval", overrides(stores, output, **more)))


@pytest.fixture(scope="module")
def whole(stores, tmp_path_factory):
    return run(stores, tmp_path_factory.mktemp("whole"))


def assert_same(one, other, rtol):
    for file, group in (("scores", None), ("scores", "spectra"), ("baselines", None), ("by_init", None)):
        a, b = (xr.load_dataset(folder / f"{file}.nc", group=group) for folder in (one, other))
        assert a.sizes == b.sizes
        for name in a.data_vars:
            np.testing.assert_allclose(a[name].values, b[name].values, rtol=rtol)


@pytest.mark.slow
def test_a_killed_evaluation_goes_on(stores, whole, tmp_path, capfd):
    command = overrides(stores, tmp_path)
    command[0] = command[0].replace("forecasts=", "forecast=")
    environment = {**os.environ, "CI": "true", "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "eval", *command], env=environment, capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "eval" / "n" / "sums" / "1_of_1.npz").is_file()
    assert not (tmp_path / "eval" / "n" / "scores.nc").exists()
    again = run(stores, tmp_path)
    assert "going on after" in capfd.readouterr().out
    assert_same(again, whole, rtol=0)
    assert not (again / "sums").exists()


def test_shares_of_the_initial_times_add_up(stores, whole, tmp_path, capfd):
    for share in ("2/3", "3/3"):
        folder = run(stores, tmp_path, share=share)
        assert not (folder / "scores.nc").exists()
    assert "the scores wait for share=1/3" in capfd.readouterr().out
    assert_same(run(stores, tmp_path, share="1/3"), whole, rtol=1e-10)
    assert not (folder / "sums").exists()


def test_sums_of_a_forecast_that_was_replaced_are_not_added(stores, tmp_path, capfd):
    forecast = tmp_path / "f.zarr"
    xr.load_dataset(stores["forecasts"]).to_zarr(forecast)
    run(stores, tmp_path, forecasts=forecast, share="1/2")
    zarr.open_group(forecast)["2m_temperature"][:1] += 1.0  # chunks alone: the folder of the store stays as it was
    folder = run(stores, tmp_path, forecasts=forecast, share="2/2")
    assert "the scores wait for share=1/2" in capfd.readouterr().out
    assert not (folder / "scores.nc").exists()


@pytest.mark.slow
def test_more_shares_than_initial_times(stores, whole, tmp_path):
    for share in range(9, 0, -1):
        folder = run(stores, tmp_path, share=f"{share}/9")
    assert_same(folder, whole, rtol=1e-10)


def test_the_last_shares_at_once_write_the_scores_once(stores, whole, tmp_path, monkeypatch, capfd):
    ready, merge = threading.Barrier(2), PartialSums.turn

    def both(self):
        ready.wait(60.0)  # both have saved all of their sums
        return merge(self)

    monkeypatch.setattr(PartialSums, "turn", both)
    configs = [compose("eval", overrides(stores, tmp_path, share=share)) for share in ("1/2", "2/2")]
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(evaluate, configs))
    assert_same(folders[0], whole, rtol=1e-10)
    assert "has the scores of all shares" in capfd.readouterr().out


def test_two_evaluations_at_once_are_refused(stores, tmp_path):
    folder = tmp_path / "eval" / "n"
    with lock_or_refuse(folder, ".share_1_of_1.lock", "scoring"):
        with pytest.raises(ValueError, match=r"is scoring in .*eval/n now"):
            run(stores, tmp_path)
    run(stores, tmp_path)
