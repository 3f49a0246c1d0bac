"""Budgets of the air: dry air, water and energy in columns, and what columns gain through their boundaries.

    residual = content(after) - content(before) - gain,    whose global mean is zero in a closed budget

Dry air    1/g sum (1 - q) dp, no gain.
Water      W = 1/g sum q dp, q being vapour and all predicted cloud, rain and snow; gain E - P (+ advection).
Energy     1/g sum e dp, in one of three definitions; gain: radiation, sensible and latent heat, friction
  enthalpy   e = cp T + L q + (u^2 + v^2) / 2 + Phi_s, with the constants of this project
  credit     the same with cp = (1 - q) cp_dry + q cp_vapour (Sha et al. 2025, arXiv 2503.00332)
  ace        e = cv T + L q + g z at mid-layer, z hydrostatic, no kinetic energy (Watt-Meyer et al. 2024, arXiv
             2411.11268)

With the surface geopotential Phi_s in place of that of the layer, cp T includes the potential energy of the column:
sum (cv T + Phi) dp = sum (cp T + Phi_s) dp under hydrostatic balance (Laprise & Girard 1990).
Contents and gains are float64 (*lead, *grid), kg m-2 or J m-2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from emulators.constants import GAS_CONSTANT_DRY, GAS_CONSTANT_VAPOUR, HEAT_CAPACITY_DRY, LATENT_HEAT_VAPORISATION
from emulators.physics import fluxes
from emulators.physics.columns import Columns, Convention, require_variable, surface_geopotential
from emulators.physics.fluxes import Flux
from emulators.state import State
from emulators.world import World

EnergyDefinition = Literal["enthalpy", "credit", "ace"]
CONDENSATES = (
    "specific_cloud_liquid_water_content",
    "specific_cloud_ice_water_content",
    "specific_rain_water_content",
    "specific_snow_water_content",
)
RADIATION = (
    "solar radiation at the top",
    "thermal radiation at the top",
    "solar radiation at the surface",
    "thermal radiation at the surface",
)
LATENT_HEAT_FUSION = 3.34e5  # J kg-1


@dataclass(frozen=True)
class Constants:
    """Hold heat capacities at constant pressure, gas constants and latent heat, in J kg-1 K-1 and J kg-1."""

    heat_capacity_dry: float = HEAT_CAPACITY_DRY
    heat_capacity_vapour: float = HEAT_CAPACITY_DRY
    gas_dry: float = GAS_CONSTANT_DRY
    gas_vapour: float = GAS_CONSTANT_VAPOUR
    latent_heat: float = LATENT_HEAT_VAPORISATION


CONSTANTS = {
    "enthalpy": Constants(),
    "credit": Constants(1004.64, 1810.0, 287.05, 461.5, 2.501e6),
    "ace": Constants(1004.6, 1004.6, 287.05, 461.5, 2.5e6),
}


class Budget(nn.Module, ABC):
    """Compute the content of columns and their gain through the boundaries.

    part: name of the caller, for error messages. columns: `surface` or `fixed`, see `physics.columns`. profile:
    prognostic variable on the levels of the columns. Raises ValueError if a variable is missing or the grid is a
    limited area.
    """

    uses: tuple[str, ...]

    def __init__(self, world: World, part: str, columns: Convention, profile: str = "specific_humidity") -> None:
        super().__init__()
        require_variable(world, part, profile, "prognostic")
        if not world.grid.is_global:
            raise ValueError(f"{part} closes a budget of the whole globe; air comes and goes over a {world.grid!r}.")
        self.part, self.profile, self.levels = part, profile, world.prognostic.variable(profile).levels
        if columns == "surface":
            require_variable(world, part, "surface_pressure", "prognostic")
        self.columns = Columns(world, self.levels, convention=columns)
        self.pressure = () if columns == "fixed" else ("surface_pressure",)

    @abstractmethod
    def content(self, state: State) -> Tensor:
        """Return the content of the columns of a State, (*lead, *grid)."""

    @abstractmethod
    def gain(self, after: State, forcing: State) -> Tensor:
        """Return the gain of the columns over the timestep that led to `after`, (*lead, *grid)."""

    def residual(self, before: State, after: State, forcing: State) -> Tensor:
        """Return the change of the content that no gain explains, (*lead, *grid)."""
        return self.content(after) - self.content(before) - self.gain(after, forcing)

    def total(self, state: State) -> Tensor:
        """Return the global mean of the content, (*lead, 1, 1)."""
        return self.mean(self.content(state))

    @abstractmethod
    def turnover(self, after: State, forcing: State) -> Tensor:
        """Return the sum of all gains and losses of the timestep without sign, (*lead, *grid): a residual's scale."""

    def imbalance_and_turnover(self, prediction: State, target: State) -> tuple[Tensor, Tensor]:
        """Return the global means of a forecast's residual over its last timestep and of the target's turnover.

        Both (*lead, 1, 1). A State without an origin is taken to start where the target started, whose budget is
        closed.
        """
        origin = prediction.origin
        if origin is not None:
            residual = self.residual(origin.before, prediction, origin.forcing)
            return self.mean(residual), self.mean(self.turnover(target, origin.forcing))
        residual = self.content(prediction) - self.content(target)
        residual = residual - (self.gain(prediction, target) - self.gain(target, target))
        return self.mean(residual), self.mean(self.turnover(target, target))

    def mean(self, field: Tensor) -> Tensor:
        """Return the global mean, (*lead, 1, 1)."""
        return self.columns.mean(field)


class DryAir(Budget):
    """Compute the dry air of the columns: all their mass if surface pressure is that of dry air (`Vertical.dry`)."""

    def __init__(self, world: World, *, part: str = "dry_air_mass", columns: Convention = "surface") -> None:
        super().__init__(world, part, columns)
        self.species = () if world.vertical.dry else water_species(world, self.levels)
        self.uses = (*self.species, *self.pressure)

    def share(self, state: State) -> Tensor:
        """Return the share of dry air in each layer, 1 - q, float64 (*lead, level, *grid)."""
        return 1.0 - total_water(state, self.species) if self.species else torch.ones_like(state[self.profile]).double()

    def water(self, state: State) -> Tensor | None:
        """Return the water of the columns, kg m-2, or None if humidity does not count."""
        return self.columns.integral(total_water(state, self.species), state) if self.species else None

    def content(self, state: State) -> Tensor:
        weight, water = self.columns.weight(state), self.water(state)
        return weight if water is None else weight - water

    def gain(self, after: State, forcing: State) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=after.values.device)

    def turnover(self, after: State, forcing: State) -> Tensor:
        return self.content(after)


class Water(Budget):
    """Compute the water of the columns.

    precipitation, evaporation: names of these fluxes; default, the usual names. interval: timesteps that fluxes cover.
    """

    def __init__(
        self,
        world: World,
        *,
        part: str = "moisture_budget",
        columns: Convention = "surface",
        precipitation: str | None = None,
        evaporation: str | None = None,
        interval: int = 1,
    ) -> None:
        super().__init__(world, part, columns)
        self.interval, self.species = interval, water_species(world, self.levels)
        self.precipitation = self._flux(world, ("precipitation",), precipitation)
        self.evaporation = self._flux(world, ("evaporation", "latent heat"), evaporation)
        self.uses = (*self.species, *self.pressure, self.precipitation.name, self.evaporation.name)

    def _flux(self, world: World, roles: tuple[str, ...], name: str | None) -> Flux:
        if name is not None:
            return fluxes.flux(world, name, "surface", self.interval)
        for role in roles:
            candidates = fluxes.find(world, role, self.interval)
            if candidates:
                return candidates[0]
        raise ValueError(
            f"{self.part} needs {' or '.join(fluxes.names_of([role]) for role in roles)} among the predicted or "
            f"prescribed variables; there are {', '.join(world.available.names)}."
        )

    def content(self, state: State) -> Tensor:
        return self.columns.integral(total_water(state, self.species), state)

    def evaporated(self, after: State, forcing: State) -> Tensor:
        """Return the water that entered through the surface, kg m-2."""
        return self.evaporation.evaporation_factor * fluxes.values(self.evaporation.name, after, forcing).double()

    def precipitated(self, after: State, forcing: State) -> Tensor:
        """Return the water that left as precipitation, kg m-2."""
        return -self.precipitation.gain(after, forcing)

    def gain(self, after: State, forcing: State) -> Tensor:
        return self.evaporated(after, forcing) - self.precipitated(after, forcing)

    def turnover(self, after: State, forcing: State) -> Tensor:
        return self.evaporated(after, forcing).abs() + self.precipitated(after, forcing).abs()


class Energy(Budget):
    """Compute the energy of the columns.

    energy: its definition, `enthalpy`, `credit` or `ace`. topography: False for a flat surface at height zero; True
    reads `geopotential_at_surface`. heat: names of the fluxes to count; default, all that the world has, which must be
    complete. unaccounted: further heating in W m-2. interval: timesteps that fluxes cover.
    """

    surface: Tensor | None

    def __init__(
        self,
        world: World,
        *,
        part: str = "total_energy",
        columns: Convention = "surface",
        energy: EnergyDefinition = "enthalpy",
        topography: bool = True,
        heat: list[str] | None = None,
        unaccounted: float = 0.0,
        interval: int = 1,
    ) -> None:
        if energy not in CONSTANTS:
            raise ValueError(f"{part}: expected energy to be one of {', '.join(CONSTANTS)}; got '{energy}'.")
        super().__init__(world, part, columns, "temperature")
        self.definition, self.constants = energy, CONSTANTS[energy]
        winds = () if energy == "ace" else ("u_component_of_wind", "v_component_of_wind")
        for name in ("specific_humidity", *winds):
            require_variable(world, part, name, "prognostic")
            if world.prognostic.variable(name).levels != self.levels:
                raise ValueError(f"{part} needs {name} on the levels of temperature, {list(self.levels)}.")
        if energy == "ace" and world.vertical.kind not in ("sigma", "hybrid"):
            raise ValueError(f"{part} with energy=ace needs sigma or hybrid levels; take energy=enthalpy.")
        self.winds = winds
        self.register_buffer("surface", surface_geopotential(world, part) if topography else None, persistent=False)
        self.heat = (
            heat_fluxes(world, part, interval)
            if heat is None
            else [fluxes.flux(world, name, interval=interval) for name in heat]
        )
        self.snow = fluxes.find(world, "snowfall", interval) if energy == "ace" and heat is None else []
        self.unaccounted = unaccounted * float(world.lead_time(interval) / np.timedelta64(1, "s"))
        counted = (flux.name for flux in (*self.heat, *self.snow))
        self.uses = ("temperature", "specific_humidity", *winds, *self.pressure, *counted)

    def heat_capacity(self, state: State) -> Tensor | float:
        """Return the heat capacity at constant pressure, J kg-1 K-1.

        Float64 (*lead, level, *grid) if humidity counts.
        """
        constants = self.constants
        if constants.heat_capacity_dry == constants.heat_capacity_vapour:
            return constants.heat_capacity_dry
        humidity = state["specific_humidity"].double()
        return constants.heat_capacity_dry + (constants.heat_capacity_vapour - constants.heat_capacity_dry) * humidity

    def other(self, state: State) -> Tensor:
        """Return the energy per mass that does not depend on temperature: latent, kinetic, potential; float64."""
        energy = self.constants.latent_heat * state["specific_humidity"].double()
        if self.winds:
            u, v = (state[name].double() for name in self.winds)
            energy = energy + 0.5 * (u * u + v * v)
        return energy if self.surface is None else energy + self.surface

    def content(self, state: State) -> Tensor:
        thickness, temperature = self.columns.thickness(state), state["temperature"].double()
        if self.definition == "ace":
            warm = (self.constants.heat_capacity_dry - self.constants.gas_dry) * temperature
            return self.columns.sum(warm + self.other(state) + self._rise(state, temperature), thickness)
        return self.columns.sum(self.heat_capacity(state) * temperature + self.other(state), thickness)

    def total(self, state: State) -> Tensor:
        """Return `mean(content(state))`, in fewer passes over the fields."""
        if self.definition == "ace":
            return self.mean(self.content(state))
        integral, capacity = self.columns.integral, self.heat_capacity(state)
        if isinstance(capacity, float):
            total = capacity * integral(state["temperature"], state)
        else:
            total = integral(capacity * state["temperature"].double(), state)
        total = total + self.constants.latent_heat * integral(state["specific_humidity"], state)
        u, v = (state[name].double() for name in self.winds)
        total = total + 0.5 * integral(u * u + v * v, state)
        return self.mean(total if self.surface is None else total + self.surface * self.columns.weight(state))

    def sensitivity(self, state: State, profile: Tensor | None = None) -> Tensor:
        """Return the global mean of the energy that warms layers by `profile` K, float64 (level, 1, 1), or 1 K.

        (*lead, 1, 1).
        """
        columns, capacity = self.columns, self.heat_capacity(state)
        if self.definition == "ace" or profile is not None:
            warming = torch.ones_like(state["temperature"], dtype=torch.float64)
            warming = warming if profile is None else warming * profile
        if self.definition == "ace":
            volume = self.constants.heat_capacity_dry - self.constants.gas_dry
            return self.mean(columns.integral(volume * warming + self._rise(state, warming), state))
        if profile is not None:
            return self.mean(columns.integral(capacity * warming, state))
        if isinstance(capacity, float):
            return capacity * self.mean(columns.weight(state))
        return self.mean(columns.integral(capacity, state))

    def _rise(self, state: State, temperature: Tensor) -> Tensor:
        """Return g z of mid-layers above the surface, from the virtual temperature of the layers below."""
        constants, level = self.constants, -1 - self.columns.rank
        pressure = state["surface_pressure"].double().unsqueeze(level)
        lower = self.columns.lower + (self.columns.slope.cumsum(0) + self.columns.vertical.b[0]) * pressure
        upper = lower - self.columns.thickness(state)
        depth = torch.log(lower.clamp(min=1.0)) - torch.log(upper.clamp(min=1.0))
        virtual = temperature * (
            1.0 + (constants.gas_vapour / constants.gas_dry - 1.0) * state["specific_humidity"].double()
        )
        layers = constants.gas_dry * virtual * depth
        return layers.flip(level).cumsum(level).flip(level) - 0.5 * layers

    def terms(self, after: State, forcing: State) -> list[Tensor]:
        """Return the energy that each flux added, J m-2."""
        latent = self.constants.latent_heat  # as in the content
        heat = [flux.heat_factor(latent) * fluxes.values(flux.name, after, forcing).double() for flux in self.heat]
        snow = [-LATENT_HEAT_FUSION * flux.gain(after, forcing) for flux in self.snow]  # freezing warms the air
        return [*heat, *snow]

    def gain(self, after: State, forcing: State) -> Tensor:
        zero = torch.zeros((), dtype=torch.float64, device=after.values.device)
        return sum(self.terms(after, forcing), zero) + self.unaccounted

    def turnover(self, after: State, forcing: State) -> Tensor:
        zero = torch.zeros((), dtype=torch.float64, device=after.values.device)
        return sum((term.abs() for term in self.terms(after, forcing)), zero)


def water_species(world: World, levels: tuple[float, ...]) -> tuple[str, ...]:
    """Return the names of vapour and of the condensates that are predicted on the same levels."""
    condensates = [name for name in CONDENSATES if name in world.prognostic]
    return ("specific_humidity", *(name for name in condensates if world.prognostic.variable(name).levels == levels))


def total_water(state: State, species: tuple[str, ...]) -> Tensor:
    """Return the specific total water, float64 (*lead, level, *grid)."""
    total = state[species[0]].double()
    for name in species[1:]:
        total = total + state[name].double()
    return total


def heat_fluxes(world: World, part: str, interval: int = 1) -> list[Flux]:
    """Return all fluxes of heat that the world has.

    Raises ValueError if the budget is incomplete, with what is missing.
    """
    column = fluxes.find(world, "radiation", interval)
    by_role = {role: fluxes.find(world, role, interval) for role in ("sensible heat", *(() if column else RADIATION))}
    by_role["latent heat"] = fluxes.find(world, "latent heat", interval) or fluxes.find(world, "evaporation", interval)
    if missing := [role for role, role_fluxes in by_role.items() if not role_fluxes]:
        whole = [role for role, components in (("radiation", RADIATION), ("evaporation", ("latent heat",)))
                 if set(components) & set(missing)]  # fmt: skip
        instead = f"; in their place {fluxes.names_of(whole)} would do" if whole else ""
        raise ValueError(
            f"{part} needs fluxes of heat among the predicted or prescribed variables; there is none for "
            f"{fluxes.names_of(missing)}{instead}. List them, or name in `heat` those that make the budget whole."
        )
    return [
        *column,
        *(flux for role_fluxes in by_role.values() for flux in role_fluxes),
        *fluxes.find(world, "friction", interval),
    ]
