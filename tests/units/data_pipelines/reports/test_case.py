"""The page of one case: it starts with the state from which the forecast starts, and tells valid times."""

import json

import numpy as np
import xarray as xr

from data_pipelines.reports.case import draw_case
from data_pipelines.verification.pairs import Pairs
from data_pipelines.verification.score_files import EvaluationResults

TIMES = np.datetime64("2001-01-01", "ns") + np.arange(6) * np.timedelta64(6, "h")


def pairs() -> Pairs:
    """A forecast from the first time, which errs by one."""
    latitude, longitude = np.linspace(80, -80, 8), np.arange(16) * 22.5
    field = np.random.default_rng(0).normal(280, 5, (6, 8, 16)).astype("float32")
    dims, place = ("time", "latitude", "longitude"), {"latitude": latitude, "longitude": longitude}
    truth = xr.Dataset({"2m_temperature": (dims, field, {"units": "K"})}, {"time": TIMES, **place})
    leads = np.array([6, 12]).astype("timedelta64[h]").astype("timedelta64[ns]")
    ahead = ("time", "prediction_timedelta", "latitude", "longitude")
    values = {"2m_temperature": (ahead, field[None, 1:3] + 1, {"units": "K"})}
    valid = (("time", "prediction_timedelta"), TIMES[None, 1:3])
    axes = {"time": TIMES[:1], "prediction_timedelta": leads, "valid_time": valid, **place}
    return Pairs(xr.Dataset(values, axes), truth)


def frames(path, **options) -> dict:
    view = draw_case(path, pairs(), None, None, 5, EvaluationResults("x", xr.Dataset()), **options)
    return json.loads(view.data)


def test_a_forecast_from_the_truth_starts_with_it(tmp_path) -> None:
    shown = frames(tmp_path / "case.html", from_truth=True)
    assert shown["LEADS"] == [
        "0 h, the initial state of 2001-01-01 00 UTC",
        "6 h ahead, valid 2001-01-01 06 UTC",
        "12 h ahead, valid 2001-01-01 12 UTC",
    ]
    forecast, truth = shown["FRAMES"]["0f"], shown["FRAMES"]["0t"]
    assert forecast[0] == truth[0]
    assert forecast[1] != truth[1]
    assert "2001-01-01 00 UTC</output>" in (tmp_path / "case.html").read_text()


def test_that_of_another_system_starts_with_its_first_lead(tmp_path) -> None:
    assert frames(tmp_path / "case.html")["LEADS"][0] == "6 h ahead, valid 2001-01-01 06 UTC"
