"""Poleward transports of energy and water by the air, and those that the fluxes at its boundaries imply.

    F(phi) = 2 pi a cos phi ({v h} - {v} {h} / {1}),    {x} = zonal mean of 1/g sum_k x_k dp_k      h = cp T + Phi + L q
    F(phi) = 2 pi a^2 int_-90^phi (G - <G>) cos phi' dphi'

of energy in W, and of water in kg s-1 with q in place of h. The second term removes what a net flow of mass across the
latitude would carry, which coarse levels leave (Trenberth 1991, doi 10.1175/1520-0442(1991)004<0707:CDFGAA>2.0.CO;2);
kinetic energy, a hundredth of the rest, is left out. G is what columns gain through top and surface: radiation,
sensible and latent heat, friction where there is some; evaporation minus precipitation. What is stored over the time of
the mean is left out, and <G>, the gain of the whole globe, is taken away, so that both poles have zero (Peixoto & Oort
1992, Physics of Climate, chapters 12 and 13).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from emulators.constants import EARTH_RADIUS, GRAVITY, HEAT_CAPACITY_DRY, LATENT_HEAT_VAPORISATION
from emulators.grid import LatLonGrid
from emulators.physics import fluxes
from emulators.physics.budgets import heat_fluxes
from emulators.physics.columns import Columns
from emulators.physics.hydrostatics import Hydrostatics
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import World

QUANTITIES = {  # name: (units, long name)
    "energy_transport": ("W", "Northward transport of moist static energy by the air"),
    "energy_transport_implied": ("W", "Northward transport of energy that the gains of the columns imply"),
    "water_transport": ("kg s-1", "Northward transport of water vapour by the air"),
    "water_transport_implied": ("kg s-1", "Northward transport of water that evaporation minus precipitation implies"),
}
Transport = Callable[[State], Tensor]


class Transports:
    """Compute the transports across each latitude that the variables of a world allow.

    left_out: by name of QUANTITIES why it cannot be had.
    """

    def __init__(self, world: World) -> None:
        self.left_out: dict[str, str] = {}
        self.parts: dict[str, Transport] = {}
        makers: tuple[Callable[[World], Transport], ...] = (_energy, _implied_energy, _water, _implied_water)
        for name, maker in zip(QUANTITIES, makers, strict=True):
            try:
                if not isinstance(world.grid, LatLonGrid) or not world.grid.is_global:
                    raise ValueError("rows of latitude around the globe are needed.")
                self.parts[name] = maker(world)
            except ValueError as error:
                self.left_out[name] = str(error).partition(". ")[0].rstrip(".")

    def __call__(self, state: State) -> dict[str, Tensor]:
        """Return northward transports by name, float64 (*lead, lat)."""
        return {name: part(state) for name, part in self.parts.items()}


def _require(world: World, *names: str) -> None:
    missing = [name for name in names if name not in world.predicted]
    if missing:
        raise ValueError(f"no {', '.join(missing)} among what is scored")


def _columns(world: World, levels: tuple[float, ...]) -> Columns:
    _require(world, *(("surface_pressure",) if world.vertical.kind in ("sigma", "hybrid") else ()))
    return Columns(world, levels, convention="surface" if "surface_pressure" in world.predicted else "fixed")


def _carried(world: World, columns: Columns, carried: Callable[[State], Tensor]) -> Transport:
    """The transport of what `carried` gives per mass of air, float64 (*lead, level, *grid)."""
    circle = 2.0 * np.pi * EARTH_RADIUS * torch.from_numpy(np.cos(np.deg2rad(world.lat_lon.latitude)))

    def transport(state: State) -> Tensor:
        thickness, wind, amount = columns.thickness(state), state["v_component_of_wind"].double(), carried(state)
        both, flow, content = (columns.sum(x, thickness).mean(-1) for x in (wind * amount, wind, amount))
        mass = thickness.sum(-3).mean(-1) / GRAVITY
        return circle * (both - flow * content / mass)

    return transport


def _water(world: World) -> Transport:
    _require(world, "v_component_of_wind", "specific_humidity")
    columns = _columns(world, _shared_levels(world, "v_component_of_wind", "specific_humidity"))
    return _carried(world, columns, lambda state: state["specific_humidity"].double())


def _energy(world: World) -> Transport:
    names = ("v_component_of_wind", "temperature", "specific_humidity")
    _require(world, *names)
    levels = _shared_levels(world, *names)
    columns, height = _columns(world, levels), _geopotential(world, levels)

    def energy(state: State) -> Tensor:
        latent = LATENT_HEAT_VAPORISATION * state["specific_humidity"].double()
        return HEAT_CAPACITY_DRY * state["temperature"].double() + latent + height(state)

    return _carried(world, columns, energy)


def _shared_levels(world: World, *names: str) -> tuple[float, ...]:
    first = world.predicted.variable(names[0]).levels
    if not first or any(world.predicted.variable(name).levels != first for name in names):
        raise ValueError(f"{', '.join(names)} are not on the same levels")
    return first


def _geopotential(world: World, levels: tuple[float, ...]) -> Transport:
    """The geopotential of the data, or on sigma and hybrid levels that which balances their temperature."""
    if "geopotential" in world.predicted and world.predicted.variable("geopotential").levels == levels:
        return lambda state: state["geopotential"].double()
    if world.vertical.kind not in ("sigma", "hybrid"):
        raise ValueError("no geopotential on the levels of the winds among what is scored")
    height = Variable("geopotential", "m2 s-2", levels)
    others = VariableSet(tuple(v for v in world.predicted if v.name != "geopotential"))
    topography = "geopotential_at_surface" in world.static
    completed = replace(world, prognostic=others, diagnostic=VariableSet((height,)))
    return Hydrostatics(completed, part="the transport", topography=topography).geopotential


def _over_fluxes(world: World) -> tuple[World, float]:
    """The world with a timestep of the length that sums of fluxes cover, and that length in seconds."""
    hours = [float(match[1]) for name in world.predicted.names if (match := fluxes.SUFFIX.search(name))]
    world = replace(world, timestep=np.timedelta64(int(min(hours)), "h")) if hours else world
    return world, float(world.lead_time(1) / np.timedelta64(1, "s"))


def _implied(world: World, gain: Transport) -> Transport:
    """The transport that a gain of columns implies, in units of the gain times m2. gain: (*lead, *grid)."""
    share = world.grid.weights.sum(axis=1) / world.grid.weights.sum()  # of the globe, rows from north to south
    south_edge = 1.0 - 2.0 * np.cumsum(share)  # sine of latitude
    below = (np.sin(np.deg2rad(world.lat_lon.latitude)) - south_edge) / (2.0 * share)  # of the row, south of its middle
    rows, inside = torch.from_numpy(share), torch.from_numpy(1.0 - below)
    area = 4.0 * np.pi * EARTH_RADIUS**2 * rows

    def transport(state: State) -> Tensor:
        zonal = gain(state).mean(-1)
        excess = area * (zonal - (zonal * rows).sum(-1, keepdim=True))
        return excess.flip(-1).cumsum(-1).flip(-1) - inside * excess

    return transport


def _implied_energy(world: World) -> Transport:
    longer, seconds = _over_fluxes(world)
    asks = "the implied transport"
    try:
        parts = [(flux.name, flux.heat_factor() / seconds) for flux in heat_fluxes(longer, asks)]
    except ValueError as error:
        if not str(error).startswith(asks):
            raise
        raise ValueError("no complete set of fluxes of heat through top and surface among what is scored") from None

    def gain(state: State) -> Tensor:
        return torch.stack([factor * state[name].double() for name, factor in parts]).sum(0)

    return _implied(world, gain)


def _implied_water(world: World) -> Transport:
    longer, seconds = _over_fluxes(world)
    rain = fluxes.find(longer, "precipitation")
    evaporation = fluxes.find(longer, "evaporation") or fluxes.find(longer, "latent heat")
    if not rain or not evaporation:
        raise ValueError("no precipitation and evaporation among what is scored")
    fall, rise = rain[0], evaporation[0]

    def gain(state: State) -> Tensor:
        rising = rise.evaporation_factor * state[rise.name].double()
        return (rising + fall.gain(state, state)) / seconds

    return _implied(world, gain)
