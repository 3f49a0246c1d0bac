"""Fluxes through a column of air: their names, and the gain of the column from each over a step.

    gain = sign * factor * value,    sign +1 if a positive value adds to the column, -1 if it removes

An upward flux through the surface adds to the column, as does a downward one through the top and an inward one within
the column. The direction in which a variable counts as positive, and whether its values are sums or means over the
timestep, are declared by the data (`Variable.positive`, `Variable.cell`; in files the attributes `positive` and
`cell_methods` of the CF conventions, https://cfconventions.org). Nothing of this is guessed from names. A flux covers
one interval: steps of several timesteps need sums over these, such as total_precipitation_24hr.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from emulators.constants import LATENT_HEAT_VAPORISATION, WATER_DENSITY
from emulators.physics.physical_ranges import canonical_units
from emulators.state import State
from emulators.variables import Variable
from emulators.world import World, hours_of

# role: (boundary, {name: part of the whole})
ROLES: dict[str, tuple[str, dict[str, str]]] = {
    "precipitation": (
        "surface",
        dict.fromkeys(
            (
                "total_precipitation_6hr",
                "total_precipitation",
                "mean_total_precipitation_rate",
                "PRATEsfc",
            ),
            "net",
        ),
    ),
    "evaporation": ("surface", dict.fromkeys(("evaporation_6hr", "evaporation", "mean_evaporation_rate"), "net")),
    "latent heat": (
        "surface",
        dict.fromkeys(("surface_latent_heat_flux", "mean_surface_latent_heat_flux", "LHTFLsfc"), "net"),
    ),
    "sensible heat": (
        "surface",
        dict.fromkeys(
            (
                "sensible_heat_flux_6hr",
                "surface_sensible_heat_flux",
                "mean_surface_sensible_heat_flux",
                "SHTFLsfc",
            ),
            "net",
        ),
    ),
    "solar radiation at the top": (
        "top",
        {
            "top_net_solar_radiation": "net",
            "mean_top_net_short_wave_radiation_flux": "net",
            "DSWRFtoa": "down",
            "USWRFtoa": "up",
        },
    ),
    "thermal radiation at the top": (
        "top",
        {
            "top_net_thermal_radiation": "net",
            "mean_top_net_long_wave_radiation_flux": "net",
            "ULWRFtoa": "net",
        },
    ),
    "solar radiation at the surface": (
        "surface",
        {
            "surface_net_solar_radiation": "net",
            "mean_surface_net_short_wave_radiation_flux": "net",
            "DSWRFsfc": "down",
            "USWRFsfc": "up",
        },
    ),
    "thermal radiation at the surface": (
        "surface",
        {
            "surface_net_thermal_radiation": "net",
            "mean_surface_net_long_wave_radiation_flux": "net",
            "DLWRFsfc": "down",
            "ULWRFsfc": "up",
        },
    ),
    "snowfall": (
        "surface",
        dict.fromkeys(("total_frozen_precipitation_rate", "snowfall", "mean_snowfall_rate"), "net"),
    ),
    "radiation": ("column", {"net_radiation_6hr": "net"}),
    "friction": ("column", {"friction_6hr": "net"}),
    "moisture advection": (
        "column",
        dict.fromkeys(
            (
                "tendency_of_total_water_path_due_to_advection",
                "vertically_integrated_moisture_divergence",
                "mean_vertically_integrated_moisture_divergence",
            ),
            "net",
        ),
    ),
}
SUFFIX = re.compile(r"_(\d+)hr$")
BOUNDARY = {name: boundary for boundary, names in ROLES.values() for name in names}
SIGNS = {
    **{("surface", "up"): 1.0, ("surface", "down"): -1.0, ("top", "down"): 1.0, ("top", "up"): -1.0},
    **{
        (boundary, way): sign for boundary in ("surface", "top", "column") for way, sign in (("in", 1.0), ("out", -1.0))
    },
}
# units: (kind of quantity, whether a rate, factor to kg m-2 or J m-2)
UNITS: dict[str, tuple[str, bool, float]] = {
    "m": ("water", False, WATER_DENSITY),
    "mm": ("water", False, 1.0),
    "kg m-2": ("water", False, 1.0),
    "m s-1": ("water", True, WATER_DENSITY),
    "kg m-2 s-1": ("water", True, 1.0),
    "J m-2": ("heat", False, 1.0),
    "W m-2": ("heat", True, 1.0),
}


@dataclass(frozen=True)
class Flux:
    """Describe a variable that is a flux, with the factor from its value to the gain of the column over a timestep.

    kind: `water` (the gain is in kg m-2) or `heat` (J m-2).
    """

    name: str
    kind: str
    factor: float

    def gain(self, after: State, forcing: State) -> Tensor:
        """Return the gain of the column, float64 (*lead, *grid)."""
        return self.factor * values(self.name, after, forcing).double()

    @property
    def evaporation_factor(self) -> float:
        """The factor from the value to kg m-2 of water: a flux of latent heat is also one of water."""
        return self.factor / LATENT_HEAT_VAPORISATION if self.kind == "heat" else self.factor

    def heat_factor(self, latent_heat: float = LATENT_HEAT_VAPORISATION) -> float:
        """Return the factor from the value to J m-2; evaporating water carries `latent_heat`, J kg-1."""
        return self.factor if self.kind == "heat" else latent_heat * self.factor


def values(name: str, after: State, forcing: State) -> Tensor:
    """Return the fields of variable `name` from the predicted State, or from the forcing if it is not predicted."""
    return after[name] if name in after.variables else forcing[name]


def flux(world: World, name: str, boundary: str | None = None, interval: int = 1) -> Flux:
    """Return the Flux called `name`.

    boundary: `surface`, `top` or `column`; default, the usual one of that name. interval: timesteps that it must cover.
    Raises ValueError if the world lacks the variable or the data do not declare its direction, units and cell method.
    """
    variable = _variable(world, name)
    where = boundary or BOUNDARY.get(usual_name(name), "column")
    sign = SIGNS.get((where, variable.positive))
    if sign is None:
        ways = " or ".join(way for boundary, way in SIGNS if boundary == where)
        raise ValueError(
            f"Flux '{name}' must say which way it counts as positive, {ways}; got '{variable.positive}'. "
            f"Set the attribute `positive` of the variable in the data."
        )
    unit = canonical_units(variable.units)
    if unit not in UNITS:
        raise ValueError(f"Flux '{name}' must be in one of {', '.join(UNITS)}; got '{variable.units}'.")
    kind, is_rate, factor = UNITS[unit]
    _refuse_other_cell(world, variable, "mean" if is_rate else "sum", interval)
    seconds = float(world.lead_time(interval) / np.timedelta64(1, "s"))
    return Flux(name, kind, sign * factor * (seconds if is_rate else 1.0))


def find(world: World, role: str, interval: int = 1) -> list[Flux]:
    """Return the fluxes of a role that the world has: one net flux, or one up and one down; empty if there is none.

    Of several net fluxes, the first whose declarations fit `interval`, in timesteps. Raises ValueError of the first if
    none fits.
    """
    boundary, names = ROLES[role]
    listed = [*world.predicted.names, *world.forcing.names]
    available = [name for usual in names for name in listed if name == usual]
    available += [name for name in listed if name not in names and usual_name(name) in names]
    refusals = []
    for name in (name for name in available if names[usual_name(name)] == "net"):
        try:
            return [flux(world, name, boundary, interval)]
        except ValueError as error:
            refusals.append(error)
    if {names[usual_name(name)] for name in available} >= {"down", "up"}:
        return [
            flux(world, name, boundary, interval) for name in available if names[usual_name(name)] in ("down", "up")
        ]
    if refusals:
        raise refusals[0]
    return []


def usual_name(name: str) -> str:
    """Return the name of a sum over 6 hours for that of one over other hours."""
    return re.sub(r"_\d+hr$", "_6hr", name)


def sums_over(world: World) -> tuple[int, ...]:
    """Return the intervals, in timesteps, that the names of fluxes of the world tell, ascending."""
    hours = [float(match[1]) for name in world.available.names if (match := SUFFIX.search(name))]
    steps = {length / hours_of(world.timestep) for length in hours}
    return tuple(sorted(int(count) for count in steps if count == int(count)))


def names_of(roles: Sequence[str]) -> str:
    """Return the variable names of the roles, for a message."""
    return " and ".join(f"{role} ({' or '.join(ROLES[role][1])})" for role in roles)


def _variable(world: World, name: str) -> Variable:
    for variables in (world.predicted, world.forcing):
        if name in variables:
            return variables.variable(name)
    available = ", ".join(world.available.names)
    raise ValueError(f"No flux '{name}' among what is predicted or prescribed; there is {available}.")


def _refuse_other_cell(world: World, variable: Variable, expected: str, interval: int) -> None:
    kind, _, hours = variable.cell.partition(" ")
    if kind != expected:
        raise ValueError(
            f"Flux '{variable.name}' in {variable.units} must be a {expected} over the step; the data declare "
            f"'{variable.cell or 'nothing'}'. Set its attribute cell_methods = 'time: {expected}', if that is so."
        )
    suffix = SUFFIX.search(variable.name)
    hours = hours.removesuffix("h") or (suffix[1] if suffix else "")
    covered = float(hours) if hours else hours_of(world.timestep)
    step = world.lead_time(interval) / np.timedelta64(3600, "s")
    if covered != step:
        raise ValueError(
            f"Flux '{variable.name}' covers {covered:g} h, but {'a timestep' if interval == 1 else 'the step'} takes "
            f"{step:g} h."
        )
