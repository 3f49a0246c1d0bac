"""Fields that follow from time and grid alone: sunlight, carbon dioxide, clocks of year and day, place on the sphere.

Sunlight is that of the moment, or the mean of the hours in its name, up to the moment; relative_insolation is Aurora
1.5's, negative at night.

    year = 2 pi * fraction of the calendar year;    day = 2 pi * local mean solar time / 24 h

Static: the unit vector of each point, (cos lat cos lon, cos lat sin lon, sin lat), free of seams and poles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from emulators.grid import Grid, LatLonGrid
from emulators.variables import Variable

INSOLATION = "toa_incident_solar_radiation"
MEAN_INSOLATION = {f"mean_toa_incident_solar_radiation_{hours}hr": hours for hours in (1, 3, 6, 12, 24)}
CARBON_DIOXIDE = "carbon_dioxide"
HALF = float(np.sqrt(0.5))


def year_angle(times: np.ndarray) -> np.ndarray:
    """Return 2 pi times the elapsed fraction of each time's calendar year, float64, shape (time,)."""
    times = np.asarray(times, dtype="datetime64[s]")
    year = times.astype("datetime64[Y]")
    start, end = year.astype("datetime64[s]"), (year + 1).astype("datetime64[s]")
    return 2.0 * np.pi * (times - start).astype(np.float64) / (end - start).astype(np.float64)


def day_angle(times: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Return 2 pi times the fraction of the day in local mean solar time, 0 at midnight, shape (time, *longitude)."""
    times = np.asarray(times, dtype="datetime64[s]")
    seconds = (times - times.astype("datetime64[D]")).astype(np.float64)
    return 2.0 * np.pi * (seconds[:, None] / 86400.0 + longitude / 360.0)


def _axes(grid: Grid) -> tuple[np.ndarray, np.ndarray, bool]:
    """Latitudes, longitudes, and whether both are of the same points."""
    if isinstance(grid, LatLonGrid):
        return grid.latitude, grid.longitude, False
    return *grid.points, True


def _insolation(times: np.ndarray, grid: Grid) -> np.ndarray:
    from emulators.physics import insolation

    latitude, longitude, paired = _axes(grid)
    return insolation.insolation(times, latitude, longitude, paired=paired)


def _relative_insolation(times: np.ndarray, grid: Grid) -> np.ndarray:
    from emulators.physics import insolation

    latitude, longitude, paired = _axes(grid)
    return insolation.relative_insolation(times, latitude, longitude, paired=paired)


def _mean_insolation(hours: int, times: np.ndarray, grid: Grid) -> np.ndarray:
    from emulators.physics import insolation

    latitude, longitude, paired = _axes(grid)
    return insolation.mean_insolation(times, np.timedelta64(hours, "h"), latitude, longitude, paired=paired)


def _whole(rows: np.ndarray, grid: Grid) -> np.ndarray:
    """Values by time, or by time and longitude or cell, spread over the grid."""
    between = len(grid.shape) - (rows.ndim - 1)
    rows = rows.reshape(rows.shape[0], *[1] * between, *rows.shape[1:])
    return np.broadcast_to(rows, (rows.shape[0], *grid.shape))


# name: (units, (times, grid) -> (time, *grid))
_MOVING: dict[str, tuple[str, Callable[[np.ndarray, Grid], np.ndarray]]] = {
    INSOLATION: ("W m-2", _insolation),
    "relative_insolation": ("1", _relative_insolation),
    **{name: ("W m-2", partial(_mean_insolation, hours)) for name, hours in MEAN_INSOLATION.items()},
    CARBON_DIOXIDE: ("ppm", lambda times, grid: _whole(carbon_dioxide(times), grid)),
    "sin_year": ("1", lambda times, grid: _whole(np.sin(year_angle(times)), grid)),
    "cos_year": ("1", lambda times, grid: _whole(np.cos(year_angle(times)), grid)),
    "sin_day": ("1", lambda times, grid: _whole(np.sin(day_angle(times, _axes(grid)[1])), grid)),
    "cos_day": ("1", lambda times, grid: _whole(np.cos(day_angle(times, _axes(grid)[1])), grid)),
}


# name: function of latitude and longitude in radians
_FIXED: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "sin_latitude": lambda lat, lon: np.sin(lat) + 0.0 * lon,
    "cos_latitude_sin_longitude": lambda lat, lon: np.cos(lat) * np.sin(lon),
    "cos_latitude_cos_longitude": lambda lat, lon: np.cos(lat) * np.cos(lon),
}
MOVING, FIXED = tuple(_MOVING), tuple(_FIXED)


# Mean and standard deviation where they are known beforehand; a clock of the year is a field without spread in space.
CLOSED_FORM = dict.fromkeys(("sin_year", "cos_year", "sin_day", "cos_day"), (0.0, HALF))


def variable(name: str) -> Variable:
    """Return the Variable of a computed field."""
    return Variable(name, _MOVING[name][0] if name in _MOVING else "1")


def moving(names: Iterable[str], times: np.ndarray, grid: Grid) -> np.ndarray:
    """Computed forcings at `times`, float32, shape (time, channel, *grid)."""
    names, times = list(names), np.atleast_1d(np.asarray(times, dtype="datetime64[s]"))
    fields = np.empty((times.size, len(names), *grid.shape), dtype=np.float32)
    for channel, name in enumerate(names):
        fields[:, channel] = _MOVING[name][1](times, grid)
    return fields


def fixed(name: str, grid: Grid) -> np.ndarray:
    """Compute a static field, float32, of the grid's shape."""
    latitude, longitude = (np.deg2rad(degrees).reshape(grid.shape) for degrees in grid.points)
    return _FIXED[name](latitude, longitude).astype(np.float32)


EARLIER = {1850: 285.0, 1860: 286.0, 1870: 288.0, 1880: 291.0, 1890: 294.0, 1900: 296.0, 1910: 300.0, 1920: 303.0}


EARLIER |= {1930: 307.0, 1940: 310.0, 1950: 312.0}


FIRST = 1959
MEASURED = (
    315.98, 316.91, 317.64, 318.45, 318.99, 319.62, 320.04, 321.37, 322.18, 323.05, 324.62, 325.68, 326.32, 327.46,
    329.68, 330.19, 331.13, 332.03, 333.84, 335.41, 336.84, 338.76, 340.12, 341.48, 343.15, 344.87, 346.35, 347.61,
    349.31, 351.69, 353.20, 354.45, 355.70, 356.54, 357.21, 358.96, 360.97, 362.74, 363.88, 366.84, 368.54, 369.71,
    371.32, 373.45, 375.98, 377.70, 379.98, 382.09, 384.02, 385.83, 387.64, 390.10, 391.85, 394.06, 396.74, 398.81,
    401.01, 404.41, 406.76, 408.72, 411.65, 414.21, 416.41, 418.53, 421.08, 424.61,
)  # fmt: skip
TABLE = EARLIER | {FIRST + n: value for n, value in enumerate(MEASURED)}


def carbon_dioxide(times: np.ndarray) -> np.ndarray:
    """Parts per million at `times` (datetime64), float64, same shape; ValueError beyond the years of the table."""
    times = np.asarray(times, dtype="datetime64[s]")
    year = times.astype("datetime64[Y]")
    start, end = (edge.astype("datetime64[s]") for edge in (year, year + 1))
    decimal_year = year.astype(np.int64) + 1970 + (times - start).astype(np.float64) / (end - start).astype(np.float64)
    first, last = min(TABLE), max(TABLE) + 1
    if times.size and not (first <= decimal_year.min() and decimal_year.max() < last):
        beyond = times.min() if decimal_year.min() < first else times.max()
        raise ValueError(
            f"Carbon dioxide is known here from {first} to {last - 1}; got {beyond}. Give it as a variable of the data."
        )
    return np.interp(decimal_year, np.array(list(TABLE)) + 0.5, np.array(list(TABLE.values())))
