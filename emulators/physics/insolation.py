"""Sunlight at the top of the atmosphere, from the date alone.

    S = S0 (a / r)^2 max(0, sin(phi) sin(delta) + cos(phi) cos(delta) cos(H))
    sin(delta) = sin(obliquity) sin(lambda),   lambda = nu + perihelion,   a / r = (1 + e cos(nu)) / (1 - e^2)

nu: true anomaly, by the equation of the centre to third order in e; H: hour angle, with the equation of time
(Berger 1978, doi 10.1175/1520-0469(1978)035<2362:LTVODI>2.0.CO;2; elements: Meeus 1998, Astronomical Algorithms,
chapter 25).
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
    """Elements at J2000; angles in degrees, rates in degrees a day (the anomaly) and a century (the perihelion).

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
    """Where the sun stands; each of the shape of the times asked for.

    declination: radians. distance_factor: (a / r)^2. equation_of_time: sundial minus clock, radians.
    """

    declination: np.ndarray
    distance_factor: np.ndarray
    equation_of_time: np.ndarray | np.datetime64


def sun(time: np.ndarray | np.datetime64, orbit: Orbit = EARTH) -> Sun:
    """The sun at `time` (datetime64, UTC)."""
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
) -> np.ndarray:
    """Instantaneous incident solar radiation in W m-2, float64, shape (*time.shape, lat, lon).

    time: datetime64 (UTC), any shape. latitude, longitude: degrees, shapes (lat,) and (lon,).
    """
    time = np.asarray(time, dtype="datetime64[s]")
    place = sun(time, orbit)
    seconds = (time - time.astype("datetime64[D]")).astype(np.float64)
    noon = 2.0 * np.pi * seconds / 86400.0 - np.pi + place.equation_of_time
    angle = noon[..., None] + np.deg2rad(longitude)
    phi, delta = np.deg2rad(latitude), place.declination[..., None]
    steady, swing = np.sin(delta) * np.sin(phi), np.cos(delta) * np.cos(phi)
    cosine = steady[..., None] + swing[..., None] * np.cos(angle)[..., None, :]
    return solar_constant * place.distance_factor[..., None, None] * np.maximum(cosine, 0.0)


def daily_mean_insolation(
    time: np.ndarray | np.datetime64,
    latitude: np.ndarray,
    *,
    orbit: Orbit = EARTH,
    solar_constant: float = SOLAR_CONSTANT,
) -> np.ndarray:
    """Mean over one turn of the planet with the sun as it stands at `time`, in W m-2, shape (*time.shape, lat).

    (S0 / pi) (a / r)^2 (h0 sin(phi) sin(delta) + cos(phi) cos(delta) sin(h0)),  cos(h0) = -tan(phi) tan(delta)
    """
    place = sun(time, orbit)
    phi, delta = np.deg2rad(latitude), place.declination[..., None]
    sunset = np.arccos(np.clip(-np.tan(phi) * np.tan(delta), -1.0, 1.0))
    mean = sunset * np.sin(phi) * np.sin(delta) + np.cos(phi) * np.cos(delta) * np.sin(sunset)
    return solar_constant / np.pi * place.distance_factor[..., None] * mean
