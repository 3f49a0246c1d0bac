"""Comparisons on shared initial times keep what the scores say of themselves."""

import json
from pathlib import Path

import numpy as np
import xarray as xr

from emulators.metrics.rmse import RMSE
from emulators.statistics.significance import Significance
from emulators.verification.by_init import scores_of
from emulators.verification.comparison import StoredEvaluation, compare

LEADS = np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]")


def evaluation(name: str, days: range, verdict: str = "passed") -> StoredEvaluation:
    """An evaluation of temperature on one level at some initial times."""
    squares = np.random.default_rng(0).random((1, 9, 1, 2, 1))[:, list(days)]
    by_init = xr.Dataset(
        {"temperature": (("statistic", "time", "region", "lead_time", "level"), squares, {"units": "K"})},
        {
            "statistic": ["squared_error"],
            "time": np.datetime64("2001-01-01", "ns") + np.array(days) * np.timedelta64(1, "D"),
            "region": ["global"],
            "lead_time": LEADS,
            "level": [500],
        },
    )
    scores = scores_of(by_init, {"rmse": RMSE()}).assign_coords(inits=("lead_time", [len(days)] * 2))
    scores["level"].attrs = {"units": "hPa", "long_name": "sigma"}
    told = {"metrics": json.dumps({"rmse": {}}), "exponent": '{"rmse": 1}', "perfect": '{"rmse": 0.0}'}
    scores.attrs = {**told, "inits_used": str(days), "verdict": verdict, "truth": "t.nc"}
    return StoredEvaluation(name, Path(name), scores, by_init, None)


def test_levels_keep_their_attributes_and_failures_are_told():
    made = compare(
        [evaluation("a", range(6)), evaluation("b", range(2, 9), "failed")],
        lambda nodes: {name: RMSE() for name in nodes},
        Significance(),
    )
    assert made.inits == 4
    for entry in made.runs.values():
        assert entry.scores["level"].attrs == {"units": "hPa", "long_name": "sigma"}
    assert "b failed the checks of its forecast." in made.notes
