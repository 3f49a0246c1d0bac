"""Hydrostatic balance: the height differences of layers of air, from their virtual temperature.

    Phi_k - Phi_{k+1} = R (Tv_k + Tv_{k+1}) / 2 ln(p_{k+1} / p_k),    Tv = T (1 + (Rv / Rd - 1) q)

between pressure levels (the hypsometric equation with the mean of both levels), and on sigma or hybrid levels

    Phi_k = Phi_s + sum_{j>k} R Tv_j ln(p_{j+1/2} / p_{j-1/2}) + alpha_k R Tv_k,
    alpha_k = 1 - p_{k-1/2} / dp_k ln(p_{k+1/2} / p_{k-1/2}),   alpha = ln 2 for a top layer that reaches p = 0

(Simmons & Burridge 1981, doi:10.1175/1520-0493(1981)109<0758:AEAAMC>2.0.CO;2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from emulators.constants import GAS_CONSTANT_DRY, GAS_CONSTANT_VAPOUR
from emulators.physics.columns import Columns, require_variable, surface_geopotential
from emulators.state import State
from emulators.world import World


class Hydrostatics(nn.Module):
    """Compute the geopotential that temperature and humidity imply.

    part: name of the part that asks, used in error messages. topography: False for a flat planet (sigma, hybrid
    levels). Raises ValueError if the world lacks a variable needed or has no levels.
    """

    steps: Tensor
    order: Tensor
    surface: Tensor | None

    def __init__(self, world: World, *, part: str = "hydrostatic", topography: bool = True) -> None:
        super().__init__()
        for name in ("temperature", "geopotential"):
            if name not in world.predicted:
                raise ValueError(
                    f"{part} needs {name} among the predicted variables: {', '.join(world.predicted.names)}."
                )
        self.levels = world.predicted.variable("geopotential").levels
        if world.predicted.variable("temperature").levels != self.levels or len(self.levels) < 2:
            raise ValueError(f"{part} needs temperature and geopotential on the same levels, at least 2 of them.")
        moist = "specific_humidity" in world.predicted
        self.is_moist = moist and world.predicted.variable("specific_humidity").levels == self.levels
        self.by_layers, self.rank = world.vertical.kind in ("sigma", "hybrid"), len(world.grid.shape)
        self.uses = ("temperature", *(("specific_humidity",) if self.is_moist else ()), "geopotential")
        surface, steps = None, torch.zeros(0, dtype=torch.float64)
        order = torch.argsort(torch.tensor(self.levels, dtype=torch.float64))
        if self.by_layers:
            require_variable(world, part, "surface_pressure", "prognostic")
            self.columns, self.uses = Columns(world, self.levels), (*self.uses, "surface_pressure")
            surface = surface_geopotential(world, part) if topography else None
        elif world.vertical.kind == "pressure":
            logarithm = torch.tensor(self.levels, dtype=torch.float64).log()[order]
            steps = logarithm.diff().reshape(-1, *[1] * self.rank)
        else:
            raise ValueError(f"{part} needs levels of sigma, hybrid or pressure; got '{world.vertical.kind}'.")
        for name, table in (("surface", surface), ("steps", steps), ("order", order)):
            self.register_buffer(name, table, persistent=False)

    def virtual_temperature(self, state: State) -> Tensor:
        """Return the virtual temperature in K, float64 (*lead, level, *grid)."""
        temperature = state["temperature"].double()
        if not self.is_moist:
            return temperature
        return temperature * (
            1.0 + (GAS_CONSTANT_VAPOUR / GAS_CONSTANT_DRY - 1.0) * state["specific_humidity"].double()
        )

    def geopotential(self, state: State) -> Tensor:
        """Return the balanced geopotential in m2 s-2, float64 (*lead, level, *grid).

        On pressure levels it is relative to the lowest of them.
        """
        level = -1 - self.rank
        virtual = self.virtual_temperature(state)
        if self.by_layers:
            return self._of_layers(state, virtual)
        sorted_ = virtual.index_select(level, self.order)
        count = len(self.levels)
        mean = 0.5 * (sorted_.narrow(level, 0, count - 1) + sorted_.narrow(level, 1, count - 1))
        thicknesses = GAS_CONSTANT_DRY * mean * self.steps
        above = thicknesses.flip(level).cumsum(level).flip(level)
        whole = torch.cat([above, torch.zeros_like(above.narrow(level, 0, 1))], dim=level)
        return whole.index_select(level, torch.argsort(self.order))

    def _of_layers(self, state: State, virtual: Tensor) -> Tensor:
        level, columns = -1 - self.rank, self.columns
        thickness = columns.thickness(state)
        top = columns.vertical.a[0] + columns.vertical.b[0] * state["surface_pressure"].double().unsqueeze(level)
        lower = top + thickness.cumsum(level)
        upper = lower - thickness
        reaches_top = upper < 1e-6 * lower
        ratio = torch.where(reaches_top, 0.0, torch.log(lower / torch.where(reaches_top, lower, upper)))
        alpha = torch.where(reaches_top, math.log(2.0), 1.0 - upper / thickness * ratio)
        layers = GAS_CONSTANT_DRY * virtual * ratio
        below = layers.flip(level).cumsum(level).flip(level) - layers
        height = below + alpha * GAS_CONSTANT_DRY * virtual
        return height if self.surface is None else height + self.surface

    def imbalance(self, state: State) -> Tensor:
        """Return the geopotential minus the balanced one, float64 (*lead, level, *grid).

        On pressure levels, where the height of the lowest level is unknown, the mean of each column is removed.
        """
        error = state["geopotential"].double() - self.geopotential(state)
        return error if self.by_layers else error - error.mean(-1 - self.rank, keepdim=True)
