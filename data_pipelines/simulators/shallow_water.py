"""The shallow-water equations on the rotating sphere, spectral, in vorticity, divergence and depth.

    dzeta/dt = curl(A, B),                     A =  (zeta + f) v
    dD/dt    = div(A, B) - lap(K + g (h + hs)),  B = -(zeta + f) u
    dh/dt    = -div(h u, h v),                 K = (u^2 + v^2) / 2

Depth is in flux form: mass changes by nothing but round-off. Classical Runge-Kutta in time, with lap^4 damping of
vorticity and divergence, exact, where it is asked for. Standard test set: Williamson et al. 1992,
doi 10.1016/S0021-9991(05)80016-6; its conserved integrals are `mass`, `energy` and `potential_enstrophy`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_pipelines.simulators.time_schemes import ExponentialRungeKutta
from emulators.constants import GRAVITY, ROTATION_RATE
from emulators.grid import LatLonGrid
from emulators.sphere.calculus import SphericalCalculus


class Layer(NamedTuple):
    """The fluid on the grid, (lon, lat, member); m s-1, s-1, m."""

    u: Tensor
    v: Tensor
    vorticity: Tensor
    depth: Tensor


class ShallowWaterEquations:
    """The state: coefficients (2 * orders, degrees, 3, members) of vorticity (s-1), divergence (s-1) and depth (m).

    step in seconds. bottom: height of the ground, m, (lat, lon). damping_hours: e-folding time of the smallest scale;
    None: no damping.
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
        """The state from fields (member, lat, lon) in m s-1 and m."""
        east, north, thickness = (self._tensor(field.transpose(2, 1, 0)) for field in (u, v, depth))
        vorticity, divergence = self.sphere.vorticity_divergence(east, north)
        return torch.stack([vorticity, divergence, self.sphere.analysis(thickness)], dim=2)

    def fields(self, state: Tensor) -> Layer:
        """Winds, vorticity and depth on the grid."""
        vorticity, divergence, depth = (part.contiguous() for part in state.unbind(2))
        u, v = self.sphere.winds(vorticity, divergence)
        return Layer(u, v, *self.sphere.synthesis(torch.cat([vorticity, depth], dim=2)).chunk(2, dim=2))

    def tendency(self, state: Tensor) -> Tensor:
        """All but the damping, per second."""
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
        """The state one step later."""
        return self._scheme(self.tendency, state)

    def sample(self, state: Tensor) -> dict[str, np.ndarray]:
        """The state by WeatherBench 2 names, float32, (member, lat, lon); geopotential is that of the free surface."""
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
        """The ground, as far as the truncation holds it."""
        return {"geopotential_at_surface": GRAVITY * self.sphere.synthesis(self._bottom)[..., 0].T.double().numpy()}

    def disturbed(self, state: Tensor, size: float, generator: torch.Generator) -> Tensor:
        """The state with a random wind of rms `size` (m s-1), without divergence, of degrees 1 to 12."""
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
        """Mean depth, m, (members,)."""
        return state[0, 0, 2] / np.sqrt(4.0 * np.pi)

    def energy(self, state: Tensor) -> Tensor:
        """Mean kinetic and potential energy per area and density, m3 s-2, (members,)."""
        layer, ground = self.fields(state), self.sphere.synthesis(self._bottom)
        kinetic = 0.5 * layer.depth * (layer.u.square() + layer.v.square())
        return self._mean(kinetic + GRAVITY * layer.depth * (0.5 * layer.depth + ground))

    def potential_enstrophy(self, state: Tensor) -> Tensor:
        """Mean of (zeta + f)^2 / (2 h), m-1 s-2, (members,)."""
        layer = self.fields(state)
        return self._mean(0.5 * (layer.vorticity + self.coriolis).square() / layer.depth)

    def _mean(self, field: Tensor) -> Tensor:
        return (field.double() * self._weights).sum((0, 1))
