"""The shallow-water equations on the rotating sphere, spectral, in vorticity, divergence and depth; and initial states.

    dzeta/dt = curl(A, B),                     A =  (zeta + f) v
    dD/dt    = div(A, B) - lap(K + g (h + hs)),  B = -(zeta + f) u
    dh/dt    = -div(h u, h v),                 K = (u^2 + v^2) / 2

Depth is in flux form, so mass is conserved to round-off. The time scheme is the classical Runge-Kutta scheme; optional
lap^4 damping of vorticity and divergence is exact. The conserved integrals of the standard test set are `mass`,
`energy` and `potential_enstrophy`. The initial states are:

    rotation     steady solid-body rotation, 12 days around (Williamson et al. 1992, case 2)
    mountain     a zonal flow over an isolated mountain (case 5)
    haurwitz     the Rossby-Haurwitz wave of order R = 4 (case 6); without divergence it would turn eastward by
                 [R (3 + R) w - 2 Omega] / [(1 + R) (2 + R)] radians a second (Haurwitz 1940)
    jet          a barotropically unstable jet with a bump in its depth (Galewsky et al. 2004)

Williamson et al. 1992, doi 10.1016/S0021-9991(05)80016-6; Galewsky, Scott & Polvani 2004,
doi 10.3402/tellusa.v56i5.14436. Constants are those of `emulators.constants`, which differ from theirs in the fourth
digit. Each initial state is varied by five numbers in [-1, 1]; with zeros it is the published one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_pipelines.simulators.time_schemes import ExponentialRungeKutta
from emulators.constants import EARTH_RADIUS, GRAVITY, ROTATION_RATE
from emulators.grid import LatLonGrid
from emulators.sphere.calculus import SphericalCalculus

DAY = 86400.0
VARIED = 5  # numbers that vary a case


class Layer(NamedTuple):
    """Hold the fluid on the grid: winds (m s-1), vorticity (s-1) and depth (m), each (lon, lat, member)."""

    u: Tensor
    v: Tensor
    vorticity: Tensor
    depth: Tensor


class ShallowWaterEquations:
    """Integrate the shallow-water equations for several members.

    A state, (2 * orders, degrees, 3, members), holds the coefficients of vorticity (s-1), divergence (s-1), depth (m).
    step: timestep in seconds. bottom: height of the ground in m, (lat, lon). damping_hours: e-folding time of the
    smallest scale; None: no damping.
    """

    def __init__(
        self,
        grid: LatLonGrid,
        truncation: int,
        step: float,
        *,
        bottom: np.ndarray | None = None,
        damping_hours: float | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.grid, self.dtype = grid, dtype
        self.sphere = SphericalCalculus(grid, truncation + 1, truncation + 1, dtype)
        self._weights = torch.from_numpy(grid.weights.T / grid.weights.size)[..., None]
        self.coriolis = self._tensor(2.0 * ROTATION_RATE * np.sin(np.deg2rad(grid.latitude)))[None, :, None]
        ground = np.zeros(grid.shape) if bottom is None else bottom
        self._bottom = self.sphere.analysis(self._tensor(ground.T[..., None]))
        rate = np.zeros((truncation + 1, 3))
        if damping_hours is not None:
            degree = np.arange(truncation + 1)
            scale = degree * (degree + 1) / (truncation * (truncation + 1))
            rate[:, :2] = -(scale[:, None] ** 4) / (3600.0 * damping_hours)
        self._scheme = ExponentialRungeKutta(rate[None, :, :, None], step, dtype)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.dtype)

    def coefficients(self, u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> Tensor:
        """Return the state of fields (member, lat, lon) in m s-1 and m."""
        east, north, thickness = (self._tensor(field.transpose(2, 1, 0)) for field in (u, v, depth))
        vorticity, divergence = self.sphere.vorticity_divergence(east, north)
        return torch.stack([vorticity, divergence, self.sphere.analysis(thickness)], dim=2)

    def fields(self, state: Tensor) -> Layer:
        """Return winds, vorticity and depth on the grid."""
        vorticity, divergence, depth = (part.contiguous() for part in state.unbind(2))
        u, v = self.sphere.winds(vorticity, divergence)
        return Layer(u, v, *self.sphere.synthesis(torch.cat([vorticity, depth], dim=2)).chunk(2, dim=2))

    def tendency(self, state: Tensor) -> Tensor:
        """Return the tendency of the state per second, without the damping."""
        sphere, members = self.sphere, state.shape[3]
        u, v, vorticity, depth = self.fields(state)
        absolute = vorticity + self.coriolis
        east = torch.cat([absolute * v, depth * u], dim=2)
        north = torch.cat([-absolute * u, depth * v], dim=2)
        curl, divergence = sphere.vorticity_divergence(east, north)
        bernoulli = sphere.analysis(0.5 * (u * u + v * v)) + GRAVITY * (state[:, :, 2] + self._bottom)
        turned, spread = curl[..., :members], divergence[..., :members] - sphere.laplacian * bernoulli
        return torch.stack([turned, spread, -divergence[..., members:]], dim=2)

    def step(self, state: Tensor) -> Tensor:
        """Return the state one timestep later."""
        return self._scheme(self.tendency, state)

    def sample(self, state: Tensor) -> dict[str, np.ndarray]:
        """Return the fields by WeatherBench 2 names, float32, (member, lat, lon); geopotential: of the free surface."""
        layer = self.fields(state)
        ground = self.sphere.synthesis(self._bottom)
        fields = {
            "u_component_of_wind": layer.u,
            "v_component_of_wind": layer.v,
            "geopotential": GRAVITY * (layer.depth + ground),
            "vorticity": layer.vorticity,
            "potential_vorticity": (layer.vorticity + self.coriolis) / layer.depth,
        }
        return {name: field.permute(2, 1, 0).float().contiguous().numpy() for name, field in fields.items()}

    def static(self) -> dict[str, np.ndarray]:
        """Return the geopotential of the ground, truncated, (lat, lon)."""
        return {"geopotential_at_surface": GRAVITY * self.sphere.synthesis(self._bottom)[..., 0].T.double().numpy()}

    def disturbed(self, state: Tensor, size: float, generator: torch.Generator) -> Tensor:
        """Return the state with a random non-divergent wind of rms `size` (m s-1) in degrees 1 to 12 added."""
        sphere = self.sphere
        noise = torch.randn(*self.grid.shape[::-1], state.shape[3], generator=generator, dtype=torch.float64)
        vorticity = sphere.analysis(noise.to(self.dtype))
        vorticity[:, 0], vorticity[:, 13:] = 0.0, 0.0
        u, v = sphere.winds(vorticity, torch.zeros_like(vorticity))
        speed = self._mean(u.square() + v.square()).sqrt().to(self.dtype)
        more = state.clone()
        more[:, :, 0] += vorticity * (size / speed)
        return more

    def mass(self, state: Tensor) -> Tensor:
        """Return the mean depth in m, (members,)."""
        return state[0, 0, 2] / np.sqrt(4.0 * np.pi)

    def energy(self, state: Tensor) -> Tensor:
        """Return the mean kinetic and potential energy per area and density in m3 s-2, (members,)."""
        layer, ground = self.fields(state), self.sphere.synthesis(self._bottom)
        kinetic = 0.5 * layer.depth * (layer.u.square() + layer.v.square())
        return self._mean(kinetic + GRAVITY * layer.depth * (0.5 * layer.depth + ground))

    def potential_enstrophy(self, state: Tensor) -> Tensor:
        """Return the mean of (zeta + f)^2 / (2 h) in m-1 s-2, (members,)."""
        layer = self.fields(state)
        return self._mean(0.5 * (layer.vorticity + self.coriolis).square() / layer.depth)

    def _mean(self, field: Tensor) -> Tensor:
        return (field.double() * self._weights).sum((0, 1))


class InitialFields(NamedTuple):
    """Hold winds (m s-1), depth of the fluid and height of the ground (m), each (lat, lon)."""

    u: np.ndarray
    v: np.ndarray
    depth: np.ndarray
    bottom: np.ndarray


def rotation(grid: LatLonGrid, varied: np.ndarray) -> InitialFields:
    """Return case 2, a steady state. varied[0] changes the speed by up to a tenth."""
    latitude, _ = _radians(grid)
    speed = 2.0 * np.pi * EARTH_RADIUS / (12.0 * DAY) * (1.0 + 0.1 * varied[0])
    return _zonal(grid, speed * np.cos(latitude), _rotating_depth(grid, speed, 2.94e4 / GRAVITY))


def mountain(grid: LatLonGrid, varied: np.ndarray) -> InitialFields:
    """Return case 5: a flow of 20 m/s over a cone of 2000 m at 30 N, 270 E.

    varied changes the speed by up to a fifth and the depth by up to 100 m.
    """
    latitude, longitude = _radians(grid)
    speed = 20.0 * (1.0 + 0.2 * varied[0])
    away = np.hypot(longitude - 1.5 * np.pi, latitude - np.pi / 6.0)
    bottom = 2000.0 * (1.0 - np.minimum(away, np.pi / 9.0) / (np.pi / 9.0))
    depth = _rotating_depth(grid, speed, 5960.0 + 100.0 * varied[1]) - bottom
    return _zonal(grid, speed * np.cos(latitude), depth)._replace(bottom=bottom)


def haurwitz(grid: LatLonGrid, varied: np.ndarray) -> InitialFields:
    """Return case 6, wave number 4. varied changes rotation and wave by up to a tenth each, and the longitude."""
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
    """Return a balanced jet of 80 m/s at 45 N with a mean depth of 10 km and a bump of 120 m.

    varied changes the speed by up to a tenth, the latitude by 5 degrees, the height of the bump by half, its longitude,
    and its width by a third.
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


def _radians(grid: LatLonGrid) -> tuple[np.ndarray, np.ndarray]:
    return np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)[None]


def _zonal(grid: LatLonGrid, u: np.ndarray, depth: np.ndarray) -> InitialFields:
    u, depth = (np.broadcast_to(field, grid.shape).copy() for field in (u, depth))
    return InitialFields(u, np.zeros(grid.shape), depth, np.zeros(grid.shape))


def _rotating_depth(grid: LatLonGrid, speed: float, mean: float) -> np.ndarray:
    """Return the depth in balance with solid-body rotation."""
    fall = (EARTH_RADIUS * ROTATION_RATE * speed + 0.5 * speed**2) / GRAVITY
    return mean - fall * np.sin(np.deg2rad(grid.latitude))[:, None] ** 2
