"""Parameters of the planet's climate, and switches for the parts of its physics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

DAY = 86400.0
DOUBLINGS = "carbon_dioxide_doublings"  # the field that tells the amount of CO2
Ocean = Literal["prescribed", "slab"]


@dataclass(frozen=True)
class Switches:
    """Switch parts of the physics on and off.

    moist: water evaporates, is transported and rains; if false, the air is dry and exchanges nothing with the
    surface (Held & Suarez 1994). virtual_temperature: water vapour makes air lighter. season, diurnal: annual and
    daily cycle of the sun. energy_fixer: the energy that timestep and truncation lose is returned as uniform heat.
    ocean: the surface temperature of the water is `prescribed`, or that of a `slab` that stores heat. warming: K
    added to the temperatures to which ocean, land and air relax.
    """

    moist: bool = True
    virtual_temperature: bool = True
    season: bool = True
    diurnal: bool = True
    energy_fixer: bool = True
    ocean: Ocean = "prescribed"
    warming: float = 0.0

    def __post_init__(self) -> None:
        if self.ocean not in ("prescribed", "slab"):
            raise ValueError(f"ocean is prescribed or slab; got '{self.ocean}'.")
        if self.ocean == "slab" and not self.moist:
            raise ValueError("A slab ocean needs moist air to meet; set moist=true or ocean=prescribed.")


@dataclass(frozen=True)
class Climate:
    """Hold the parameters of the planet's climate, in SI units; angles in degrees."""

    # radiative equilibrium of the air and friction (Held & Suarez 1994; Thatcher & Jablonowski 2016)
    warmest_equilibrium: float = 287.0  # K
    equilibrium_contrast: float = 50.0  # K, equator to pole
    stability: float = 10.0  # K, of potential temperature
    coldest_equilibrium: float = 200.0  # K
    radiative_time: float = 40.0 * DAY
    radiative_time_ground: float = 4.0 * DAY
    friction_time: float = 1.0 * DAY
    boundary_layer: float = 0.7  # sigma at the top of the layer with friction and fast relaxation
    equilibrium_swing: float = 0.5  # of the sun's declination
    equilibrium_lag: float = 30.0 * DAY
    absorption: float = 0.2  # share of the sunlight above its daily mean that the air absorbs
    # surface fluxes and the boundary layer
    heat_transfer: float = 0.0010  # dimensionless C of the bulk formula
    gustiness: float = 1.0  # m s-1
    diffusivity: float = 10.0  # m2 s-1, below sigma 0.85
    # ocean
    warmest_water: float = 299.0  # K
    coldest_water: float = 271.0  # K
    water_width: float = 30.0  # degrees of latitude
    water_swing: float = 0.35  # of the sun's declination
    water_lag: float = 60.0 * DAY
    warm_pool: float = 3.0  # K, of the water off the continents' eastern coast at the equator
    warm_currents: float = 4.0  # K, of the water off their eastern coasts at 40 degrees
    slab_capacity: float = 2.0e8  # J m-2 K-1, about 50 m of water
    slab_restoring: float = 25.0  # W m-2 K-1, of the slab towards the prescribed temperature
    # land
    warmest_land: float = 306.0  # K, to which the ground relaxes at sea level, annual mean
    land_contrast: float = 48.0  # K, equator to pole
    land_season: float = 22.0  # K, pole in summer minus its annual mean
    land_lag: float = 25.0 * DAY
    land_lapse: float = 0.0065  # K m-1
    land_capacity: float = 6.0e5  # J m-2 K-1
    land_restoring: float = 12.0  # W m-2 K-1
    land_absorption: float = 0.35  # share of the sunlight above its daily mean that the ground absorbs
    land_wetness: float = 0.4  # evaporation as a share of that from water


@dataclass(frozen=True)
class CarbonDioxide:
    """Hold how much CO2 there is, as multiples of the usual: `before` until `start`, then growing at a constant rate.

    first, last: at `start` and at `end`. sensitivity: K that a doubling adds to what ocean, land and air relax to.
    """

    before: float
    first: float
    last: float
    start: np.datetime64
    end: np.datetime64
    sensitivity: float

    def doublings(self, time: np.datetime64) -> float:
        """Return how often it has doubled: log2 of the multiple."""
        if time < self.start:
            return math.log2(self.before)
        share = min(float((time - self.start) / (self.end - self.start)), 1.0)
        return (1.0 - share) * math.log2(self.first) + share * math.log2(self.last)

    def warming(self, time: np.datetime64) -> float:
        """Return the K that it adds."""
        return self.sensitivity * self.doublings(time)


def refuse_amounts(amounts: Sequence[Sequence[float]], trajectories: int) -> None:
    """Raise ValueError for multiples of CO2 that are not [before, first, last] of each trajectory."""
    if len(amounts) != trajectories or any(len(multiples) != 3 or min(multiples) <= 0.0 for multiples in amounts):
        raise ValueError(
            f"co2 should have three positive multiples for each of the {trajectories} trajectories: during spin-up, at "
            f"the start and at the end of what is stored; got {[list(multiples) for multiples in amounts]}."
        )
