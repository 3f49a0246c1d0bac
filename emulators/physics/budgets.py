"""Budgets of the air: what columns hold of dry air, water and energy, and what they gain through their boundaries.

    residual = content(after) - content(before) - gain,    whose global mean is zero where nothing is made or lost

Dry air    1/g sum (1 - q) dp, no gain.
Water      W = 1/g sum q dp, q being vapour and what is predicted of cloud, rain and snow; gain E - P (+ advection).
Energy     1/g sum e dp, in one of three definitions; gain: radiation, sensible and latent heat, friction
  enthalpy   e = cp T + L q + (u^2 + v^2) / 2 + Phi_s, with the constants of this project
  credit     the same with cp = (1 - q) cp_dry + q cp_vapour (Sha et al. 2025, arXiv 2503.00332)
  ace        e = cv T + L q + g z at mid-layer, z hydrostatic, no kinetic energy (Watt-Meyer et al. 2024, arXiv
             2411.11268)

With the surface geopotential Phi_s in place of that of the layer, cp T stands for the potential energy of the column
too: sum (cv T + Phi) dp = sum (cp T + Phi_s) dp under hydrostatic balance (Laprise & Girard 1990).
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
from emulators.physics.columns import Columns, Convention
from emulators.physics.fluxes import Flux
from emulators.state import State
from emulators.world import World

EnergyDefinition = Literal["enthalpy", "credit", "ace"]
# What other systems call these: WeatherBench 2 (ours), ACE, CREDIT.
NAMES_ELSEWHERE = {
    "temperature": ("air_temperature_0..N", "T"),
    "specific_humidity": ("specific_total_water_0..N", "Q"),
    "u_component_of_wind": ("eastward_wind_0..N", "U"),
    "v_component_of_wind": ("northward_wind_0..N", "V"),
    "surface_pressure": ("PRESsfc", "SP"),
    "geopotential_at_surface": ("HGTsfc times g", "Z_GDS4_SFC"),
}
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
    """Heat capacities at constant pressure, gas constants and latent heat, J kg-1 (K-1)."""

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
    """Content of columns and gain through their boundaries; `part` names who asks, in the words of errors."""

    uses: tuple[str, ...]

    def __init__(self, world: World, part: str, columns: Convention, profile: str = "specific_humidity") -> None:
        super().__init__()
        require_variable(world, part, profile, "prognostic")
        if world.grid.kind == "limited_area":
            raise ValueError(f"{part} closes a budget of the whole globe; air comes and goes over a {world.grid!r}.")
        self.part, self.profile, self.levels = part, profile, world.prognostic.variable(profile).levels
        if columns == "surface":
            require_variable(world, part, "surface_pressure", "prognostic")
        self.columns = Columns(world, self.levels, convention=columns)
        self.pressure = () if columns == "fixed" else ("surface_pressure",)

    @abstractmethod
    def content(self, state: State) -> Tensor:
        """What the columns of a State hold."""

    @abstractmethod
    def gain(self, after: State, forcing: State) -> Tensor:
        """What they gained in the timestep that led to `after`."""

    def residual(self, before: State, after: State, forcing: State) -> Tensor:
        """What they gained beyond that: the global mean is what was made out of nothing."""
        return self.content(after) - self.content(before) - self.gain(after, forcing)

    def total(self, state: State) -> Tensor:
        """Global mean of what the columns hold, (*lead, 1, 1)."""
        return self.mean(self.content(state))

    @abstractmethod
    def turnover(self, after: State, forcing: State) -> Tensor:
        """All that came and went in the timestep, without sign: the scale of a residual."""

    def imbalance_and_turnover(self, prediction: State, target: State) -> tuple[Tensor, Tensor]:
        """Global mean of what a forecast made out of nothing in its last timestep, and of its turnover, (*lead, 1, 1).

        A State that no step made has no timestep behind it: it is taken to start from where the target started, whose
        budget is closed. The turnover is the target's.
        """
        origin = prediction.origin
        if origin is not None:
            missed = self.residual(origin.before, prediction, origin.forcing)
            return self.mean(missed), self.mean(self.turnover(target, origin.forcing))
        missed = self.content(prediction) - self.content(target)
        missed = missed - (self.gain(prediction, target) - self.gain(target, target))
        return self.mean(missed), self.mean(self.turnover(target, target))

    def mean(self, field: Tensor) -> Tensor:
        """Global mean, (*lead, 1, 1)."""
        return self.columns.mean(field)


class DryAir(Budget):
    """The dry air of the columns; all of what presses on the surface where the world says that this is dry air."""

    def __init__(self, world: World, *, part: str = "dry_air_mass", columns: Convention = "surface") -> None:
        super().__init__(world, part, columns)
        self.species = () if world.vertical.dry else water_species(world, self.levels)
        self.uses = (*self.species, *self.pressure)

    def share(self, state: State) -> Tensor:
        """Dry air in the air of each layer, 1 - q, float64 (*lead, level, *grid)."""
        return 1.0 - total_water(state, self.species) if self.species else torch.ones_like(state[self.profile]).double()

    def water(self, state: State) -> Tensor | None:
        """All water of the columns; None where they are counted as dry."""
        return self.columns.integral(total_water(state, self.species), state) if self.species else None

    def content(self, state: State) -> Tensor:
        weight, water = self.columns.weight(state), self.water(state)
        return weight if water is None else weight - water

    def gain(self, after: State, forcing: State) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=after.values.device)

    def turnover(self, after: State, forcing: State) -> Tensor:
        return self.content(after)


class Water(Budget):
    """The water of the columns. precipitation, evaporation: names of these fluxes where the data have others."""

    def __init__(
        self,
        world: World,
        *,
        part: str = "moisture_budget",
        columns: Convention = "surface",
        precipitation: str | None = None,
        evaporation: str | None = None,
    ) -> None:
        super().__init__(world, part, columns)
        self.species = water_species(world, self.levels)
        self.precipitation = self._flux(world, ("precipitation",), precipitation)
        self.evaporation = self._flux(world, ("evaporation", "latent heat"), evaporation)
        self.uses = (*self.species, *self.pressure, self.precipitation.name, self.evaporation.name)

    def _flux(self, world: World, roles: tuple[str, ...], name: str | None) -> Flux:
        if name is not None:
            return fluxes.flux(world, name, "surface")
        for role in roles:
            candidates = fluxes.find(world, role)
            if candidates:
                return candidates[0]
        raise ValueError(
            f"{self.part} needs {' or '.join(fluxes.names_of([role]) for role in roles)} among the predicted or "
            f"prescribed variables; there are {', '.join((world.predicted + world.forcing).names)}."
        )

    def content(self, state: State) -> Tensor:
        return self.columns.integral(total_water(state, self.species), state)

    def evaporated(self, after: State, forcing: State) -> Tensor:
        """Water that came up through the surface, kg m-2."""
        return self.evaporation.evaporation_factor * fluxes.values(self.evaporation.name, after, forcing).double()

    def precipitated(self, after: State, forcing: State) -> Tensor:
        """Water that fell, kg m-2."""
        return -self.precipitation.gain(after, forcing)

    def gain(self, after: State, forcing: State) -> Tensor:
        return self.evaporated(after, forcing) - self.precipitated(after, forcing)

    def turnover(self, after: State, forcing: State) -> Tensor:
        return self.evaporated(after, forcing).abs() + self.precipitated(after, forcing).abs()


class Energy(Budget):
    """The energy of the columns.

    energy: its definition. topography: False says that the surface is flat at height zero; True takes
    `geopotential_at_surface`. heat: names of the fluxes to count, default all that the world has, which must be
    complete. unaccounted: further heating in W m-2.
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
    ) -> None:
        if energy not in CONSTANTS:
            raise ValueError(f"{part} knows energy as {', '.join(CONSTANTS)}; got '{energy}'.")
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
        self.heat = [fluxes.flux(world, name) for name in heat] if heat is not None else heat_fluxes(world, part)
        self.snow = fluxes.find(world, "snowfall") if energy == "ace" and heat is None else []
        self.unaccounted = unaccounted * float(world.lead_time(1) / np.timedelta64(1, "s"))
        counted = (flux.name for flux in (*self.heat, *self.snow))
        self.uses = ("temperature", "specific_humidity", *winds, *self.pressure, *counted)

    def heat_capacity(self, state: State) -> Tensor | float:
        """At constant pressure, J kg-1 K-1: a number, or float64 (*lead, level, *grid) where it depends on humidity."""
        constants = self.constants
        if constants.heat_capacity_dry == constants.heat_capacity_vapour:
            return constants.heat_capacity_dry
        humidity = state["specific_humidity"].double()
        return constants.heat_capacity_dry + (constants.heat_capacity_vapour - constants.heat_capacity_dry) * humidity

    def other(self, state: State) -> Tensor:
        """Energy per mass that does not depend on temperature: latent, kinetic, of the surface's height; float64."""
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
        """As `mean(content(state))`, in fewer passes over the fields."""
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
        """Energy that the globe takes up as its layers warm by `profile`, J m-2 K-1, (*lead, 1, 1).

        profile: float64 (level, 1, 1); None: one kelvin everywhere.
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
        """g z of mid-layers above the surface: half of the own layer and all layers below, of virtual temperature."""
        constants, level = self.constants, -1 - self.columns.rank
        pressure = state["surface_pressure"].double().unsqueeze(level)
        lower = self.columns.lower + self._slopes() * pressure
        upper = lower - self.columns.thickness(state)
        depth = torch.log(lower.clamp(min=1.0)) - torch.log(upper.clamp(min=1.0))
        virtual = temperature * (
            1.0 + (constants.gas_vapour / constants.gas_dry - 1.0) * state["specific_humidity"].double()
        )
        layers = constants.gas_dry * virtual * depth
        return layers.flip(level).cumsum(level).flip(level) - 0.5 * layers

    def _slopes(self) -> Tensor:
        """b of the lower bounds of the layers, (level, 1, 1)."""
        return self.columns.slope.cumsum(0) + self.columns.vertical.b[0]

    def terms(self, after: State, forcing: State) -> list[Tensor]:
        """What each flux brought, J m-2."""
        latent = self.constants.latent_heat  # as in the content
        heat = [flux.heat_factor(latent) * fluxes.values(flux.name, after, forcing).double() for flux in self.heat]
        snow = [-LATENT_HEAT_FUSION * flux.gain(after, forcing) for flux in self.snow]  # freezing warms the air
        return [*heat, *snow]

    def gain(self, after: State, forcing: State) -> Tensor:
        none = torch.zeros((), dtype=torch.float64, device=after.values.device)
        return sum(self.terms(after, forcing), none) + self.unaccounted

    def turnover(self, after: State, forcing: State) -> Tensor:
        none = torch.zeros((), dtype=torch.float64, device=after.values.device)
        return sum((term.abs() for term in self.terms(after, forcing)), none)


def require_variable(world: World, part: str, name: str, role: str) -> None:
    """ValueError where the world lacks a variable in a role; it says what other systems call it."""
    variables = world.by_role[role]
    if name in variables:
        return
    ace, credit = NAMES_ELSEWHERE[name]
    names = ", ".join(variables.names) or "none"
    raise ValueError(
        f"{part} needs the {role} variable {name} (ACE: {ace}; CREDIT: {credit}); the {role} variables are {names}. "
        f"List it under variables.{role}."
    )


def water_species(world: World, levels: tuple[float, ...]) -> tuple[str, ...]:
    """Vapour, and the condensates that are predicted on the same levels."""
    condensates = [name for name in CONDENSATES if name in world.prognostic]
    return ("specific_humidity", *(name for name in condensates if world.prognostic.variable(name).levels == levels))


def total_water(state: State, species: tuple[str, ...]) -> Tensor:
    """Specific total water, float64 (*lead, level, *grid)."""
    total = state[species[0]].double()
    for name in species[1:]:
        total = total + state[name].double()
    return total


def surface_geopotential(world: World, part: str) -> Tensor:
    """Geopotential of the ground in m2 s-2, float64 (*grid); ValueError where the static variables lack it."""
    try:
        require_variable(world, part, "geopotential_at_surface", "static")
    except ValueError as error:
        raise ValueError(f"{error} On a flat planet say topography=false.") from None
    row = world.static.slice("geopotential_at_surface").start
    return torch.as_tensor(np.asarray(world.static_fields)[row], dtype=torch.float64)


def heat_fluxes(world: World, part: str) -> list[Flux]:
    """Every flux of heat that the world has; ValueError names what is missing for the budget to be whole."""
    column = fluxes.find(world, "radiation")
    by_role = {role: fluxes.find(world, role) for role in ("sensible heat", *(() if column else RADIATION))}
    by_role["latent heat"] = fluxes.find(world, "latent heat") or fluxes.find(world, "evaporation")
    missing = [role for role, role_fluxes in by_role.items() if not role_fluxes]
    if missing:
        whole = [role for role, parts in (("radiation", RADIATION), ("evaporation", ("latent heat",)))
                 if set(parts) & set(missing)]  # fmt: skip
        instead = f"; in their place {fluxes.names_of(whole)} would do" if whole else ""
        raise ValueError(
            f"{part} needs fluxes of heat among the predicted or prescribed variables; there is none for "
            f"{fluxes.names_of(missing)}{instead}. List them, or name in `heat` those that make the budget whole."
        )
    return [
        *column,
        *(flux for role_fluxes in by_role.values() for flux in role_fluxes),
        *fluxes.find(world, "friction"),
    ]
