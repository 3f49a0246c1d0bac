"""Simple column physics of the planet's air above water and land.

Each step acts on the result of the one before:
  1. surface fluxes of heat and water, implicit in the air (`planet.surface`);
  2. boundary-layer mixing of static energy and humidity with a fixed diffusivity, implicit in the column;
  3. Newtonian relaxation towards a radiative equilibrium that follows the sun, and Rayleigh friction near the ground;
  4. absorption of the daily cycle of sunlight;
  5. large-scale condensation, which precipitates at once (`rain`).

Equilibrium, rates and friction: Held & Suarez 1994 (doi 10.1175/1520-0477(1994)075<1825:APFTIO>2.0.CO;2) as changed for
moist air by Thatcher & Jablonowski 2016 (doi 10.5194/gmd-9-1263-2016), who also give steps 1, 2 and 5. The seasons
are added here: the thermal equator follows the sun's declination with a lag of some weeks. Dry air takes steps 3 and 4
only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_pipelines.simulators.planet.climate import CarbonDioxide, Climate, Switches
from data_pipelines.simulators.planet.geography import Geography, water
from data_pipelines.simulators.planet.surface import Ground, Surface
from emulators.constants import (
    GAS_CONSTANT_DRY,
    GRAVITY,
    HEAT_CAPACITY_DRY,
    KAPPA,
    LATENT_HEAT_VAPORISATION,
    REFERENCE_PRESSURE,
)
from emulators.grid import LatLonGrid
from emulators.physics.insolation import EARTH, Orbit, daily_mean_insolation, insolation, sun
from emulators.physics.moisture import condensation, saturation_humidity

EQUINOX = Orbit(eccentricity=0.0, obliquity=0.0)  # without seasons


class Fluxes(NamedTuple):
    """Hold the fluxes of each column over one timestep, (lon, lat).

    precipitation, evaporation: kg m-2. sensible_heat, net_radiation, friction: J m-2, positive if the air gains energy.
    surface_supply: J m-2, heat supplied to the surface by radiation and by ocean currents.
    """

    precipitation: Tensor
    evaporation: Tensor
    sensible_heat: Tensor
    net_radiation: Tensor
    friction: Tensor
    surface_supply: Tensor


class Season(NamedTuple):
    """Hold the forcing by the sun at one time.

    light: sunlight minus its daily mean, W m-2, (lon, lat). target: temperatures to which land and water relax. column,
    slope: the air's equilibrium in K, without the factor (p / p0)^kappa, at the surface pressure p0, (lat, level), and
    its decrease with ln(ps / p0), (lat, 1). warming: K that CO2 adds to both equilibria, a scalar; it is in the target.
    """

    light: Tensor
    target: Ground
    column: Tensor
    slope: Tensor
    warming: Tensor


class PlanetPhysics:
    """Compute the column physics on `grid`; fields are (lon, lat, level).

    half: sigma at half levels. timestep: in seconds. geopotential: the matrix from virtual temperature to geopotential
    above the surface, of `SigmaLevels`. geography: None for a planet of water. co2: None for the usual amount.
    """

    def __init__(
        self,
        grid: LatLonGrid,
        half: np.ndarray,
        timestep: float,
        geopotential: np.ndarray,
        geography: Geography | None = None,
        climate: Climate | None = None,
        switches: Switches | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        co2: CarbonDioxide | None = None,
    ) -> None:
        self.climate, self.switches, self.co2 = climate or Climate(), switches or Switches(), co2
        self.grid, self.timestep, self.dtype, self.device = grid, timestep, dtype, torch.device(device)
        self.orbit = EARTH if self.switches.season else EQUINOX
        full = 0.5 * (half[1:] + half[:-1])
        self.latitude = np.deg2rad(grid.latitude)
        self.surface = Surface(
            grid, geography or water(grid), timestep, (half[-2], half[-1]), self.climate, self.switches, dtype, device
        )
        self.levels = full
        self.sigma, self.thickness = self._constant(full), self._constant(np.diff(half))
        self.exner = self._constant(full**KAPPA)
        self.mixing_heat, self.mixing_water = (
            self._constant(table.T) for table in self._mixing_tables(half, geopotential)
        )
        height = np.maximum((full - self.climate.boundary_layer) / (1.0 - self.climate.boundary_layer), 0.0)
        self.slowing = self._constant(1.0 / (1.0 + timestep * height / self.climate.friction_time))
        slow, fast = 1.0 / self.climate.radiative_time, 1.0 / self.climate.radiative_time_ground
        rate = slow + (fast - slow) * np.cos(self.latitude)[:, None] ** 4 * height
        self.relaxation = self._constant(timestep * rate / (1.0 + timestep * rate))[None]

    def _constant(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, self.dtype)

    def _mixing_tables(self, half: np.ndarray, geopotential: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the matrices of implicit diffusion of static energy cp T + Phi (acting on T) and of humidity.

        Both conserve column sums.
        """
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
        heat, water = (np.linalg.inv(identity - self.timestep * diffusion @ factor) for factor in (energy, identity))
        return _without_tiny(heat), _without_tiny(water)

    def _declination(self, time: np.datetime64, lag: float) -> float:
        """Return the sun's declination `lag` seconds before `time`, in radians."""
        return float(sun(time - np.timedelta64(int(lag), "s"), self.orbit).declination)

    def season(self, time: np.datetime64) -> Season:
        """Return the forcing by the sun at `time`."""
        climate, surface = self.climate, self.surface
        light, mean = self.sunlight(time)
        sine2 = (
            np.sin(self.latitude - climate.equilibrium_swing * self._declination(time, climate.equilibrium_lag)) ** 2
        )
        slope, warmer = climate.stability * (1.0 - sine2)[:, None], 0.0 if self.co2 is None else self.co2.warming(time)
        warm = (climate.warmest_equilibrium - climate.equilibrium_contrast * sine2)[:, None]
        return Season(
            light=self._constant((light - mean[:, None]).T),
            target=surface.initial(
                water=warmer + surface.water_temperature(self._declination(time, climate.water_lag)),
                land=warmer + surface.land_temperature(self._declination(time, climate.land_lag)),
            ),
            column=self._constant(warm - slope * np.log(self.levels)),
            slope=self._constant(slope),
            warming=self._constant(np.array(warmer)),
        )

    def equilibrium(self, season: Season, surface_pressure: Tensor) -> Tensor:
        """Return the radiative-equilibrium temperature in K, (lon, lat, level).

        (T0 - dT sin^2 - dtheta ln(p / p0) cos^2) (p / p0)^kappa, at least `coldest_equilibrium`; p = sigma ps.
        """
        ratio = surface_pressure / REFERENCE_PRESSURE
        column = (season.column - season.slope * torch.log(ratio)) * ratio**KAPPA * self.exner
        return column.clamp(min=self.climate.coldest_equilibrium) + self.switches.warming + season.warming

    def sunlight(self, time: np.datetime64) -> tuple[np.ndarray, np.ndarray]:
        """Return the insolation (lat, lon) and its daily mean (lat,), W m-2.

        The insolation is instantaneous, or the daily mean if the daily cycle is switched off.
        """
        grid = self.grid
        mean = daily_mean_insolation(time, grid.latitude, orbit=self.orbit)
        if not self.switches.diurnal:
            return np.broadcast_to(mean[:, None], grid.shape), mean
        return insolation(time, grid.latitude, grid.longitude, orbit=self.orbit), mean

    def __call__(
        self,
        season: Season,
        ground: Ground,
        u: Tensor,
        v: Tensor,
        temperature: Tensor,
        humidity: Tensor,
        surface_pressure: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Ground, Fluxes]:
        """Return u, v, temperature, humidity and ground after steps 1 to 4 of a timestep, and its fluxes.

        season: the forcing at the end of the timestep.
        """
        mass = surface_pressure[..., 0] / GRAVITY
        nothing = torch.zeros_like(mass)
        wet = [nothing, nothing, nothing]
        if self.switches.moist:
            temperature, humidity, ground, wet = self._surface_and_mixing(
                season, ground, u, v, temperature, humidity, surface_pressure
            )
        relaxed = temperature + self.relaxation * (self.equilibrium(season, surface_pressure) - temperature)
        if self.switches.diurnal:
            absorbed = self.timestep * self.climate.absorption * GRAVITY / HEAT_CAPACITY_DRY * season.light
            relaxed = relaxed + absorbed[..., None] / surface_pressure
        slow_u, slow_v = u * self.slowing, v * self.slowing
        lost = 0.5 * (slow_u * slow_u - u * u + slow_v * slow_v - v * v)
        evaporation, sensible_heat, supply = wet
        fluxes = Fluxes(
            precipitation=nothing,
            evaporation=evaporation,
            sensible_heat=sensible_heat,
            net_radiation=HEAT_CAPACITY_DRY * ((relaxed - temperature) @ self.thickness) * mass,
            friction=(lost @ self.thickness) * mass,
            surface_supply=supply,
        )
        return slow_u, slow_v, relaxed, humidity, ground, fluxes

    def rain(
        self, temperature: Tensor, humidity: Tensor, surface_pressure: Tensor, last: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Condense what exceeds saturation; return the warming in K, the humidity, and the rain in kg m-2.

        The heat of the condensate counts, or, if `last`, does not: the warming may then be truncated, and the air stays
        below saturation.
        """
        pressure = surface_pressure * self.sigma
        if last:
            vapour = (humidity - saturation_humidity(temperature, pressure)).clamp(min=0.0)
        else:
            vapour = condensation(temperature, humidity, pressure)
        fallen = (vapour @ self.thickness) * surface_pressure[..., 0] / GRAVITY
        return LATENT_HEAT_VAPORISATION / HEAT_CAPACITY_DRY * vapour, humidity - vapour, fallen

    def _surface_and_mixing(
        self,
        season: Season,
        ground: Ground,
        u: Tensor,
        v: Tensor,
        temperature: Tensor,
        humidity: Tensor,
        surface_pressure: Tensor,
    ) -> tuple[Tensor, Tensor, Ground, list[Tensor]]:
        """Apply steps 1 and 2; return temperature, humidity, ground, and [evaporation, sensible heat, supply]."""
        wind = torch.sqrt(u[..., -1] ** 2 + v[..., -1] ** 2 + self.climate.gustiness**2)
        ground, gain = self.surface(
            ground,
            season.target,
            season.light,
            wind,
            temperature[..., -1],
            humidity[..., -1],
            surface_pressure[..., 0],
        )
        temperature, humidity = temperature.clone(), humidity.clone()
        temperature[..., -1] += gain.temperature
        humidity[..., -1] += gain.humidity
        lowest = self.thickness[-1] * surface_pressure[..., 0] / GRAVITY
        wet = [gain.humidity * lowest, HEAT_CAPACITY_DRY * gain.temperature * lowest, gain.supply]
        return temperature @ self.mixing_heat, humidity @ self.mixing_water, ground, wet


def _without_tiny(table: np.ndarray) -> np.ndarray:
    """Return the table with numbers set to 0 whose products would be subnormal, which processors are slow with."""
    return np.where(np.abs(table) > 1e-20, table, 0.0)
