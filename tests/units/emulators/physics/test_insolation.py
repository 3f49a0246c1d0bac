"""The sun stands where the almanac says, and its light adds up."""

import numpy as np
import pytest

from emulators.physics.insolation import (
    Orbit,
    daily_mean_insolation,
    insolation,
    mean_insolation,
    relative_insolation,
    sun,
)

LATITUDE = np.linspace(89.0, -89.0, 90)
LONGITUDE = np.arange(0.0, 360.0, 2.0)


@pytest.mark.parametrize(
    ("time", "declination"),
    [
        ("2000-06-21T01:48", 23.44),  # solstices and equinoxes: almanac
        ("2000-12-21T13:37", -23.44),
        ("2000-03-20T07:35", 0.0),
        ("2024-09-22T12:44", 0.0),
        ("1992-10-13T00:00", -7.785),  # Meeus 1998, example 25.a
    ],
)
def test_declination_is_the_almanacs(time, declination):
    assert np.rad2deg(sun(np.datetime64(time)).declination) == pytest.approx(declination, abs=0.02)


def test_equation_of_time_and_distance_are_the_almanacs():
    november = sun(np.datetime64("2023-11-03T12:00"))
    february = sun(np.datetime64("2023-02-11T12:00"))
    assert np.rad2deg(november.equation_of_time) * 4.0 == pytest.approx(16.45, abs=0.1)  # minutes
    assert np.rad2deg(february.equation_of_time) * 4.0 == pytest.approx(-14.2, abs=0.1)
    assert sun(np.datetime64("2000-01-03T05:00")).distance_factor == pytest.approx(1.0 / 0.98332**2, rel=1e-4)
    assert sun(np.datetime64("2000-07-04T00:00")).distance_factor == pytest.approx(1.0 / 1.01674**2, rel=1e-4)


def test_noon_is_brightest_under_the_sun_and_half_the_planet_is_dark():
    light = insolation(np.datetime64("2001-03-20T12:00"), LATITUDE, LONGITUDE)
    row, column = np.unravel_index(light.argmax(), light.shape)
    assert abs(LATITUDE[row]) < 2.0
    assert min(LONGITUDE[column], 360.0 - LONGITUDE[column]) < 4.0
    assert light.min() == 0.0
    assert np.mean(light == 0.0) == pytest.approx(0.5, abs=0.02)


def test_relative_insolation_is_that_of_the_almanac_but_for_the_equation_of_time_and_goes_on_at_night():
    times = np.datetime64("1995-01-01", "s") + np.arange(0, 365 * 24, 67) * np.timedelta64(1, "h")
    light, full = relative_insolation(times, LATITUDE, LONGITUDE), insolation(times, LATITUDE, LONGITUDE) / 1361.0
    assert 0.02 < np.abs(np.maximum(light, 0.0) - full).max() < 0.08  # 16 minutes of 24 h are 0.07
    np.testing.assert_allclose(light.mean(axis=-1) + light[:, ::-1].mean(axis=-1), 0.0, atol=1e-12)
    paired = relative_insolation(times, LATITUDE[:5], LONGITUDE[:5], paired=True)
    np.testing.assert_allclose(paired, light[:, range(5), range(5)])


def test_global_mean_is_a_quarter_of_the_beam():
    times = np.datetime64("2003-01-01", "s") + np.arange(0, 365 * 24, 67) * np.timedelta64(1, "h")
    weights = np.cos(np.deg2rad(LATITUDE))
    light = insolation(times, LATITUDE, LONGITUDE).mean(axis=-1) @ (weights / weights.sum())
    beam = 1361.0 * sun(times).distance_factor
    np.testing.assert_allclose(light, beam / 4.0, rtol=2e-3)


def test_daily_mean_is_the_mean_along_a_circle_of_latitude():
    time = np.array(["2001-01-05", "2001-08-20"], dtype="datetime64[s]")
    fine = np.arange(0.0, 360.0, 0.25)
    np.testing.assert_allclose(
        daily_mean_insolation(time, LATITUDE), insolation(time, LATITUDE, fine).mean(axis=-1), atol=0.02
    )


def test_shape_follows_time_and_orbit_counts():
    times = np.array([["2001-01-01", "2001-07-01"]], dtype="datetime64[s]")
    assert insolation(times, LATITUDE, LONGITUDE).shape == (1, 2, 90, 180)
    upright = insolation(times, LATITUDE, LONGITUDE, orbit=Orbit(obliquity=0.0)).mean(axis=-1)
    np.testing.assert_allclose(upright, upright[..., ::-1], rtol=1e-12)


@pytest.mark.parametrize("hours", [1, 6, 24])
def test_mean_of_an_interval_is_the_mean_of_its_moments(hours):
    """The moments with the sun of the middle of the interval: over a day it moves by 0.4 degrees."""
    latitude, longitude = np.linspace(90.0, -90.0, 19), np.arange(0.0, 360.0, 30.0)
    times = np.array(["2003-01-10T06", "2003-03-21T18", "2003-07-01T23"], "datetime64[s]")
    moments = times[:, None] - (np.arange(900) * 4 + 2) * np.timedelta64(hours, "s")
    expected = insolation(moments, latitude, longitude).mean(axis=1)
    found = mean_insolation(times, np.timedelta64(hours, "h"), latitude, longitude)
    np.testing.assert_allclose(found, expected, atol=0.06 * hours)
    with pytest.raises(ValueError, match="up to a day"):
        mean_insolation(times, np.timedelta64(48, "h"), latitude, longitude)


def test_mean_of_a_day_is_the_daily_mean():
    noon, midnight = np.datetime64("2001-08-20T12"), np.datetime64("2001-08-21")
    found = mean_insolation(midnight, np.timedelta64(1, "D"), LATITUDE, LONGITUDE)
    daily = daily_mean_insolation(noon, LATITUDE)
    np.testing.assert_allclose(found, np.repeat(daily[:, None], LONGITUDE.size, axis=1), rtol=1e-9, atol=1e-9)
