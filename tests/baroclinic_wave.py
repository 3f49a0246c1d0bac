"""A standard case: a balanced jet in both hemispheres, and the baroclinic wave that a small push in one of them grows.

    u = u0 cos^{3/2}(v) sin^2(2 phi),   v = (sigma - 0.252) pi / 2,   ps = 1000 hPa
    T = <T>(sigma) + 3/4 (sigma pi u0 / R) sin(v) cos^{1/2}(v) (2 A u0 cos^{3/2}(v) + B a Omega)
    Phi_s = u0 cos^{3/2}(v_s) (A u0 cos^{3/2}(v_s) + B a Omega),   v_s = v(sigma = 1)
    A = -2 sin^6(phi) (cos^2(phi) + 1/3) + 10/63,   B = 8/5 cos^3(phi) (sin^2(phi) + 2/3) - pi / 4

is a steady solution of the dry equations; a bell of 1 m s-1 in u at 40 N, 20 E makes it unstable, and its deepest low
breaks after nine days. Jablonowski & Williamson 2006, doi 10.1256/qj.06.12.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from data_pipelines.simulators.planet.primitive_equations import PrimitiveEquations
from emulators.constants import EARTH_RADIUS, GAS_CONSTANT_DRY, GRAVITY, REFERENCE_PRESSURE, ROTATION_RATE
from emulators.grid import LatLonGrid

JET = 35.0  # m s-1
LAPSE_RATE = 0.005  # K m-1
GROUND_TEMPERATURE = 288.0  # K, global mean
TROPOPAUSE, STRATOSPHERE = 0.2, 4.8e5  # sigma above which the air warms, K
CENTRE, WIDTH = (20.0, 40.0), 0.1  # longitude and latitude of the push in degrees, half-width in radii of the planet


def _angle(sigma: np.ndarray | float) -> np.ndarray:
    return np.asarray((sigma - 0.252) * np.pi / 2.0)


def _shapes(latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A and B at latitudes in radians."""
    sine, cosine = np.sin(latitude), np.cos(latitude)
    a = -2.0 * sine**6 * (cosine**2 + 1.0 / 3.0) + 10.0 / 63.0
    return a, 1.6 * cosine**3 * (sine**2 + 2.0 / 3.0) - np.pi / 4.0


def surface_geopotential(grid: LatLonGrid) -> np.ndarray:
    """Phi_s in m2 s-2, (lat, lon)."""
    a, b = _shapes(np.deg2rad(grid.latitude))
    jet = JET * np.cos(_angle(1.0)) ** 1.5
    return np.repeat((jet * (a * jet + b * EARTH_RADIUS * ROTATION_RATE))[:, None], grid.shape[1], axis=1)


def state(equations: PrimitiveEquations, push: float = 1.0) -> Tensor:
    """The state of dry `equations`, made with `surface_geopotential`; push: m s-1, 0 for the steady solution."""
    grid, sigma = equations.sphere.grid, equations.levels.full
    latitude, longitude = np.deg2rad(grid.latitude)[None, :, None], np.deg2rad(grid.longitude)[:, None, None]
    angle = _angle(sigma)
    jet = JET * np.cos(angle) ** 1.5
    mean = GROUND_TEMPERATURE * sigma ** (GAS_CONSTANT_DRY * LAPSE_RATE / GRAVITY)
    mean = mean + STRATOSPHERE * np.maximum(TROPOPAUSE - sigma, 0.0) ** 5
    a, b = _shapes(latitude)
    tilt = 0.75 * sigma * np.pi * JET / GAS_CONSTANT_DRY * np.sin(angle) * np.sqrt(np.cos(angle))
    temperature = mean + tilt * (2.0 * a * jet + b * EARTH_RADIUS * ROTATION_RATE)
    x, y = np.deg2rad(CENTRE)
    cosine = np.sin(y) * np.sin(latitude) + np.cos(y) * np.cos(latitude) * np.cos(longitude - x)
    u = jet * np.sin(2.0 * latitude) ** 2 + push * np.exp(-((np.arccos(cosine.clip(-1.0, 1.0)) / WIDTH) ** 2))
    shape = (*grid.shape[::-1], len(sigma))
    wind, warmth = (equations.constant(field * np.ones(shape)) for field in (u, temperature))
    pressure = torch.full_like(wind[..., :1], REFERENCE_PRESSURE)
    return equations.coefficients(wind, torch.zeros_like(wind), warmth, pressure)
