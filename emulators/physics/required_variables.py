"""Variables that budgets and balances need, by their names here and elsewhere."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from emulators.world import World

# Names of WeatherBench 2 (ours): those of ACE and CREDIT.
NAMES_ELSEWHERE = {
    "temperature": ("air_temperature_0..N", "T"),
    "specific_humidity": ("specific_total_water_0..N", "Q"),
    "u_component_of_wind": ("eastward_wind_0..N", "U"),
    "v_component_of_wind": ("northward_wind_0..N", "V"),
    "surface_pressure": ("PRESsfc", "SP"),
    "geopotential_at_surface": ("HGTsfc times g", "Z_GDS4_SFC"),
}


def require_variable(world: World, part: str, name: str, role: str) -> None:
    """Raise ValueError if the world lacks a variable in a role; the message names the variable in other systems."""
    variables = world.by_role[role]
    if name in variables:
        return
    ace, credit = NAMES_ELSEWHERE[name]
    names = ", ".join(variables.names) or "none"
    raise ValueError(
        f"{part} needs the {role} variable {name} (ACE: {ace}; CREDIT: {credit}); the {role} variables are {names}. "
        f"List it under variables.{role}."
    )


def surface_geopotential(world: World, part: str) -> Tensor:
    """Return the geopotential of the ground in m2 s-2, float64 (*grid).

    Raises ValueError if it is not a static variable.
    """
    try:
        require_variable(world, part, "geopotential_at_surface", "static")
    except ValueError as error:
        raise ValueError(f"{error} On a flat planet say topography=false.") from None
    row = world.static.slice("geopotential_at_surface").start
    return torch.as_tensor(np.asarray(world.static_fields)[row], dtype=torch.float64)
