"""Small generative emulators from training to scores: their ensembles are worth more than one forecast."""

from __future__ import annotations

import pytest
import xarray as xr

from emul.config.compose import compose
from emul.eval import evaluate
from emul.forecast import forecast
from emul.train import train

DATA = ["data.days=200", "data.trajectories=4", "data.spinup_days=30"]
SMALL = ["model.channels=[24]", "training.steps=400", "training.validate_every=400", "training.validation_cases=4"]
FIRST, SECOND = "[2001-01-01,2001-07-19T18]", "[2001-07-30,2002-02-13T18]"


def trained(folder, words, split=FIRST):
    splits = f"data.splits={{train:{split},validation:[2002-02-24,2002-09-10T18],test:[2002-09-22,2003-04-08T18]}}"
    places = [f"output={folder}", f"data.folder={folder}"]
    return train(compose("train", [*words, *DATA, *SMALL, splits, *places]))


def score(folder, run, metric, members):
    """The score of a day's forecasts."""
    given = [f"run={run}", f"output={folder}"]
    forecast(compose("forecast", [*given, f"members={members}", "every=10d", "lead=1d"]))
    evaluate(compose("eval", [*given, f"metric=[{metric}]", "pictures=false"]))
    with xr.open_dataset(folder / "eval" / run.name / "scores.nc") as scores:
        return float(scores["slow_variable"].sel(metric=metric, region="global")[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("generative")


@pytest.fixture(scope="module")
def mean(folder):
    """A deterministic forecast and its mean absolute error, which is the CRPS of one member."""
    run = trained(folder, ["experiment=lorenz96_mean"])
    return run, score(folder, run, "mae", "null")


@pytest.mark.slow
def test_diffusion(folder, mean):
    run = trained(folder, ["experiment=lorenz96_diffusion", "sampler.levels=8"])
    assert score(folder, run, "crps_fair", 8) < 0.9 * mean[1]  # 0.76; members that are all alike: above 1


@pytest.mark.slow
def test_flow_on_the_errors_of_a_forecast(folder, mean, capsys):
    """Members around the forecast are better than the forecast; the run needs the other no longer."""
    words = ["experiment=lorenz96_flow", f"parts.forecast={mean[0]}"]
    run = trained(folder, words, SECOND)
    assert "errors are learnt from" not in capsys.readouterr().err
    moved = mean[0].rename(mean[0].with_name("elsewhere"))
    try:
        assert score(folder, run, "crps_fair", 8) < 0.9 * mean[1]
    finally:
        moved.rename(mean[0])


@pytest.mark.slow
def test_errors_on_dates_that_the_forecast_has_seen_are_warned_of(folder, mean, capsys):
    trained(folder, ["experiment=lorenz96_flow", f"parts.forecast={mean[0]}", "name=seen", "training.steps=1"])
    assert "Hold dates out by data.splits.train" in " ".join(capsys.readouterr().err.split())
