"""Times that lost digits come back to the axis that they were written from."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.calendars import datetimes, snapped, stored_error, timedeltas


def axis(values, units, calendar="standard"):
    return xr.DataArray(values, dims="time", name="time", attrs={"units": units, "calendar": calendar})


@pytest.mark.parametrize(
    ("first", "hours", "decimals", "dtype", "units"),
    [
        ("2023-11-16T06", 1, 6, "f8", "days since 1-1-1 00:00:0.0"),
        ("2023-11-16T08", 3, 4, "f8", "days since 1900-01-01"),
        ("2023-11-16T06", 3, 12, "f4", "days since 1900-01-01"),
        ("2023-11-16T06", 6, 12, "f4", "hours since 1800-01-01"),
        ("2023-11-16T06", 1, 3, "f8", "days since 2000-01-01"),
    ],
)
def test_fractions_come_back_to_whole_hours(first, hours, decimals, dtype, units):
    expected = np.datetime64(first, "s") + np.arange(30) * np.timedelta64(hours * 3600, "s")
    origin = np.datetime64(f"{int(units.split('since ')[1].split('-')[0]):04d}-01-01", "s")
    unit = np.timedelta64(86400 if units.startswith("days") else 3600, "s")
    numbers = ((expected - origin) / unit).round(decimals).astype(dtype)
    if units.startswith("days since 1-1-1"):
        numbers = numbers + 2  # days between the Julian and the Gregorian calendar on that date
    np.testing.assert_array_equal(datetimes(axis(numbers, units), "x"), expected)


def test_seconds_that_were_cut_off_come_back():
    cut = np.array(["2020-01-01T02", "2020-01-01T07:59:59", "2020-01-01T13:59:59"], "datetime64[ns]")
    np.testing.assert_array_equal(
        datetimes(xr.DataArray(cut, dims="time"), "x"),
        np.array(["2020-01-01T02", "2020-01-01T08", "2020-01-01T14"], "datetime64[s]"),
    )


def test_times_that_are_exact_stay_as_they_are():
    odd = np.datetime64("2020-01-01T00:07", "s") + np.arange(10) * np.timedelta64(37 * 60, "s")
    np.testing.assert_array_equal(datetimes(xr.DataArray(odd.astype("M8[ns]"), dims="time"), "x"), odd)
    seconds = np.arange(5.0)
    np.testing.assert_array_equal(snapped(seconds), seconds)
    minutes = np.array([0.0, 72.0, 144.0, 216.0, 288.0]) / 1440
    assert snapped(minutes * 86400, stored_error(minutes, 86400)).tolist() == [0, 4320, 8640, 12960, 17280]


def test_calendars_without_leap_days_are_rounded_too():
    numbers = (365 * 20 + 59 + np.arange(8) / 24).round(5)  # 1 March in a calendar without 29 February
    found = datetimes(axis(numbers, "days since 2000-01-01", "noleap"), "x")
    np.testing.assert_array_equal(found, np.datetime64("2020-03-01", "s") + np.arange(8) * np.timedelta64(3600, "s"))


def test_precision_that_cannot_tell_times_apart_is_refused():
    numbers = (738841.25 + np.arange(12) / 24).astype("f4")
    with pytest.raises(ValueError, match="stored to within 5400 s only"):
        datetimes(axis(numbers, "days since 1-1-1"), "x")


def test_lead_times_in_fractions_of_days():
    leads = axis((np.arange(1, 9) / 24).round(4), "days")
    assert timedeltas(leads, "x").astype(int).tolist() == [3600 * n for n in range(1, 9)]
    assert timedeltas(axis((np.arange(1, 9) / 8).astype("f4"), "days"), "x")[2] == np.timedelta64(9, "h")


@pytest.mark.parametrize("text", ["2001-01-01T06:00", "2001-01-01_06:00:00", "2001-01-01 06", b"2001-01-01_06:00:00"])
def test_dates_in_text(text):
    found = datetimes(xr.DataArray(np.array([text]), dims="time", name="time"), "x")
    np.testing.assert_array_equal(found, np.array(["2001-01-01T06"], dtype="datetime64[s]"))


def test_text_that_is_no_date_is_refused():
    with pytest.raises(ValueError, match=r"are text .*'noon'"):
        datetimes(xr.DataArray(np.array(["noon"]), dims="time", name="time"), "x")


def test_units_of_time_in_capitals():
    times = xr.DataArray(np.array([0.0, 0.333333]), dims="time", attrs={"units": "Days Since 2001-1-1"})
    np.testing.assert_array_equal(datetimes(times, "x"), np.array(["2001-01-01T00", "2001-01-01T08"], "datetime64[s]"))
