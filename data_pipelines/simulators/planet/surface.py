"""The planet's surface: temperatures of water and land, and their fluxes of heat and water vapour to the air.

    H = rho cp C |v| (Ts - T),   E = rho C |v| w (qs(Ts) - q)              w: 1 over water, the wetness over land
    c dTs/dt = R - H - L E,      R = r (T* - Ts) + Q + a (S - mean of the day's S)

Each cell has a water and a land tile under the same air; fluxes are implicit in the air and explicit in the surface.
The air temperature is first extrapolated to the surface along a dry adiabat. T* is the equilibrium temperature of the
surface for sun and season. The temperature of water is either T* (prescribed: R then balances H and L E), or that of a
slab that stores heat, where Q, sunlight minus the heat that currents remove, balances the fluxes (Q-flux; Hansen et al.
1984, doi 10.1029/GM029p0130). Land is a thin slab that follows the sun within hours, and evaporates less than water.

Bulk formulae: Thatcher & Jablonowski 2016, doi 10.5194/gmd-9-1263-2016. Seasons, water and land are added here: the
warmest water follows the sun's declination with a lag of some weeks, and water is warm off the continents' eastern
coasts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_pipelines.simulators.planet.climate import Climate, Switches
from data_pipelines.simulators.planet.geography import Geography
from emulators.constants import GAS_CONSTANT_DRY, GRAVITY, HEAT_CAPACITY_DRY, KAPPA, LATENT_HEAT_VAPORISATION
from emulators.grid import LatLonGrid
from emulators.physics.insolation import EARTH
from emulators.physics.moisture import saturation_humidity

# longitude, latitude, half-widths in degrees of warm water: the pool, and the currents off eastern coasts
POOL = ((150.0, 2.0, 45.0, 12.0),)
CURRENTS = (
    (152.0, 39.0, 22.0, 8.0), (292.0, 40.0, 20.0, 8.0), (45.0, -37.0, 20.0, 8.0), (160.0, -33.0, 16.0, 8.0),
    (322.0, -40.0, 18.0, 8.0),
)  # fmt: skip
SUPPLY = 140.0  # W m-2, Q at the equator; it decreases as the squared cosine of latitude


class Ground(NamedTuple):
    """Hold the temperatures of land and water in K, float64, (lon, lat)."""

    land: Tensor
    water: Tensor


class LayerGain(NamedTuple):
    """Hold the changes of the lowest layer over one timestep by surface fluxes, (lon, lat).

    temperature: K. humidity: kg kg-1. supply: heat supplied to the surface by radiation and ocean currents, J m-2.
    """

    temperature: Tensor
    humidity: Tensor
    supply: Tensor


class Surface:
    """Compute the surface fluxes and the temperatures of water and land; fields are (lon, lat).

    timestep: in seconds. lowest: sigma at top and bottom of the lowest layer of air.
    """

    def __init__(
        self,
        grid: LatLonGrid,
        geography: Geography,
        timestep: float,
        lowest: tuple[float, float],
        climate: Climate,
        switches: Switches,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        self.climate, self.switches, self.timestep, self.dtype, self.device = (
            climate, switches, timestep, dtype, torch.device(device)
        )  # fmt: skip
        top = lowest[0]
        self.layer = 1.0 - top
        self.adiabat = (0.5 * (1.0 + top)) ** -KAPPA
        self.latitude = np.deg2rad(grid.latitude)
        self.anomaly = _warm_water(grid, POOL, climate.warm_pool) + _warm_water(grid, CURRENTS, climate.warm_currents)
        self.height = geography.geopotential / GRAVITY
        self.land = self._tensor(geography.land)
        self.sea = 1.0 - self.land
        self.wet = (self.sea + climate.land_wetness * self.land).to(dtype)
        self.all_water = geography.is_water
        self.supply = self._tensor(np.broadcast_to((SUPPLY * np.cos(self.latitude) ** 2)[:, None], grid.shape))

    def _tensor(self, values: np.ndarray) -> Tensor:
        """Convert an array (lat, lon) to a float64 tensor (lon, lat)."""
        return torch.from_numpy(np.ascontiguousarray(values.T)).to(self.device)

    def water_temperature(self, declination: float) -> np.ndarray:
        """Return T* of water in K, (lat, lon). declination: of the sun `water_lag` earlier, in radians."""
        climate = self.climate
        offset = (self.latitude - climate.water_swing * declination) / np.deg2rad(climate.water_width)
        bell = (climate.warmest_water - climate.coldest_water) * np.exp(-0.5 * offset**2)
        return climate.coldest_water + self.switches.warming + bell[:, None] + self.anomaly

    def land_temperature(self, declination: float) -> np.ndarray:
        """Return T* of land in K, (lat, lon). declination: of the sun `land_lag` earlier, in radians."""
        climate, sine = self.climate, np.sin(self.latitude)
        season = climate.land_season * sine * declination / np.deg2rad(EARTH.obliquity)
        profile = climate.warmest_land + self.switches.warming - climate.land_contrast * sine**2 + season
        return profile[:, None] - climate.land_lapse * self.height

    def initial(self, water: np.ndarray, land: np.ndarray) -> Ground:
        """Return the surface at the given temperatures of water and land, (lat, lon)."""
        return Ground(self._tensor(land), self._tensor(water))

    def from_stored(self, field: np.ndarray) -> Tensor:
        """Return a stored field (lat, lon) as the surface holds it, float64 (lon, lat)."""
        return self._tensor(field.astype(np.float64))

    def skin_temperature(self, ground: Ground) -> Tensor:
        """Return the area-weighted mean temperature of land and water in K."""
        return self.land * ground.land + self.sea * ground.water

    def __call__(
        self, ground: Ground, target: Ground, light: Tensor, wind: Tensor, air: Tensor, vapour: Tensor, ps: Tensor
    ) -> tuple[Ground, LayerGain]:
        """Return the surface after a timestep, and the changes of the lowest layer of air.

        target: T* at the end of the timestep. light: sunlight minus its daily mean, W m-2. wind: speed in m s-1. air,
        vapour: temperature (K) and humidity (kg kg-1) of the lowest layer. ps: surface pressure in Pa.
        """
        if self.switches.ocean == "prescribed":
            ground = ground._replace(water=target.water)
        depth = GAS_CONSTANT_DRY / GRAVITY * self.layer * air  # m
        share = self.timestep * self.climate.heat_transfer * wind / depth
        skin = self.skin_temperature(ground).to(self.dtype)
        warmed = share * (skin - self.adiabat * air) / (1.0 + share * self.adiabat)
        saturated = self.sea.to(self.dtype) * saturation_humidity(ground.water.to(self.dtype), ps)
        if not self.all_water:
            over_land = saturation_humidity(ground.land.to(self.dtype), ps)
            saturated = saturated + self.climate.land_wetness * self.land.to(self.dtype) * over_land
        moistened = share * (saturated - self.wet * vapour) / (1.0 + share * self.wet)
        exchange = share * ps * (self.layer / GRAVITY)
        below = (self.adiabat * (air + warmed), vapour + moistened)
        return self._with_heat_stored(ground, target, light, exchange, below, ps, warmed, moistened)

    def _with_heat_stored(
        self,
        ground: Ground,
        target: Ground,
        light: Tensor,
        exchange: Tensor,
        below: tuple[Tensor, Tensor],
        ps: Tensor,
        warmed: Tensor,
        moistened: Tensor,
    ) -> tuple[Ground, LayerGain]:
        """Update the heat stored in each tile, in float64: heat given to the air is lost, heat supplied is gained.

        exchange: mass of air that exchanges heat with the surface, kg m-2. below: temperature of that air at the
        surface, and its humidity. warmed, moistened: changes of the lowest layer, K and kg kg-1.
        """
        climate, step = self.climate, self.timestep
        heat_to_air = (ps * (self.layer / GRAVITY)) * (
            HEAT_CAPACITY_DRY * warmed + LATENT_HEAT_VAPORISATION * moistened
        )
        if self.all_water and self.switches.ocean == "prescribed":
            return ground, LayerGain(warmed, moistened, heat_to_air)

        def heat_loss(temperature: Tensor, wetness: float) -> Tensor:
            single = temperature.to(self.dtype)
            air, vapour = below
            dry = HEAT_CAPACITY_DRY * (single - air)
            wet = LATENT_HEAT_VAPORISATION * wetness * (saturation_humidity(single, ps) - vapour)
            return (exchange * (dry + wet)).double()

        lost = heat_loss(ground.land, climate.land_wetness)
        gained = climate.land_restoring * (target.land - ground.land) + climate.land_absorption * light
        gained = step * (gained + climate.land_restoring * lost / climate.land_capacity)
        gained = gained / (1.0 + step * climate.land_restoring / climate.land_capacity)
        land = ground.land + (gained - lost) / climate.land_capacity
        if self.switches.ocean == "prescribed":
            supply = heat_to_air.double() + self.land * (gained - lost)
            return ground._replace(land=land), LayerGain(warmed, moistened, supply)
        lost = heat_loss(ground.water, 1.0)
        from_below = step * (self.supply + climate.slab_restoring * (target.water - ground.water))
        water = ground.water + (from_below - lost) / climate.slab_capacity
        return Ground(land, water), LayerGain(warmed, moistened, self.land * gained + self.sea * from_below)


def _warm_water(grid: LatLonGrid, places: tuple[tuple[float, float, float, float], ...], warmth: float) -> np.ndarray:
    """Return the anomaly of water temperature at `places`, up to `warmth` K above the zonal mean, (lat, lon)."""
    anomaly = np.zeros(grid.shape)
    for x, y, width, depth in places:
        along = np.exp(-((((grid.longitude - x + 180.0) % 360.0 - 180.0) / width) ** 2))
        across = np.exp(-(((grid.latitude - y) / depth) ** 2))
        anomaly += warmth * across[:, None] * (along - along.mean())
    return anomaly
