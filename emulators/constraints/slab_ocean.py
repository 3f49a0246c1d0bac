"""Slab ocean: the water's temperature changes by the heat that the step exchanges with it, and by nothing else.

    T <- T_before + (F + Q) dt / (rho c h)        where the water is

F is the net flux into the water over the step, by the fluxes that the network has just predicted; Q what currents
bring, prescribed or predicted; h the depth of the mixed layer. The ocean stands inside the step of the atmosphere, as
in ACE2-SOM (Clark et al. 2024, arXiv 2412.04418; rho = 1000 kg m-3, c = 4000 J kg-1 K-1), forward Euler. Without Q an
ocean in balance drifts: Q = -F of the mean climate keeps it (Hansen et al. 1984, doi 10.1029/GM029p0130).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from emulators.physics.fluxes import UNITS, Flux, find, flux, values
from emulators.physics.physical_ranges import canonical_units
from emulators.state import State
from emulators.variables import Variable
from emulators.world import World

ROLES = ("sensible heat", "solar radiation at the surface", "thermal radiation at the surface")


class SlabOcean(nn.Module):
    """Integrate the temperature of a mixed layer in place of what the network predicts for it.

    temperature: prognostic variable, in K. depth: of the layer in m, a number or a forcing or static variable. fluxes:
    names of fluxes through the surface, whose direction, units and cell method the data declare; evaporation counts
    with its latent heat; null: sensible and latent heat and the radiation at the surface, of these those there are.
    correction: Q, a variable in W m-2, or in J m-2 over the timestep, positive into the water. mask: forcing or static
    variable between 0 and 1; null: everywhere. invert: water where the mask is 0. blend: `replace` where the mask,
    rounded, is 1, or `blend` by its value with what was predicted.
    """

    fixed: Tensor
    intervals = (1,)

    def __init__(
        self,
        world: World,
        *,
        temperature: str,
        depth: float | str = 50.0,
        fluxes: Sequence[str] | None = None,
        correction: str | None = None,
        mask: str | None = None,
        invert: bool = False,
        blend: Literal["replace", "blend"] = "replace",
        density: float = 1000.0,
        heat_capacity: float = 4000.0,
    ) -> None:
        super().__init__()
        if blend not in ("replace", "blend"):
            raise ValueError(f"slab_ocean takes blend=replace or blend=blend; got '{blend}'.")
        if temperature not in world.prognostic or world.prognostic.variable(temperature).levels:
            raise ValueError(
                f"slab_ocean needs a prognostic temperature without levels; got {temperature}. Prognostic are "
                f"{', '.join(world.prognostic.names)}."
            )
        if isinstance(depth, int | float) and not depth > 0.0:
            raise ValueError(f"slab_ocean needs a depth above 0 m; got {depth}.")
        self.temperature, self.depth, self.mask, self.invert, self.blend = temperature, depth, mask, invert, blend
        self.volumetric = density * heat_capacity  # J m-3 K-1
        self.fluxes = _usual_fluxes(world) if fluxes is None else [flux(world, name, "surface") for name in fluxes]
        self.correction = None if correction is None else _gain(world, correction)
        if not self.fluxes and self.correction is None:
            raise ValueError("slab_ocean finds no flux through the surface; name them, such as fluxes=[...].")
        names = [term.name for term in (*self.fluxes, *([self.correction] if self.correction else []))]
        self.changes, self.rests_on = (temperature,), (temperature, *names)
        self.statics: dict[str, int] = {}
        for name in (name for name in (mask, depth) if isinstance(name, str)):
            if name in world.static:
                self.statics[name] = world.static.slice(name).start
            elif name not in world.forcing:
                raise ValueError(f"slab_ocean needs '{name}' among the forcing or static variables.")
        fields = np.asarray(world.static_fields if self.statics else np.zeros((0, *world.grid.shape)))
        self.register_buffer("fixed", torch.as_tensor(fields, dtype=torch.float64), persistent=False)

    def heat(self, after: State, forcing: State) -> Tensor:
        """Return the heat that the water gains over the step, J m-2, float64 (*lead, *grid)."""
        total = after[self.temperature].new_zeros((), dtype=torch.float64)
        for term in self.fluxes:  # what the air gains through the surface, the water loses
            total = total - term.heat_factor() * values(term.name, after, forcing).double()
        if self.correction is not None:
            total = total + self._value(self.correction.name, after, forcing) * self.correction.factor
        return total

    def forward(self, before: State, after: State, forcing: State) -> State:
        depth = self.depth if not isinstance(self.depth, str) else self._value(self.depth, after, forcing)
        warmed = before[self.temperature].double() + self.heat(after, forcing) / (self.volumetric * depth)
        warmed = warmed.to(after.values.dtype)
        if self.mask is None:
            return after.with_(**{self.temperature: warmed})
        water = self._value(self.mask, after, forcing)
        water = 1.0 - water if self.invert else water
        predicted = after[self.temperature]
        if self.blend == "replace":
            return after.with_(**{self.temperature: torch.where(water.round() == 1.0, warmed, predicted)})
        share = water.to(predicted.dtype)
        return after.with_(**{self.temperature: (1.0 - share) * predicted + share * warmed})

    def _value(self, name: str, after: State, forcing: State) -> Tensor:
        """The fields of a static, predicted or prescribed variable, float64."""
        return self.fixed[self.statics[name]] if name in self.statics else values(name, after, forcing).double()


def _usual_fluxes(world: World) -> list[Flux]:
    """The usual fluxes that the world has: latent heat itself, or of what evaporates."""
    latent = find(world, "latent heat") or find(world, "evaporation")
    return [*latent, *(term for role in ROLES for term in find(world, role))]


def _gain(world: World, name: str) -> Flux:
    """A variable of heat with the factor to J m-2 over a timestep; ValueError for one in other units."""
    variables: dict[str, Variable] = {variable.name: variable for variable in (*world.predicted, *world.forcing)}
    if name not in variables:
        raise ValueError(f"slab_ocean: correction={name} is neither predicted nor prescribed.")
    kind, is_rate, factor = UNITS.get(canonical_units(variables[name].units), ("", False, 0.0))
    if kind != "heat":
        raise ValueError(f"slab_ocean: correction={name} must be in W m-2 or J m-2; got '{variables[name].units}'.")
    seconds = float(world.lead_time(1) / np.timedelta64(1, "s"))
    return Flux(name, kind, factor * (seconds if is_rate else 1.0))
