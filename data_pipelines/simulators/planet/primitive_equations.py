"""The moist hydrostatic primitive equations on sigma levels over a surface of any height, spectral in the horizontal.

    dzeta/dt = curl(A, B)                  A =  (zeta + f) v - sigma_dot du/dsigma - R Tv d(ln ps)/dx
    dD/dt    = div(A, B) - lap(K + Phi)    B = -(zeta + f) u - sigma_dot dv/dsigma - R Tv d(ln ps)/dy
    dT/dt    = -div(v T) + T D - sigma_dot dT/dsigma + kappa Tv omega / p
    d(ps)/dt = -sum_k div(ps v_k) dsigma_k
    Phi_k = Phi_s + sum_l G_kl Tv_l,   Tv = T (1 + (Rv / Rd - 1) q)

Vertical differences conserve mass, energy and angular momentum (Simmons & Burridge 1981, doi
10.1175/1520-0493(1981)109<0758:AEAAMC>2.0.CO;2). Surface pressure is prognostic, in flux form: its global mean is
conserved to round-off. Gravity waves about an isothermal state of rest are implicit, all other terms explicit, in a
one-step scheme that conserves every linear invariant: SIL3 (Whitaker & Kar 2013, doi 10.1175/MWR-D-13-00132.1).
Hyperdiffusion acts on all variables but the surface pressure; it does not act on the part of the temperature that
follows a lapse rate along the slopes of the surface. Humidity is given, and constant during a timestep
(`planet.water_transport` moves it). Energy per area is sum_k (cp T + K)_k ps dsigma_k / g + ps Phi_s / g; cp T contains
the potential energy of the column above the surface.
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
    """Hold the atmosphere on the grid in SI units: (lon, lat, level), and (lon, lat, 1) for the surface pressure.

    humidity: of dry air, a single 0.
    """

    u: Tensor
    v: Tensor
    temperature: Tensor
    humidity: Tensor
    surface_pressure: Tensor
    vorticity: Tensor
    divergence: Tensor
    pressure_gradient: tuple[Tensor, Tensor]


class SigmaLevels:
    """Hold the vertical coordinate sigma = p / ps and its matrices. half: from 0 at the top to 1 at the ground."""

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
    """Integrate the primitive equations.

    A state, (2 * orders, degrees, 3 * levels + 1), holds the coefficients of vorticity, divergence, T - 300 K and
    ps - 1000 hPa.

    grid: Gaussian, with at least (3 truncation + 1) / 2 rows, so that products do not alias. timestep: in seconds.
    surface_geopotential: m2 s-2, (lat, lon), truncated here; None for a flat surface. virtual_temperature: if false,
    water vapour does not change the density of air. diffusion_time: e-folding time in seconds of the smallest scale
    under hyperdiffusion of order `diffusion_order`.
    """

    def __init__(
        self,
        grid: LatLonGrid,
        truncation: int,
        half_levels: np.ndarray,
        timestep: float,
        *,
        surface_geopotential: np.ndarray | None = None,
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
        self.lightness = VIRTUAL if virtual_temperature else 0.0
        self.size = size = len(self.levels.full)
        ends = np.cumsum([0, size, size, size, 1]).tolist()
        self.vorticity, self.divergence, self.temperature, self.pressure = map(slice, ends[:-1], ends[1:])
        self.waves = slice(self.divergence.start, ends[-1])  # variables coupled by the implicit terms
        turning = 2.0 * ROTATION_RATE * np.sin(np.deg2rad(grid.latitude))
        self.coriolis = self.constant(np.broadcast_to(turning[None, :, None], (*grid.shape[::-1], size)))
        self.weights = torch.from_numpy(grid.weights.T / grid.weights.size)[..., None].to(self.device)
        self.unit = float(np.sqrt(4.0 * np.pi))  # coefficient (0, 0) of a field that is 1 everywhere
        self._vertical_tables()
        degree = np.arange(truncation + 1)
        self._implicit_tables(degree * (degree + 1) / EARTH_RADIUS**2)
        smallest = degree * (degree + 1) / (truncation * (truncation + 1))
        rate = np.zeros(ends[-1])  # of the smallest scale, by variable
        rate[: ends[-2]] = 1.0 / diffusion_time
        scales = smallest ** (diffusion_order // 2)
        self.damping = self.constant(np.exp(-timestep * scales[:, None] * rate)[None])
        self._surface_tables(surface_geopotential)

    def constant(self, values: np.ndarray) -> Tensor:
        """Convert `values` to a tensor of the model's floating-point type on its device."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, self.dtype)

    def _surface_tables(self, surface_geopotential: np.ndarray | None) -> None:
        """Set the truncated surface geopotential, and the part of the temperature exempt from hyperdiffusion."""
        if surface_geopotential is None:
            surface_geopotential = np.zeros(self.sphere.grid.shape)
        coefficients = self.sphere.analysis(self.constant(surface_geopotential.T)[..., None])
        self.surface_geopotential = self.sphere.synthesis(coefficients).expand(-1, -1, self.size).contiguous()
        exponent = GAS_CONSTANT_DRY * LAPSE_RATE / GRAVITY
        slope = -LAPSE_RATE / GRAVITY * coefficients * self.constant(self.levels.full**exponent)
        self.restored = (1.0 - self.damping[..., self.temperature]) * slope

    def _vertical_tables(self) -> None:
        """Set the matrices from level to level, which act on the divergence of ps v.

        falling, rising: half of -sigma_dot / dsigma at the lower face of a layer and of sigma_dot / dsigma at its
        upper face, 0 at the ground and the top. lag: the integral part of omega / p.
        """
        levels, size = self.levels, self.size
        self.layers = torch.from_numpy(levels.thickness).to(self.device)  # in float64
        self.geopotential = self.constant(levels.geopotential.T)
        downward = np.triu(np.ones((size, size))) * levels.thickness[:, None]  # sums from the top to each lower face
        self.fall = self.constant(-downward[:, -1])
        sigma_dot = np.zeros((size, size + 1))
        sigma_dot[:, 1:-1] = downward[:, -1:] * levels.half[1:-1] - downward[:, :-1]
        falling, rising = -0.5 * sigma_dot[:, 1:] / levels.thickness, 0.5 * sigma_dot[:, :-1] / levels.thickness
        self.motion = self.constant(np.stack([falling, rising, -levels.omega.T]))

    def _implicit_tables(self, wavenumber: np.ndarray) -> None:
        """Set the linear gravity-wave terms of divergence, temperature and pressure and their inverses, by degree."""
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
        for share in DIAGONAL:  # by Schur's complement: leaves the global mean of the pressure exactly unchanged
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
        """Multiply the coupled variables (divergence, temperature, pressure) by the matrix of their degree."""
        return torch.bmm(waves.transpose(0, 1), matrices).transpose(0, 1)

    def mean(self, field: Tensor) -> Tensor:
        """Return the area mean of a field (lon, lat, n) in float64, (n,)."""
        return (field.double() * self.weights).sum(dim=(0, 1))

    def coefficients(self, u: Tensor, v: Tensor, temperature: Tensor, surface_pressure: Tensor) -> Tensor:
        """Return the spectral state of fields on the grid; shapes as in `Fields`."""
        scalars = torch.cat([temperature - REFERENCE_TEMPERATURE, surface_pressure - REFERENCE_PRESSURE], dim=2)
        return torch.cat([*self.sphere.vorticity_divergence(u, v), self.sphere.analysis(scalars)], dim=2)

    def slowed(self, coefficients: Tensor, factor: Tensor) -> Tensor:
        """Return the state with winds multiplied by `factor`, (level,)."""
        coefficients = coefficients.clone()
        for field_slice in (self.vorticity, self.divergence):
            coefficients[..., field_slice] *= factor
        return coefficients

    def heated(self, coefficients: Tensor, fields: Fields, warming: Tensor) -> tuple[Tensor, Fields]:
        """Return the state and its fields after a warming in K, (lon, lat, level), truncated."""
        coefficients = coefficients.clone()
        coefficients[..., self.temperature] += self.sphere.analysis(warming)
        temperature = self.sphere.synthesis(coefficients[..., self.temperature].contiguous()) + REFERENCE_TEMPERATURE
        return coefficients, fields._replace(temperature=temperature)

    def warmed(self, coefficients: Tensor, fields: Fields, warming: Tensor) -> tuple[Tensor, Fields]:
        """Return the state and its fields after a uniform warming in K."""
        coefficients = coefficients.clone()
        coefficients[0, 0, self.temperature] += warming * self.unit
        return coefficients, fields._replace(temperature=fields.temperature + warming)

    def fields(self, coefficients: Tensor, humidity: Tensor | None = None) -> Fields:
        """Return the fields of the state on the grid. humidity: on the grid; None for dry air."""
        sphere, pressure = self.sphere, coefficients[..., self.pressure]
        scalars = sphere.synthesis(coefficients)
        zero = torch.zeros_like(pressure)
        rotation = torch.cat([coefficients[..., self.vorticity], zero], dim=2)
        spreading = torch.cat([coefficients[..., self.divergence], pressure * sphere.laplacian], dim=2)
        u, v = sphere.winds(
            rotation, spreading
        )  # the pressure gradient is computed as the wind whose velocity potential is the pressure
        surface_pressure = scalars[..., self.pressure] + REFERENCE_PRESSURE
        return Fields(
            u=u[..., :-1].contiguous(),
            v=v[..., :-1].contiguous(),
            temperature=scalars[..., self.temperature] + REFERENCE_TEMPERATURE,
            humidity=scalars.new_zeros(()) if humidity is None else humidity,
            surface_pressure=surface_pressure,
            vorticity=scalars[..., self.vorticity],
            divergence=scalars[..., self.divergence].contiguous(),
            pressure_gradient=(u[..., -1:], v[..., -1:]),
        )

    def tendency(self, fields: Fields) -> Tensor:
        """Return the coefficients of the whole right-hand side; `step` subtracts the implicit terms."""
        u, v, temperature, divergence = fields.u, fields.v, fields.temperature, fields.divergence
        ps, size = fields.surface_pressure, self.size
        east, north = ((slope / ps).expand_as(u).contiguous() for slope in fields.pressure_gradient)  # of ln ps
        virtual = self.virtual_temperature(temperature, fields.humidity)
        excess = temperature - REFERENCE_TEMPERATURE
        advection = torch.addcmul(u * east, v, north)  # of ln ps
        converging = (divergence + advection).view(1, -1, size)
        falling, rising, lag = torch.matmul(converging, self.motion).view(3, *u.shape)
        fall = (converging[0] @ self.fall).view_as(ps)
        lift_u, lift_v, lift_t = self._lifted(torch.stack([u, v, excess]), falling, rising)

        absolute = fields.vorticity + self.coriolis
        push = GAS_CONSTANT_DRY * virtual
        eastward = torch.addcmul(lift_u, absolute, v).addcmul_(push, east, value=-1.0)
        northward = torch.addcmul(lift_v, absolute, u, value=-1.0).addcmul_(push, north, value=-1.0)
        heating = torch.addcmul(lift_t, excess, divergence)
        heating.addcmul_(virtual, advection + lag, value=KAPPA)  # advection + lag: omega / p
        buoyant = self.surface_geopotential + (virtual - REFERENCE_TEMPERATURE) @ self.geopotential
        buoyant.addcmul_(u, u, value=0.5).addcmul_(v, v, value=0.5)
        curl, spread = self.sphere.vorticity_divergence(
            torch.cat([eastward, u * excess], dim=2), torch.cat([northward, v * excess], dim=2)
        )
        scalars = self.sphere.analysis(torch.cat([buoyant, heating, fall * ps], dim=2))
        scalars[0, 0, -1] = 0.0  # fall ps = -sum div(ps v) dsigma has no global mean but round-off
        return torch.cat(
            [
                curl[..., :size],
                spread[..., :size] - self.sphere.laplacian * scalars[..., :size],
                scalars[..., size:-1] - spread[..., size:],
                scalars[..., -1:],
            ],
            dim=2,
        )

    def _lifted(self, carried: Tensor, falling: Tensor, rising: Tensor) -> Tensor:
        """Return -sigma_dot d/dsigma of each of the fields `carried`.

        With F and R from `_vertical_tables`: F (X_{k+1} - X_k) + R (X_{k-1} - X_k). Levels are contiguous in memory, so
        the level above is the previous element; at the ends of a column, where that belongs to another column, its
        factor is 0.
        """
        here = carried.flatten(1)
        lifted = here * -(falling + rising).view(-1)
        lifted[:, :-1].addcmul_(falling.view(-1)[:-1], here[:, 1:])
        lifted[:, 1:].addcmul_(rising.view(-1)[1:], here[:, :-1])
        return lifted.view_as(carried)

    def virtual_temperature(self, temperature: Tensor, humidity: Tensor) -> Tensor:
        """Return the virtual temperature; the temperature itself if it is switched off."""
        return temperature * (1.0 + self.lightness * humidity) if self.lightness else temperature

    def _advance(self, coefficients: Tensor, tendencies: list[Tensor], weights: tuple[float, ...]) -> Tensor:
        """Return coefficients + timestep * sum of weights * tendencies."""
        for weight, tendency in zip(weights, tendencies, strict=True):
            if weight:
                coefficients = torch.add(coefficients, tendency, alpha=weight * self.timestep)
        return coefficients

    def step(self, coefficients: Tensor, fields: Fields | None = None) -> Tensor:
        """Return the state one timestep of dynamics later. fields: of `coefficients`, if already computed."""
        return self.diffused(self.undamped_step(coefficients, fields or self.fields(coefficients)))

    def undamped_step(self, coefficients: Tensor, fields: Fields) -> Tensor:
        """Return the state one timestep later, without hyperdiffusion. fields: of `coefficients`."""
        changes = [self.tendency(fields)]
        waves = [self._by_degree(coefficients[..., self.waves], self.linear)]
        for stage, (a, b) in enumerate(zip(EXPLICIT, IMPLICIT, strict=True)):
            state = self._advance(coefficients, changes, a)
            shifted = self._advance(state[..., self.waves], waves, tuple(i - e for e, i in zip(a, b, strict=True)))
            state[..., self.waves] = self._by_degree(shifted, self.inverse[stage])
            if stage < 2:
                changes.append(self.tendency(self.fields(state, fields.humidity)))
                waves.append(self._by_degree(state[..., self.waves], self.linear))
        return state

    def diffused(self, coefficients: Tensor) -> Tensor:
        """Return the state after the hyperdiffusion of one timestep."""
        state = coefficients * self.damping
        state[..., self.temperature] += self.restored
        return state

    def energy(self, fields: Fields) -> Tensor:
        """Return the global mean of the column energy, cp T + K and ps Phi_s, in J m-2, a scalar in float64."""
        column = HEAT_CAPACITY_DRY * fields.temperature.double() + 0.5 * (
            fields.u.double() ** 2 + fields.v.double() ** 2
        )
        column = (column @ self.layers)[..., None] + self.surface_geopotential[..., :1].double()
        return self.mean(column * fields.surface_pressure.double())[0] / GRAVITY
