"""A nudged forecast and one that is given its increments, by the commands of a user, on Lorenz's system of 1996."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from emul.main import main


@pytest.mark.slow
def test_increments_come_from_a_nudged_forecast(tmp_path, monkeypatch, capsys):
    """Nudging halves the error of a bad emulator; increments change the forecast, and are named in its settings."""
    monkeypatch.chdir(tmp_path)
    split = "{train: [2001-01-01,2001-02-15], validation: [2001-02-16,2001-02-25], test: [2001-02-26,2001-04-05]}"
    small = ["data.folder=cache", "data.days=100", "data.trajectories=1", "data.spinup_days=5", f"data.splits={split}"]
    assert main(["train", "experiment=lorenz96_unet", *small, "training.steps=30", "training.validate_every=30"]) == 0
    run = ["forecast", "run=outputs/train/lorenz96_unet"]
    assert main([*run, "init=2001-03-01", "lead=20d", "name=free"]) in (0, 1)
    assert main([*run, "init=2001-01-03", "lead=40d", "nudging=12h", "name=nudged"]) == 0
    corrected = [*run, "init=2001-03-01", "lead=20d", "increments=outputs/forecast/nudged", "name=corrected"]
    assert main(corrected) in (0, 1)
    data = xr.open_zarr(next(Path("cache").glob("lorenz96*.zarr")))
    error = {}
    for name in ("free", "nudged", "corrected"):
        with xr.open_zarr(f"outputs/forecast/{name}/forecast.zarr", decode_timedelta=True) as made:
            field = next(iter(made.data_vars.values())).isel(time=0)
            times = made["time"].values[0] + made["prediction_timedelta"].values
            error[name] = field.values - data[field.name].sel(time=times).values
    assert np.square(error["nudged"]).mean() < 0.5 * np.square(error["free"]).mean()
    assert not np.array_equal(error["free"], error["corrected"])
    settings = json.loads(Path("outputs/forecast/corrected/manifest.json").read_text())["settings"]
    assert settings["increments"]["folder"] == "outputs/forecast/nudged"
    capsys.readouterr()
    assert main([*run, "lead=1d", "increments=outputs/forecast/free", "name=x"]) == 2
    assert "expected a finished forecast that was made with nudging" in capsys.readouterr().err
    assert main([*run, "lead=1d", "nudging=5d", "path=averaged", "name=y"]) == 2
    assert "plain rollouts" in capsys.readouterr().err
