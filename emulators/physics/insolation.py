"""Sunlight at the top of the atmosphere, from the date alone.

    S = S0 (a / r)^2 max(0, sin(phi) sin(delta) + cos(phi) cos(delta) cos(H))
    sin(delta) = sin(obliquity) sin(lambda),   lambda = nu + perihelion,   a / r = (1 + e cos(nu)) / (1 - e^2)

nu: true anomaly, by the equation of the centre to third order in e; H: hour angle, with the equation of time
(Berger 1978, doi 10.1175/1520-0469(1978)035<2362:LTVODI>2.0.CO;2; elements: Meeus 1998, Astronomical Algorithms,
chapter 25).

    mean from H - w to H of max(0, a + b cos h) = (G(H) - G(H - w)) / w,   G(h) = integral of a + b cos h in daylight

is the mean over an interval of hour angle w, with the declination of its middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from emulators.constants import SOLAR_CONSTANT

J2000 = np.datetime64("2000-01-01T12:00:00", "s")
CENTURY = 36525.0  # days


@dataclass(frozen=True)
class Orbit:
    """Hold orbital elements at J2000.

    Angles in degrees; rates in degrees a day (the anomaly) and a century (the perihelion).

    perihelion: geocentric longitude of the sun at perihelion, counted from the vernal equinox.
    """

    eccentricity: float = 0.016708
    obliquity: float = 23.4393
    perihelion: float = 282.937
    precession: float = 1.7195
    mean_anomaly: float = 357.5291
    daily_motion: float = 0.98560028


EARTH = Orbit()


class Sun(NamedTuple):
    """Hold the position of the sun; each array has the shape of the times.

    declination: radians. distance_factor: (a / r)^2. equation_of_time: sundial minus clock, radians.
    """

    declination: np.ndarray
    distance_factor: np.ndarray
    equation_of_time: np.ndarray


def sun(time: np.ndarray | np.datetime64, orbit: Orbit = EARTH) -> Sun:
    """Return the position of the sun at `time` (datetime64, UTC, any shape)."""
    days = (np.asarray(time, dtype="datetime64[s]") - J2000) / np.timedelta64(86400, "s")
    e, obliquity = orbit.eccentricity, np.deg2rad(orbit.obliquity)
    anomaly = np.deg2rad(orbit.mean_anomaly + orbit.daily_motion * days)
    perihelion = np.deg2rad(orbit.perihelion + orbit.precession * days / CENTURY)
    centre = (
        (2.0 * e - e**3 / 4.0) * np.sin(anomaly)
        + 1.25 * e**2 * np.sin(2.0 * anomaly)
        + 13.0 / 12.0 * e**3 * np.sin(3.0 * anomaly)
    )
    true_anomaly = anomaly + centre
    longitude = true_anomaly + perihelion
    ascension = np.arctan2(np.cos(obliquity) * np.sin(longitude), np.cos(longitude))
    lag = anomaly + perihelion - ascension
    return Sun(
        declination=np.arcsin(np.sin(obliquity) * np.sin(longitude)),
        distance_factor=((1.0 + e * np.cos(true_anomaly)) / (1.0 - e * e)) ** 2,
        equation_of_time=np.mod(lag + np.pi, 2.0 * np.pi) - np.pi,
    )


def insolation(
    time: np.ndarray | np.datetime64,
    latitude: np.ndarray,
    longitude: np.ndarray,
    *,
    orbit: Orbit = EARTH,
    solar_constant: float = SOLAR_CONSTANT,
    paired: bool = False,
) -> np.ndarray:
    """Return the instantaneous incident solar radiation in W m-2, float64, shape (*time.shape, lat, lon).

    time: datetime64 (UTC), any shape. latitude, longitude: degrees, shapes (lat,) and (lon,). paired: these are of the
    same points; shape (*time.shape, point).
    """
    return solar_constant * np.maximum(_height(sun(time, orbit), time, latitude, longitude, paired), 0.0)


def relative_insolation(
    time: np.ndarray | np.datetime64, latitude: np.ndarray, longitude: np.ndarray, *, paired: bool = False
) -> np.ndarray:
    """Return the sine of the sun's height times (a / r)^2, negative at night, shape (*time.shape, lat, lon).

    The orbit is that of 1995, to first order in its eccentricity and the same in each calendar year, without the
    equation of time: the input of Aurora 1.5 (PyPI microsoft-aurora 2.0), after Rose's climlab. paired: latitude and
    longitude are of the same points; shape (*time.shape, point).
    """
    time = np.asarray(time, dtype="datetime64[s]")
    days = (time - time.astype("datetime64[Y]")) / np.timedelta64(1, "D")
    e, perihelion = 0.016715, np.deg2rad(282.7)
    longitude_of_sun = 2.0 * np.pi * (days - 80.5) / 365.0 + e * (1.0 + np.sqrt(1.0 - e * e)) * np.sin(perihelion)
    longitude_of_sun = longitude_of_sun + 2.0 * e * np.sin(longitude_of_sun - perihelion)
    place = Sun(
        declination=np.arcsin(np.sin(np.deg2rad(23.4441)) * np.sin(longitude_of_sun)),
        distance_factor=((1.0 + e * np.cos(longitude_of_sun - perihelion)) / (1.0 - e * e)) ** 2,
        equation_of_time=np.zeros(time.shape),
    )
    return _height(place, time, latitude, longitude, paired)


def mean_insolation(
    time: np.ndarray | np.datetime64,
    length: np.timedelta64,
    latitude: np.ndarray,
    longitude: np.ndarray,
    *,
    orbit: Orbit = EARTH,
    solar_constant: float = SOLAR_CONSTANT,
    sundial: bool = True,
    paired: bool = False,
) -> np.ndarray:
    """Return the mean incident solar radiation over `length` before each time, in W m-2, shape (*time.shape, lat, lon).

    length: at most a day, else ValueError. sundial: False leaves out the equation of time, as some climate models do.
    paired: latitude and longitude are of the same points; shape (*time.shape, point).
    """
    time, length = np.asarray(time, dtype="datetime64[s]"), length.astype("timedelta64[s]")
    if not np.timedelta64(0, "s") < length <= np.timedelta64(1, "D"):
        raise ValueError(f"The light of an interval needs a length of up to a day; got {length}.")
    place = sun(time - length // 2, orbit)
    path, end = _path(place, latitude), _hour_angle(time, longitude, place.equation_of_time if sundial else 0.0)
    sunset = np.arccos(np.clip(-np.tan(np.deg2rad(latitude)) * np.tan(place.declination[..., None]), -1.0, 1.0))
    steady, swing, sunset = (term if paired else term[..., None] for term in (*path, sunset))
    end = end if paired else end[..., None, :]
    width = 2.0 * np.pi * float(length / np.timedelta64(1, "D"))

    def gathered(angle: np.ndarray) -> np.ndarray:
        """G, from the midnight before the day of hour angle 0."""
        days = np.floor((angle + np.pi) / (2.0 * np.pi))
        within = np.clip(angle - 2.0 * np.pi * days, -sunset, sunset)
        whole = 2.0 * (steady * sunset + swing * np.sin(sunset))
        return days * whole + steady * (within + sunset) + swing * (np.sin(within) + np.sin(sunset))

    light = (gathered(end) - gathered(end - width)) / width
    return solar_constant * place.distance_factor.reshape(*time.shape, *[1] * (2 - paired)) * np.maximum(light, 0.0)


def _hour_angle(time: np.ndarray | np.datetime64, longitude: np.ndarray, lead: np.ndarray | float) -> np.ndarray:
    """Return the hour angle in radians, shape (*time.shape, lon); lead: sundial minus clock in radians."""
    time = np.asarray(time, dtype="datetime64[s]")
    seconds = (time - time.astype("datetime64[D]")).astype(np.float64)
    noon = 2.0 * np.pi * seconds / 86400.0 - np.pi + lead
    return noon[..., None] + np.deg2rad(longitude)


def _height(
    place: Sun, time: np.ndarray | np.datetime64, latitude: np.ndarray, longitude: np.ndarray, paired: bool
) -> np.ndarray:
    """Return the sine of the sun's height times (a / r)^2, shape (*time.shape, lat, lon) or, paired, (..., point)."""
    angle = _hour_angle(time, longitude, place.equation_of_time)
    steady, swing = _path(place, latitude)
    if paired:
        return place.distance_factor[..., None] * (steady + swing * np.cos(angle))
    return place.distance_factor[..., None, None] * (steady[..., None] + swing[..., None] * np.cos(angle)[..., None, :])


def _path(place: Sun, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a and b of the sine of the sun's height, a + b cos H; shapes (*time.shape, lat)."""
    phi, delta = np.deg2rad(latitude), place.declination[..., None]
    return np.sin(delta) * np.sin(phi), np.cos(delta) * np.cos(phi)


def daily_mean_insolation(
    time: np.ndarray | np.datetime64,
    latitude: np.ndarray,
    *,
    orbit: Orbit = EARTH,
    solar_constant: float = SOLAR_CONSTANT,
) -> np.ndarray:
    """Return the mean over a day with the declination of `time`, in W m-2, shape (*time.shape, lat).

    (S0 / pi) (a / r)^2 (h0 sin(phi) sin(delta) + cos(phi) cos(delta) sin(h0)),  cos(h0) = -tan(phi) tan(delta)
    """
    place = sun(time, orbit)
    phi, delta = np.deg2rad(latitude), place.declination[..., None]
    sunset = np.arccos(np.clip(-np.tan(phi) * np.tan(delta), -1.0, 1.0))
    mean = sunset * np.sin(phi) * np.sin(delta) + np.cos(phi) * np.cos(delta) * np.sin(sunset)
    return solar_constant / np.pi * place.distance_factor[..., None] * mean
