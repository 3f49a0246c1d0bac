"""From members of a coarse planet's ensemble to more of them: simulated, trained, sampled and scored."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import xarray as xr

from emul.config.compose import compose
from emul.data.ensemble import main as make_ensemble
from emul.eval import evaluate
from emul.forecast import forecast
from emul.train import train

INITS = "2001-01-03/2001-01-18/3d,2001-02-01/2001-02-04/3d,2001-02-10/2001-02-13/3d"


@pytest.mark.slow
def test_members_are_made_of_two(tmp_path):
    """Losses fall; members are finite and differ, and do not depend on members beyond the seeds."""
    make_ensemble(
        ["data=planet_tiny", f"data.folder={tmp_path}", "members=4", f"inits={INITS}", "lead=1d", "amplitude=0.1"]
    )
    words = [
        "experiment=planet_seeds", "data@data.source=planet_tiny", f"data.source.folder={tmp_path}", "data.members=4",
        "step.members=4", "model.channels=[8]", "sampler.levels=3", "training.steps=40", "training.batch_size=2",
        "training.validate_every=40", "training.validation_cases=2", "training.log_every=5", f"output={tmp_path}",
    ]  # fmt: skip
    run = train(compose("train", words))
    with (run / "metrics.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    given = [f"run={run}", f"output={tmp_path}"]
    samples = [*given, "members=3", "init=2001-02-10/2001-02-13/3d", "lead=1d"]
    folder = forecast(compose("forecast", samples))
    only = ["data=members", "data@data.source=planet_tiny", f"data.source.folder={tmp_path}", "data.members=4"]
    again = forecast(compose("forecast", [*samples, *only, "data.only=2", "name=two"]))
    with xr.open_zarr(folder / "forecast.zarr") as members, xr.open_zarr(again / "forecast.zarr") as two:
        temperature = members.temperature.load()
        assert np.isfinite(temperature).all()
        assert (temperature.std("number") > 0).any()
        np.testing.assert_array_equal(two.temperature, temperature)
    evaluate(compose("eval", [*given, "metric=[crps_fair]", "pictures=false"]))
    with xr.open_dataset(tmp_path / "eval" / run.name / "scores.nc") as scores:
        assert np.isfinite(scores.temperature).all()
