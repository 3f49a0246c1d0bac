"""Shallow water on the sphere as a dataset: the standard cases, and an ensemble of variations to train on.

    dzeta/dt = curl(A, B),                     A =  (zeta + f) v
    dD/dt    = div(A, B) - lap(K + g (h + hs)),  B = -(zeta + f) u
    dh/dt    = -div(h u, h v),                 K = (u^2 + v^2) / 2

The equations are spectral, in vorticity, divergence and depth. Depth is in flux form, so mass is conserved to
round-off. The time scheme is the classical Runge-Kutta scheme; optional lap^4 damping of vorticity and divergence is
exact. The conserved integrals of the standard test set are `mass`, `energy` and `potential_enstrophy`. The cases are:

    rotation     steady solid-body rotation, 12 days around (Williamson et al. 1992, case 2)
    mountain     a zonal flow over an isolated mountain (case 5)
    haurwitz     the Rossby-Haurwitz wave of order R = 4 (case 6); without divergence it would turn eastward by
                 [R (3 + R) w - 2 Omega] / [(1 + R) (2 + R)] radians a second (Haurwitz 1940)
    jet          a barotropically unstable jet with a bump in its depth (Galewsky et al. 2004)

Williamson et al. 1992, doi 10.1016/S0021-9991(05)80016-6; Galewsky, Scott & Polvani 2004,
doi 10.3402/tellusa.v56i5.14436. Constants are those of `emulators.constants`, which differ from theirs in the fourth
digit. The first trajectory is the published case; the others vary its parameters by five numbers in [-1, 1] and start
with a little noise. All trajectories run side by side in one tensor and are stored as Zarr in the layout of
WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.interfaces import Progress
from data_pipelines.simulators.stores import (
    GAP,
    SURFACE,
    Integration,
    SimulatedSource,
    Trajectories,
    checked_intervals,
    empty_dataset,
    require_at_least,
    store_path,
)
from data_pipelines.simulators.time_schemes import ExponentialRungeKutta
from emulators.constants import EARTH_RADIUS, GRAVITY, ROTATION_RATE
from emulators.grid import LatLonGrid, alias_free_grid
from emulators.sphere.calculus import SphericalCalculus

EDITION = 1  # of the equations; a new edition makes new stores
VARIABLES = {
    "u_component_of_wind": (SURFACE, "m s**-1", "eastward_wind", "U component of wind"),
    "v_component_of_wind": (SURFACE, "m s**-1", "northward_wind", "V component of wind"),
    "geopotential": (SURFACE, "m**2 s**-2", "geopotential", "Geopotential of the free surface"),
    "vorticity": (SURFACE, "s**-1", "atmosphere_relative_vorticity", "Relative vorticity"),
    "potential_vorticity": (SURFACE, "m**-1 s**-1", "", "Absolute vorticity over the depth of the fluid"),
    "geopotential_at_surface": (("latitude", "longitude"), "m**2 s**-2", "surface_geopotential", "Ground"),
}


class ShallowWater(SimulatedSource):
    """Simulate shallow water on the sphere on first use, and cache the store in `folder` (default: the user's cache).

    splits: first and last time of train, validation and test. days: length of each trajectory. case: rotation,
    mountain, haurwitz or jet (Williamson et al. 1992, cases 2, 5 and 6; Galewsky et al. 2004). seed: of the variations.
    noise: rms in m/s of the wind added to all trajectories but the first. truncation: largest degree of the spherical
    harmonics. timestep_minutes: of the model. interval_hours: between stored samples. damping_hours: e-folding time of
    the smallest scale; null: none. start: date of the first stored sample.
    """

    def __init__(
        self,
        *,
        splits: Mapping[str, Sequence[str | int]],
        folder: str | None = None,
        case: str = "jet",
        days: int = 10,
        trajectories: int = 16,
        seed: int = 0,
        noise: float = 0.5,
        truncation: int = 42,
        timestep_minutes: int = 15,
        interval_hours: int = 3,
        damping_hours: float | None = 12.0,
        start: str = "2001-01-01",
    ) -> None:
        if case not in CASES:
            raise ValueError(f"A case of shallow water is one of {', '.join(CASES)}; got '{case}'.")
        require_at_least(
            "Shallow water",
            {
                "days": (days, 1),
                "trajectories": (trajectories, 1),
                "noise": (noise, 0),
                "truncation": (truncation, 12),
            },
        )
        if damping_hours is not None and not damping_hours > 0.0:
            raise ValueError(f"damping_hours must be above 0, or null for no damping; got {damping_hours:g}.")
        self.timestep, interval = checked_intervals("Shallow water", timestep_minutes, interval_hours)
        self.splits = {name: list(period) for name, period in splits.items()}
        self.label, self.case, self.seed = f"shallow water T{truncation}, {case}", case, seed
        self.noise, self.truncation, self.damping_hours = noise, truncation, damping_hours
        self.spinup: np.timedelta64 = np.timedelta64(0, "D")
        samples = days * 24 // interval_hours
        self.trajectories = Trajectories(trajectories, samples, interval, np.datetime64(start, "s"), GAP)
        settings = {
            "case": case,
            "seed": seed,
            "noise": noise,
            "truncation": truncation,
            "timestep_minutes": timestep_minutes,
            "damping_hours": damping_hours,
            "edition": EDITION,
        }
        self.path = store_path(folder, "shallow_water", settings | self.trajectories.plain())

    @property
    def grid(self) -> LatLonGrid:
        """Return the Gaussian grid on which products of fields of this truncation do not alias."""
        return alias_free_grid(self.truncation)

    def template(self) -> xr.Dataset:
        """Return the coordinates, attributes and shapes of the dataset, without its values."""
        title = f"emul shallow water T{self.truncation}, {self.case}"
        return empty_dataset(
            VARIABLES, self.grid, self.trajectories.times, attributes={"title": title, "edition": EDITION}
        )

    def controls(self, cases: int, report: Progress) -> list[Integration]:
        """Return one control for each initial state, as those of the trajectories: a jet breaks up only once."""
        model, states = self.initial_state(cases)
        return [Integration(model, state.contiguous()) for state in states.split(1, dim=-1)]

    def initial_state(self, members: int) -> tuple[ShallowWaterEquations, Tensor]:
        """Return the model, and the initial states: the published one first, then variations of it."""
        varied = np.random.default_rng(self.seed).uniform(-1.0, 1.0, (members, VARIED))
        varied[0] = 0.0
        starts = [CASES[self.case](self.grid, numbers) for numbers in varied]
        u, v, depth, bottom = (np.stack(fields) for fields in zip(*starts, strict=True))
        model = ShallowWaterEquations(
            self.grid,
            self.truncation,
            float(self.timestep / np.timedelta64(1, "s")),
            bottom=bottom[0],
            damping_hours=self.damping_hours,
            dtype=torch.float32,  # as it is stored
        )
        state = model.coefficients(u, v, depth)
        noisy = model.disturbed(state, self.noise, torch.Generator().manual_seed(self.seed))
        noisy[..., 0] = state[..., 0]
        return model, noisy


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
        vorticity, divergence, depth = (component.contiguous() for component in state.unbind(2))
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

    @property
    def state_variables(self) -> tuple[str, ...]:
        """Return the names of winds and geopotential of the free surface."""
        return ("u_component_of_wind", "v_component_of_wind", "geopotential")

    def state(self, sample: Mapping[str, np.ndarray]) -> Tensor:
        """Return the state whose sample this is."""
        u, v, geopotential = (sample[name].astype(np.float64) for name in self.state_variables)
        ground = self.sphere.synthesis(self._bottom)[..., 0].T.double().numpy()
        return self.coefficients(u, v, geopotential / GRAVITY - ground)

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
