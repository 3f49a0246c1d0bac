"""The moist hydrostatic primitive equations on sigma levels over a surface of any height, spectral in the horizontal.

    dzeta/dt = curl(A, B)                  A =  (zeta + f) v - sigma_dot du/dsigma - R Tv d(ln ps)/dx
    dD/dt    = div(A, B) - lap(K + Phi)    B = -(zeta + f) u - sigma_dot dv/dsigma - R Tv d(ln ps)/dy
    dT/dt    = -div(v T) + T D - sigma_dot dT/dsigma + kappa Tv omega / p
    d(ps)/dt   = -sum_k div(ps v_k) dsigma_k
    d(ps q)/dt = -div(ps q v) - d(sigma_dot ps q)/dsigma
    Phi_k = Phi_s + sum_l G_kl Tv_l,   Tv = T (1 + (Rv / Rd - 1) q)

Vertical differences conserve mass, energy and angular momentum (Simmons & Burridge 1981,
doi 10.1175/1520-0493(1981)109<0758:AEAAMC>2.0.CO;2). Surface pressure itself and the water mass ps q are carried, both
in flux form: their global means change by nothing but round-off. Gravity waves about an isothermal rest state are
implicit, all else explicit, in a one-step scheme that keeps every linear invariant: SIL3 (Whitaker & Kar 2013,
doi 10.1175/MWR-D-13-00132.1). Hyperdiffusion acts on all but the surface pressure; of the temperature it leaves alone
what follows a lapse rate along the slopes of the surface. Energy per area is sum_k (cp T + K)_k ps dsigma_k / g
+ ps Phi_s / g, the potential energy of the column above its foot being within cp T.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from emulators.constants import (
    EARTH_RADIUS,
    GAS_CONSTANT_DRY,
    GAS_CONSTANT_VAPOUR,
    GRAVITY,
    HEAT_CAPACITY_DRY,
    KAPPA,
    REFERENCE_PRESSURE,
    ROTATION_RATE,
)
from emulators.grid import LatLonGrid
from emulators.sphere.calculus import SphericalCalculus

REFERENCE_TEMPERATURE = 300.0  # K, of the implicit part
LAPSE_RATE = 0.0065  # K m-1, along slopes
VIRTUAL = GAS_CONSTANT_VAPOUR / GAS_CONSTANT_DRY - 1.0
EXPLICIT = ((1 / 3,), (1 / 6, 1 / 2), (1 / 2, -1 / 2, 1.0))  # SIL3, one row a stage
IMPLICIT = ((1 / 6,), (1 / 3, 0.0), (3 / 8, 0.0, 3 / 8))
DIAGONAL = (1 / 6, 1 / 3, 1 / 4)


class Fields(NamedTuple):
    """The atmosphere on the grid, SI units; (lon, lat, level), and (lon, lat, 1) for the surface pressure."""

    u: Tensor
    v: Tensor
    temperature: Tensor
    humidity: Tensor
    surface_pressure: Tensor
    vorticity: Tensor
    divergence: Tensor
    pressure_gradient: tuple[Tensor, Tensor]


class SigmaLevels:
    """Vertical coordinate sigma = p / ps and its matrices; `half` runs from 0 at the top to 1 at the ground."""

    def __init__(self, half: np.ndarray) -> None:
        half = np.asarray(half, dtype=np.float64)
        if half[0] != 0.0 or half[-1] != 1.0 or not (np.diff(half) > 0.0).all():
            raise ValueError(f"Sigma at half levels must rise from 0 to 1; got {half.tolist()}.")
        self.half = half
        self.thickness = np.diff(half)
        self.full = 0.5 * (half[1:] + half[:-1])
        size = len(self.full)
        ratio = np.zeros(size)
        ratio[1:] = np.log(half[2:] / half[1:-1])
        alpha = 1.0 - half[:-1] / self.thickness * ratio
        alpha[0] = np.log(2.0)
        above, below = np.tril(np.ones((size, size)), -1), np.triu(np.ones((size, size)), 1)
        self.geopotential = GAS_CONSTANT_DRY * (np.diag(alpha) + below * ratio)  # Phi = matrix @ Tv
        self.omega = np.diag(alpha) + above * (ratio / self.thickness)[:, None] * self.thickness  # see `tendency`


class PrimitiveEquations:
    """Coefficients (2 * orders, degrees, 4 * level + 1): vorticity, ps q, divergence, T - 300 K and ps - 1000 hPa.

    grid: Gaussian, of at least (3 truncation + 1) / 2 rows, so that products do not alias. timestep in seconds.
    surface_geopotential: m2 s-2, (lat, lon), truncated here; None for a flat surface. moist: without it there is no
    ps q, and fields have a humidity of no levels. virtual_temperature: without it moist air weighs what dry air does.
    """

    def __init__(
        self,
        grid: LatLonGrid,
        truncation: int,
        half_levels: np.ndarray,
        timestep: float,
        *,
        surface_geopotential: np.ndarray | None = None,
        moist: bool = True,
        virtual_temperature: bool = True,
        diffusion_order: int = 8,
        diffusion_time: float = 86400.0,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        if 2 * grid.shape[0] < 3 * truncation + 1:
            raise ValueError(f"T{truncation} needs {(3 * truncation + 1) // 2} Gaussian rows or more; got {grid!r}.")
        self.device = torch.device(device)
        self.sphere = SphericalCalculus(grid, truncation + 1, truncation + 1, dtype).to(self.device)
        self.levels, self.timestep, self.dtype = SigmaLevels(half_levels), timestep, dtype
        self.moist, self.lightness = moist, VIRTUAL if virtual_temperature else 0.0
        self.size = size = len(self.levels.full)
        ends = np.cumsum([0, size, size if moist else 0, size, size, 1]).tolist()
        self.vorticity, self.water, self.divergence, self.temperature, self.pressure = map(slice, ends[:-1], ends[1:])
        self.waves = slice(self.divergence.start, ends[-1])  # what the implicit terms couple
        self.coriolis = self.constant(2.0 * ROTATION_RATE * np.sin(np.deg2rad(grid.latitude)))[None, :, None]
        self.weights = torch.from_numpy(grid.weights.T / grid.weights.size)[..., None].to(self.device)
        self.unit = float(np.sqrt(4.0 * np.pi))  # coefficient (0, 0) of a field that is 1 everywhere
        self._vertical_tables()
        degree = np.arange(truncation + 1)
        self._implicit_tables(degree * (degree + 1) / EARTH_RADIUS**2)
        smallest = degree * (degree + 1) / (truncation * (truncation + 1))
        damping = np.exp(-timestep / diffusion_time * smallest ** (diffusion_order // 2))
        self.damping = self.constant(np.ones((1, truncation + 1, ends[-1])))
        self.damping[..., : ends[-2]] = self.constant(damping)[None, :, None]
        self._surface_tables(surface_geopotential)

    def constant(self, values: np.ndarray) -> Tensor:
        """`values` in the model's floating-point type, where the model is."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, self.dtype)

    def _surface_tables(self, surface_geopotential: np.ndarray | None) -> None:
        """The surface as the truncation holds it, and what hyperdiffusion must leave of the temperature above it."""
        if surface_geopotential is None:
            surface_geopotential = np.zeros(self.sphere.grid.shape)
        coefficients = self.sphere.analysis(self.constant(surface_geopotential.T)[..., None])
        self.surface_geopotential = self.sphere.synthesis(coefficients)
        exponent = GAS_CONSTANT_DRY * LAPSE_RATE / GRAVITY
        slope = -LAPSE_RATE / GRAVITY * coefficients * self.constant(self.levels.full**exponent)
        self.restored = (1.0 - self.damping[..., self.temperature]) * slope

    def _vertical_tables(self) -> None:
        levels = self.levels
        self.thickness = self.constant(levels.thickness)
        self.layers = torch.from_numpy(levels.thickness).to(self.device)  # thickness in float64
        self.inner = self.constant(levels.half[1:-1])
        self.geopotential = self.constant(levels.geopotential.T)
        self.omega = self.constant(levels.omega.T)
        downward = np.triu(np.ones((self.size, self.size))) * levels.thickness[:, None]
        self.sums_and_omega = self.constant(np.concatenate([downward, levels.omega.T], axis=1))
        above, below = np.eye(self.size, self.size - 1), np.eye(self.size, self.size - 1, -1)
        self.rise = self.constant(below - above)  # full levels -> difference across inner half levels
        self.halves = self.constant(0.5 * (above + below).T / levels.thickness)  # half levels -> mean at full levels
        self.midpoint = self.constant(0.5 * (above + below))
        self.spreading = self.constant((below - above).T / levels.thickness)

    def _implicit_tables(self, wavenumber: np.ndarray) -> None:
        """Linear gravity-wave terms of divergence, temperature and pressure, and their implicit inverse, by degree."""
        size, levels = self.size, self.levels
        height = np.full((size, 1), GAS_CONSTANT_DRY * REFERENCE_TEMPERATURE / REFERENCE_PRESSURE)
        lift = wavenumber[:, None, None] * np.concatenate([levels.geopotential, height], axis=1)
        squeeze = -np.concatenate(
            [KAPPA * REFERENCE_TEMPERATURE * levels.omega, REFERENCE_PRESSURE * levels.thickness[None]]
        )
        linear = np.zeros((len(wavenumber), 2 * size + 1, 2 * size + 1))
        linear[:, :size, size:] = lift
        linear[:, size:, :size] = squeeze
        self.linear = self.constant(linear.transpose(0, 2, 1))
        self.inverse = []
        for share in DIAGONAL:  # by Schur's complement, so that the global mean of the pressure is left alone exactly
            h = share * self.timestep
            core = np.linalg.inv(np.eye(size) - h * h * lift @ squeeze)
            inverse = np.zeros_like(linear)
            inverse[:, :size, :size] = core
            inverse[:, :size, size:] = h * core @ lift
            inverse[:, size:, :size] = h * squeeze @ core
            inverse[:, size:, size:] = np.eye(size + 1) + h * h * squeeze @ core @ lift
            self.inverse.append(self.constant(inverse.transpose(0, 2, 1)))

    @staticmethod
    def _by_degree(waves: Tensor, matrices: Tensor) -> Tensor:
        """The coupled variables (divergence, temperature, pressure) times the matrix of their degree."""
        return torch.bmm(waves.transpose(0, 1), matrices).transpose(0, 1)

    def mean(self, field: Tensor) -> Tensor:
        """Area mean of (lon, lat, n) in float64, shape (n,)."""
        return (field.double() * self.weights).sum(dim=(0, 1))

    def coefficients(
        self, u: Tensor, v: Tensor, temperature: Tensor, humidity: Tensor, surface_pressure: Tensor
    ) -> Tensor:
        """The spectral state of fields on the grid; shapes as in `Fields`."""
        vorticity, divergence = self.sphere.vorticity_divergence(u, v)
        water, excess = humidity * surface_pressure, temperature - REFERENCE_TEMPERATURE
        scalars = self.sphere.analysis(torch.cat([water, excess, surface_pressure - REFERENCE_PRESSURE], dim=2))
        split = water.shape[2]
        return torch.cat([vorticity, scalars[..., :split], divergence, scalars[..., split:]], dim=2)

    def increased(self, coefficients: Tensor, u: Tensor, v: Tensor, temperature: Tensor, water: Tensor) -> Tensor:
        """The state after increments on the grid of u, v, T and ps q, as far as the truncation holds them."""
        vorticity, divergence = self.sphere.vorticity_divergence(u, v)
        scalars = self.sphere.analysis(torch.cat([water, temperature], dim=2))
        split = water.shape[2]
        change = [vorticity, scalars[..., :split], divergence, scalars[..., split:]]
        return coefficients + torch.nn.functional.pad(torch.cat(change, dim=2), (0, 1))

    def warmed(self, coefficients: Tensor, fields: Fields, warming: float) -> tuple[Tensor, Fields]:
        """The state and its fields after the same warming (K) everywhere."""
        coefficients = coefficients.clone()
        coefficients[0, 0, self.temperature] += warming * self.unit
        return coefficients, fields._replace(temperature=fields.temperature + warming)

    def fields(self, coefficients: Tensor) -> Fields:
        """The state on the grid."""
        sphere, pressure = self.sphere, coefficients[..., self.pressure]
        scalars = sphere.synthesis(coefficients)
        zero = torch.zeros_like(pressure)
        rotation = torch.cat([coefficients[..., self.vorticity], zero], dim=2)
        spreading = torch.cat([coefficients[..., self.divergence], pressure * sphere.laplacian], dim=2)
        u, v = sphere.winds(rotation, spreading)  # the pressure gradient is the wind whose potential is the pressure
        surface_pressure = scalars[..., self.pressure] + REFERENCE_PRESSURE
        return Fields(
            u=u[..., :-1].contiguous(),
            v=v[..., :-1].contiguous(),
            temperature=scalars[..., self.temperature] + REFERENCE_TEMPERATURE,
            humidity=scalars[..., self.water] / surface_pressure,
            surface_pressure=surface_pressure,
            vorticity=scalars[..., self.vorticity].contiguous(),
            divergence=scalars[..., self.divergence].contiguous(),
            pressure_gradient=(u[..., -1:], v[..., -1:]),
        )

    def tendency(self, fields: Fields) -> Tensor:
        """The explicit part of the right-hand side, as coefficients."""
        u, v, temperature, divergence = fields.u, fields.v, fields.temperature, fields.divergence
        ps, size = fields.surface_pressure, self.size
        east, north = (slope / ps for slope in fields.pressure_gradient)
        virtual = self.virtual_temperature(temperature, fields.humidity)
        advection = u * east + v * north  # of ln ps
        sums, lag = ((divergence + advection) @ self.sums_and_omega).split(size, dim=-1)
        sigma_dot = self.inner * sums[..., -1:] - sums[..., :-1]  # at inner half levels
        omega = advection - lag  # omega / p

        rises = torch.stack([u, v, temperature]) @ self.rise
        descent_u, descent_v, descent_t = (sigma_dot * rises) @ self.halves  # sigma_dot d/dsigma
        absolute = fields.vorticity + self.coriolis
        push = GAS_CONSTANT_DRY * (virtual - REFERENCE_TEMPERATURE * ps / REFERENCE_PRESSURE)
        eastward = absolute * v - descent_u - push * east
        northward = -absolute * u - descent_v - push * north
        excess = temperature - REFERENCE_TEMPERATURE
        heating = (
            excess * divergence
            - descent_t
            + KAPPA * (virtual * omega + REFERENCE_TEMPERATURE * (divergence @ self.omega))
        )
        buoyant = 0.5 * (u * u + v * v) + (virtual - temperature) @ self.geopotential + self.surface_geopotential
        anomaly = ps - REFERENCE_PRESSURE
        flow_u, flow_v = ((wind @ self.thickness)[..., None] * anomaly for wind in (u, v))
        flux_u, flux_v, sources = [eastward, u * excess], [northward, v * excess], [buoyant, heating]
        if self.moist:
            water = fields.humidity * ps
            flux_u, flux_v = [*flux_u, u * water], [*flux_v, v * water]
            sources.append((sigma_dot * (water @ self.midpoint)) @ self.spreading)
        curl, spread = self.sphere.vorticity_divergence(
            torch.cat([*flux_u, flow_u], dim=2), torch.cat([*flux_v, flow_v], dim=2)
        )
        scalars = self.sphere.analysis(torch.cat(sources, dim=2))
        change = scalars - spread[..., :-1]  # of the first `size`, only the scalars' Laplacian is meant
        return torch.cat(
            [
                curl[..., :size],
                change[..., 2 * size :],
                spread[..., :size] - self.sphere.laplacian * scalars[..., :size],
                change[..., size : 2 * size],
                -spread[..., -1:],
            ],
            dim=2,
        )

    def virtual_temperature(self, temperature: Tensor, humidity: Tensor) -> Tensor:
        """Temperature of dry air as light as air of `temperature` and `humidity`."""
        return temperature * (1.0 + self.lightness * humidity) if self.moist and self.lightness else temperature

    def _advance(self, coefficients: Tensor, tendencies: list[Tensor], weights: tuple[float, ...]) -> Tensor:
        """coefficients + timestep * sum of weights * tendencies."""
        for weight, tendency in zip(weights, tendencies, strict=True):
            if weight:
                coefficients = torch.add(coefficients, tendency, alpha=weight * self.timestep)
        return coefficients

    def step(self, coefficients: Tensor, fields: Fields | None = None) -> Tensor:
        """One timestep of the dynamics. fields: those of `coefficients`, where the caller has them already."""
        explicit = [self.tendency(fields or self.fields(coefficients))]
        implicit = [self._by_degree(coefficients[..., self.waves], self.linear)]
        for stage, (a, b) in enumerate(zip(EXPLICIT, IMPLICIT, strict=True)):
            state = self._advance(coefficients, explicit, a)
            waves = self._advance(state[..., self.waves], implicit, b)
            state[..., self.waves] = self._by_degree(waves, self.inverse[stage])
            if stage < 2:
                explicit.append(self.tendency(self.fields(state)))
                implicit.append(self._by_degree(state[..., self.waves], self.linear))
        state *= self.damping
        state[..., self.temperature] += self.restored
        return state

    def energy(self, fields: Fields) -> float:
        """Global mean of cp T + K over the column, and of ps Phi_s: internal, potential and kinetic energy, J m-2."""
        column = HEAT_CAPACITY_DRY * fields.temperature.double() + 0.5 * (
            fields.u.double() ** 2 + fields.v.double() ** 2
        )
        column = (column @ self.layers)[..., None] + self.surface_geopotential.double()
        return float(self.mean(column * fields.surface_pressure.double())) / GRAVITY

    def water_mass(self, coefficients: Tensor) -> float:
        """Global mean of the water vapour in the column, kg m-2."""
        if not self.moist:
            return 0.0
        means = coefficients[0, 0, self.water].double() / self.unit
        return float(means @ self.layers) / GRAVITY
