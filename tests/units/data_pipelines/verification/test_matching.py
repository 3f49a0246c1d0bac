"""Sums since the start of a forecast are scored against sums by step only as differences."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.verification.matching import grows, like_with_like, shared_variables, unlike_sums

NAME = "total_precipitation"


def pair(units="m", accumulated=True, hours=6):
    """A truth of rain by step, and the same as a forecast."""
    rain = np.random.default_rng(0).exponential(1e-3, (12, 6, 8))
    place = {"latitude": np.linspace(75.0, -75.0, 6), "longitude": np.arange(8) * 45.0}
    start, step = np.datetime64("2001-01-01", "ns"), np.timedelta64(hours, "h")
    told = {"units": units, "GRIB_stepType": "accum"}
    truth = xr.Dataset(
        {NAME: (("time", "latitude", "longitude"), rain, told), "x": (("time", "latitude", "longitude"), rain)},
        {"time": start + np.arange(12) * step, **place},
    )
    leads = np.arange(1, 5) * step.astype("timedelta64[ns]")
    by_step = np.stack([rain[1:5], rain[5:9]])
    values = by_step.cumsum(axis=1) if accumulated else by_step
    dims = ("time", "prediction_timedelta", "latitude", "longitude")
    coords = {"time": truth.time.values[[0, 4]], "prediction_timedelta": leads, **place}
    return xr.Dataset({NAME: (dims, values, told), "x": (dims, by_step)}, coords), truth, by_step


def test_differences_are_the_sums_by_step():
    forecast, truth, by_step = pair()
    made, notes = like_with_like(forecast, truth, [NAME])
    np.testing.assert_allclose(made[NAME], by_step, atol=1e-12)
    assert not notes


def test_others_are_left_out_and_told():
    forecast, truth, _ = pair()
    made, notes = like_with_like(forecast, truth)
    assert list(made.data_vars) == ["x"]
    assert "deaccumulate=[total_precipitation]" in notes[0]
    for left in (forecast.drop_vars("x"), forecast):
        with pytest.raises(ValueError, match="summed since its start"):
            like_with_like(left, truth, wanted=[NAME])


def test_sums_by_step_stay():
    forecast, truth, by_step = pair(accumulated=False)
    made, notes = like_with_like(forecast, truth)
    np.testing.assert_array_equal(made[NAME], by_step)
    assert not notes
    with pytest.raises(ValueError, match="does not grow"):
        like_with_like(forecast, truth, [NAME])


def test_steps_of_another_length_are_refused():
    forecast, truth, _ = pair()
    truth[NAME].attrs["cell_methods"] = "time: sum (interval: 1 hour)"
    with pytest.raises(ValueError, match="leads of the forecast are 6h apart"):
        like_with_like(forecast, truth, [NAME])


def test_a_sum_against_a_mean():
    forecast, truth, _ = pair(accumulated=False)
    truth[NAME].attrs["GRIB_stepType"] = "avg"
    made, notes = like_with_like(forecast, truth)
    assert NAME not in made
    assert "a sum over time in the forecast and a mean in the truth" in notes[0]


def test_too_little_is_known_of_drought():
    forecast, _, _ = pair()
    assert grows(forecast[NAME] * 0.0, "prediction_timedelta") is None
    assert grows(forecast[NAME].isel(prediction_timedelta=slice(2)), "prediction_timedelta") is None


def test_two_leads_tell_sums_since_the_start():
    forecast, _, _ = pair()
    two = forecast.isel(prediction_timedelta=[0, 1])
    assert grows(two[NAME], "prediction_timedelta") is None  # 48 points are too few
    wide = xr.concat([two] * 3, "longitude").assign_coords(longitude=np.arange(24) * 15.0)
    assert grows(wide[NAME], "prediction_timedelta")
    assert not grows(wide["x"], "prediction_timedelta")


def test_sums_over_other_times_are_told():
    forecast, truth, _ = pair(accumulated=False)
    assert not unlike_sums(forecast, truth)
    hourly = truth.assign_coords(time=truth["time"].values[0] + np.arange(12) * np.timedelta64(1, "h"))
    assert "summed over 6h in the forecast and 1h in the truth" in unlike_sums(forecast, hourly)[0]
    hourly[NAME].attrs["cell_methods"] = "time: sum (interval: 6 hours)"
    assert not unlike_sums(forecast, hourly)
    last = pair()[0].isel(prediction_timedelta=[3])  # a day since the start, or the last six hours of it
    assert "summed over 1d in the forecast and 6h in the truth" in unlike_sums(last, truth)[0]


def test_fluxes_are_what_the_truth_declares():
    dims, fields = ("time", "latitude", "longitude"), np.zeros((2, 3, 4))
    declared = {"units": "J m-2", "positive": "up", "cell_methods": "time: sum (interval: 6 hours)"}
    forecast = xr.Dataset({"sensible_heat_flux_6hr": (dims, fields, {"units": "J m-2"})})
    truth = xr.Dataset({"sensible_heat_flux_6hr": (dims, fields, declared)})
    found = shared_variables(forecast, truth).variable("sensible_heat_flux_6hr")
    assert (found.positive, found.cell) == ("up", "sum 6h")
