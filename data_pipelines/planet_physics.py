"""What heats, moistens and slows the air of the planet: an ocean without land, seen by a simple atmosphere.

In order, each step on the result of the one before:
  1. large-scale condensation, which rains out at once;
  2. surface fluxes of heat, water:  F = rho C |v| (surface - air), implicit in the air;
  3. boundary-layer mixing of static energy and humidity with a fixed diffusivity, implicit in the column;
  4. Newtonian relaxation towards a radiative equilibrium that follows the sun, and Rayleigh friction near the ground;
  5. absorption of the sun's light that comes and goes with the day.

Equilibrium, rates and friction: Held & Suarez 1994 (doi 10.1175/1520-0477(1994)075<1825:APFTIO>2.0.CO;2) as changed for
moist air by Thatcher & Jablonowski 2016 (doi 10.5194/gmd-9-1263-2016), who also give 1 to 3. The seasons are ours: the
thermal equator and the warmest water follow the sun's declination of some weeks before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from emulators.constants import (
    GAS_CONSTANT_DRY,
    GRAVITY,
    HEAT_CAPACITY_DRY,
    KAPPA,
    LATENT_HEAT_VAPORISATION,
    REFERENCE_PRESSURE,
)
from emulators.grid import LatLonGrid
from emulators.physics.insolation import daily_mean_insolation, insolation, sun
from emulators.physics.moist import condensation, filled_humidity, saturation_humidity

DAY = 86400.0


@dataclass(frozen=True)
class Climate:
    """The numbers of the planet's climate; SI units."""

    warmest_equilibrium: float = 287.0  # K
    equilibrium_contrast: float = 65.0  # K, equator to pole
    stability: float = 10.0  # K, of potential temperature
    coldest_equilibrium: float = 200.0  # K
    radiative_time: float = 40.0 * DAY
    radiative_time_ground: float = 4.0 * DAY
    friction_time: float = 1.0 * DAY
    boundary_layer: float = 0.7  # sigma above which friction and fast relaxation act
    heat_transfer: float = 0.0010  # dimensionless C of the surface fluxes
    gustiness: float = 1.0  # m s-1
    diffusivity: float = 10.0  # m2 s-1, below sigma 0.85
    warmest_water: float = 300.0  # K
    coldest_water: float = 271.0  # K
    water_width: float = 26.0  # degrees of latitude
    water_swing: float = 0.35  # of the sun's declination
    water_lag: float = 60.0 * DAY
    equilibrium_swing: float = 0.5
    equilibrium_lag: float = 30.0 * DAY
    absorption: float = 0.2  # share of the sun's light that the air takes up


class Fluxes(NamedTuple):
    """What the physics did to each column over one timestep; (lon, lat).

    precipitation, evaporation: kg m-2. sensible_heat, net_radiation, friction: J m-2, positive where the air gains.
    """

    precipitation: Tensor
    evaporation: Tensor
    sensible_heat: Tensor
    net_radiation: Tensor
    friction: Tensor


class PlanetPhysics:
    """Column physics on `grid`, fields (lon, lat, level); `half` is sigma at half levels, timestep in seconds."""

    def __init__(
        self,
        grid: LatLonGrid,
        half: np.ndarray,
        timestep: float,
        geopotential: np.ndarray,
        climate: Climate | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.grid, self.timestep, self.climate, self.dtype = grid, timestep, climate or Climate(), dtype
        full = 0.5 * (half[1:] + half[:-1])
        self.latitude = np.deg2rad(grid.latitude)
        self.sigma, self.thickness = self._constant(full), self._constant(np.diff(half))
        self.mixing_heat, self.mixing_water = (
            self._constant(table.T) for table in self._mixing_tables(half, geopotential)
        )
        height = np.maximum((full - self.climate.boundary_layer) / (1.0 - self.climate.boundary_layer), 0.0)
        self.slowing = self._constant(1.0 / (1.0 + timestep * height / self.climate.friction_time))
        slow, fast = 1.0 / self.climate.radiative_time, 1.0 / self.climate.radiative_time_ground
        rate = slow + (fast - slow) * np.cos(self.latitude)[:, None] ** 4 * height
        self.relaxation = self._constant(timestep * rate / (1.0 + timestep * rate))[None]

    def _constant(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.dtype)

    def _mixing_tables(self, half: np.ndarray, geopotential: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Implicit diffusion of static energy cp T + Phi (as a matrix on T) and of humidity; both keep column sums."""
        full, thickness = 0.5 * (half[1:] + half[:-1]), np.diff(half)
        scale = GAS_CONSTANT_DRY * 270.0 / GRAVITY  # m
        inner = half[1:-1]
        profile = np.exp(-((np.maximum(0.85 - inner, 0.0) / 0.1) ** 2))
        exchange = self.climate.diffusivity * profile / scale**2 * inner**2 / np.diff(full)
        flux = np.zeros((len(full) + 1, len(full)))  # upward through half levels, of a field on full levels
        for k, strength in enumerate(exchange):
            flux[k + 1, k], flux[k + 1, k + 1] = -strength, strength
        diffusion = np.diff(flux, axis=0) / thickness[:, None]
        identity = np.eye(len(full))
        energy = identity + geopotential / HEAT_CAPACITY_DRY
        return (
            np.linalg.inv(identity - self.timestep * diffusion @ energy),
            np.linalg.inv(identity - self.timestep * diffusion),
        )

    def sea_surface_temperature(self, time: np.datetime64) -> np.ndarray:
        """K, float64, shape (lat,)."""
        climate = self.climate
        centre = climate.water_swing * _declination(time, climate.water_lag)
        bell = np.exp(-0.5 * ((self.latitude - centre) / np.deg2rad(climate.water_width)) ** 2)
        return climate.coldest_water + (climate.warmest_water - climate.coldest_water) * bell

    def equilibrium(self, time: np.datetime64, pressure: Tensor) -> Tensor:
        """Radiative-equilibrium temperature in K at `pressure` (lon, lat, level)."""
        climate = self.climate
        centre = climate.equilibrium_swing * _declination(time, climate.equilibrium_lag)
        sine2 = self._constant(np.sin(self.latitude - centre) ** 2)[None, :, None]
        ratio = torch.log(pressure / REFERENCE_PRESSURE)
        warm = climate.warmest_equilibrium - climate.equilibrium_contrast * sine2
        column = (warm - climate.stability * ratio * (1.0 - sine2)) * torch.exp(KAPPA * ratio)
        return column.clamp(min=climate.coldest_equilibrium)

    def sunlight(self, time: np.datetime64) -> tuple[np.ndarray, np.ndarray]:
        """Instantaneous insolation (lat, lon) and its mean over the day (lat,), W m-2."""
        grid = self.grid
        return insolation(time, grid.latitude, grid.longitude), daily_mean_insolation(time, grid.latitude)

    def __call__(
        self, time: np.datetime64, u: Tensor, v: Tensor, temperature: Tensor, humidity: Tensor, surface_pressure: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Fluxes]:
        """New u, v, temperature, humidity after one timestep that ends at `time`, and what it took."""
        mass = surface_pressure[..., 0] / GRAVITY
        pressure = surface_pressure * self.sigma
        humidity = filled_humidity(humidity, self.thickness)
        rain = condensation(temperature, humidity, pressure)
        humidity = humidity - rain
        temperature = temperature + LATENT_HEAT_VAPORISATION / HEAT_CAPACITY_DRY * rain
        temperature, humidity, warmed, moistened = self._surface(time, u, v, temperature, humidity, surface_pressure)
        temperature, humidity = temperature @ self.mixing_heat, humidity @ self.mixing_water
        relaxed = temperature + self.relaxation * (self.equilibrium(time, pressure) - temperature)
        light, mean = self.sunlight(time)
        absorbed = self.timestep * self.climate.absorption * self._constant((light - mean[:, None]).T)
        relaxed = relaxed + (absorbed * GRAVITY / HEAT_CAPACITY_DRY)[..., None] / surface_pressure
        slow_u, slow_v = u * self.slowing, v * self.slowing
        lost = 0.5 * (slow_u * slow_u - u * u + slow_v * slow_v - v * v)
        fluxes = Fluxes(
            precipitation=(rain @ self.thickness) * mass,
            evaporation=moistened * self.thickness[-1] * mass,
            sensible_heat=HEAT_CAPACITY_DRY * warmed * self.thickness[-1] * mass,
            net_radiation=HEAT_CAPACITY_DRY * ((relaxed - temperature) @ self.thickness) * mass,
            friction=(lost @ self.thickness) * mass,
        )
        return slow_u, slow_v, relaxed, humidity, fluxes

    def _surface(
        self, time: np.datetime64, u: Tensor, v: Tensor, temperature: Tensor, humidity: Tensor, surface_pressure: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Heat and water given to the lowest layer; also its gains in K and kg kg-1, (lon, lat).

        The air's temperature is brought down to the surface along a dry adiabat before it is compared with the water's.
        """
        climate = self.climate
        air, vapour, ps = temperature[..., -1], humidity[..., -1], surface_pressure[..., 0]
        wind = torch.sqrt(u[..., -1] ** 2 + v[..., -1] ** 2 + climate.gustiness**2)
        depth = GAS_CONSTANT_DRY / GRAVITY * self.thickness[-1] * air  # m
        share = self.timestep * climate.heat_transfer * wind / depth
        water = self._constant(self.sea_surface_temperature(time))
        adiabat = self.sigma[-1] ** -KAPPA
        warmed = share * (water - adiabat * air) / (1.0 + share * adiabat)
        moistened = share * (saturation_humidity(water, ps) - vapour) / (1.0 + share)
        temperature = torch.cat([temperature[..., :-1], (air + warmed)[..., None]], dim=-1)
        humidity = torch.cat([humidity[..., :-1], (vapour + moistened)[..., None]], dim=-1)
        return temperature, humidity, warmed, moistened


def _declination(time: np.datetime64, lag: float) -> float:
    return float(sun(time - np.timedelta64(int(lag), "s")).declination)
