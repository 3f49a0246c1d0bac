"""Initial states of the shallow-water equations that the literature knows.

    rotation     steady solid-body rotation, 12 days around (Williamson et al. 1992, case 2)
    mountain     a zonal flow meets an isolated mountain (case 5)
    haurwitz     the Rossby-Haurwitz wave of order 4 (case 6); without divergence it would turn eastward by
                 [R (3 + R) w - 2 Omega] / [(1 + R) (2 + R)] radians a second (Haurwitz 1940)
    jet          a barotropically unstable jet with a bump in its depth (Galewsky et al. 2004)

Williamson et al. 1992, doi 10.1016/S0021-9991(05)80016-6; Galewsky, Scott & Polvani 2004,
doi 10.3402/tellusa.v56i5.14436. Constants are the project's, which differ from theirs in the fourth digit.
Each case takes five numbers in [-1, 1] that vary it; all zero is the published one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from emulators.constants import EARTH_RADIUS, GRAVITY, ROTATION_RATE
from emulators.grid import LatLonGrid

DAY = 86400.0
VARIED = 5  # numbers that vary a case


class InitialFields(NamedTuple):
    """Winds (m s-1), depth of the fluid and height of the ground (m), each (lat, lon)."""

    u: np.ndarray
    v: np.ndarray
    depth: np.ndarray
    bottom: np.ndarray


def rotation(grid: LatLonGrid, varied: np.ndarray) -> InitialFields:
    """Case 2: a steady state. Varied: speed by a tenth."""
    latitude, _ = _radians(grid)
    speed = 2.0 * np.pi * EARTH_RADIUS / (12.0 * DAY) * (1.0 + 0.1 * varied[0])
    return _zonal(grid, speed * np.cos(latitude), _rotating_depth(grid, speed, 2.94e4 / GRAVITY))


def mountain(grid: LatLonGrid, varied: np.ndarray) -> InitialFields:
    """Case 5: 20 m/s over a cone of 2000 m at 30 N, 270 E. Varied: speed by a fifth, depth by 100 m."""
    latitude, longitude = _radians(grid)
    speed = 20.0 * (1.0 + 0.2 * varied[0])
    away = np.hypot(longitude - 1.5 * np.pi, latitude - np.pi / 6.0)
    bottom = 2000.0 * (1.0 - np.minimum(away, np.pi / 9.0) / (np.pi / 9.0))
    depth = _rotating_depth(grid, speed, 5960.0 + 100.0 * varied[1]) - bottom
    return _zonal(grid, speed * np.cos(latitude), depth)._replace(bottom=bottom)


def haurwitz(grid: LatLonGrid, varied: np.ndarray) -> InitialFields:
    """Case 6: wave number 4. Varied: rotation and wave by a tenth each, longitude."""
    latitude, longitude = _radians(grid)
    order = 4
    turning, wave = (7.848e-6 * (1.0 + 0.1 * share) for share in varied[:2])
    angle = order * (longitude - np.pi * varied[2])
    c, s = np.cos(latitude), np.sin(latitude)
    u = EARTH_RADIUS * (turning * c + wave * c ** (order - 1) * (order * s**2 - c**2) * np.cos(angle))
    v = -EARTH_RADIUS * wave * order * c ** (order - 1) * s * np.sin(angle)
    r = float(order)
    mean = 0.5 * turning * (2.0 * ROTATION_RATE + turning) * c**2 + 0.25 * wave**2 * c ** (2 * order) * (
        (r + 1.0) * c**2 + (2.0 * r * r - r - 2.0) - 2.0 * r * r / c**2
    )
    once = 2.0 * (ROTATION_RATE + turning) * wave / ((r + 1.0) * (r + 2.0)) * c**order
    once = once * ((r * r + 2.0 * r + 2.0) - (r + 1.0) ** 2 * c**2)
    twice = 0.25 * wave**2 * c ** (2 * order) * ((r + 1.0) * c**2 - (r + 2.0))
    height = 8000.0 + EARTH_RADIUS**2 / GRAVITY * (mean + once * np.cos(angle) + twice * np.cos(2.0 * angle))
    return InitialFields(u, v, height, np.zeros(grid.shape))


def jet(grid: LatLonGrid, varied: np.ndarray) -> InitialFields:
    """An 80 m/s jet at 45 N in balance, 10 km mean depth, and a bump of 120 m.

    Varied: speed by a tenth, latitude by 5 degrees, height of the bump by half, its longitude, and its width by a
    third.
    """
    latitude, longitude = _radians(grid)
    fine = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 20001)
    shift = np.deg2rad(5.0) * varied[1]
    south, north = np.pi / 7.0 + shift, 0.5 * np.pi - np.pi / 7.0 + shift
    inside = (fine > south) & (fine < north)
    wind = np.zeros_like(fine)
    wind[inside] = np.exp(1.0 / ((fine[inside] - south) * (fine[inside] - north)) + 4.0 / (north - south) ** 2)
    wind *= 80.0 * (1.0 + 0.1 * varied[0])
    force = wind * (2.0 * ROTATION_RATE * np.sin(fine) + np.tan(fine) * wind / EARTH_RADIUS)
    fall = np.concatenate([[0.0], np.cumsum(0.5 * (force[1:] + force[:-1]) * np.diff(fine))]) * EARTH_RADIUS / GRAVITY
    depth = -np.interp(np.deg2rad(grid.latitude), fine, fall)
    depth += 10_000.0 - (depth * grid.weights[:, 0]).mean()
    away = np.mod(longitude - np.pi * varied[3] + np.pi, 2.0 * np.pi) - np.pi
    width = 1.0 + varied[4] / 3.0
    bump = np.exp(-((3.0 * away / width) ** 2) - (15.0 * (0.25 * np.pi + shift - latitude) / width) ** 2)
    bump = 120.0 * (1.0 + 0.5 * varied[2]) * np.cos(latitude) * bump
    u = np.interp(np.deg2rad(grid.latitude), fine, wind)[:, None]
    return _zonal(grid, u, depth[:, None] + bump)


CASES: dict[str, Callable[[LatLonGrid, np.ndarray], InitialFields]] = {
    "rotation": rotation,
    "mountain": mountain,
    "haurwitz": haurwitz,
    "jet": jet,
}


def haurwitz_phase_speed(order: int = 4, turning: float = 7.848e-6) -> float:
    """Eastward angular speed of the wave without divergence, s-1 (Haurwitz 1940)."""
    return (order * (3 + order) * turning - 2.0 * ROTATION_RATE) / ((1 + order) * (2 + order))


def _radians(grid: LatLonGrid) -> tuple[np.ndarray, np.ndarray]:
    return np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)[None]


def _zonal(grid: LatLonGrid, u: np.ndarray, depth: np.ndarray) -> InitialFields:
    u, depth = (np.broadcast_to(field, grid.shape).copy() for field in (u, depth))
    return InitialFields(u, np.zeros(grid.shape), depth, np.zeros(grid.shape))


def _rotating_depth(grid: LatLonGrid, speed: float, mean: float) -> np.ndarray:
    """Depth in balance with solid-body rotation."""
    fall = (EARTH_RADIUS * ROTATION_RATE * speed + 0.5 * speed**2) / GRAVITY
    return mean - fall * np.sin(np.deg2rad(grid.latitude))[:, None] ** 2
