"""Total energy: let the energy of the air change by radiation, surface heat fluxes and friction alone.

With the global mean energy <E>, the gain of the air <G> and the sensitivity <dE/dT> to a warming of all layers alike,

    increment   T <- T + (<E_before> + <G> - <E>) / <dE/dT>            (ACE: Watt-Meyer et al. 2024, arXiv 2411.11268)
    variance    T_k <- T_k + s_k^2 (<E_before> + <G> - <E>) / <sum_k dE/dT_k s_k^2>
    ratio       e_k <- e_k (<E_before> + <G>) / <E>, T solved from e_k     (CREDIT: Sha et al. 2025, arXiv 2503.00332)

with s_k the standard deviation of a layer's changes over a timestep. All are exact in one pass, as energy is linear in
T. `increment` keeps gradients of temperature; `variance` is the least change in units of each layer's usual changes
(Gaussian conditioning with these variances by mass), and hardly changes the upper air, whose changes are small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from emulators.physics.budgets import EnergyDefinition
from emulators.physics.budgets_by_interval import energy_by_interval
from emulators.physics.columns import Convention, round_keeping_mean
from emulators.state import State
from emulators.world import World


class TotalEnergy(nn.Module):
    """Close the global budget of energy by changing temperature.

    form: `increment`, `variance` or `ratio`. energy: `enthalpy`, `credit` or `ace` (see `physics.budgets`).
    topography: False for a flat planet. heat: names of the fluxes to count; default, all, which must be complete.
    unaccounted: heating without a flux, W m-2. columns: `surface`, or `fixed` on pressure levels.
    """

    profile: Tensor | None

    def __init__(
        self,
        world: World,
        *,
        form: Literal["increment", "variance", "ratio"] = "increment",
        energy: EnergyDefinition = "enthalpy",
        topography: bool = True,
        heat: Sequence[str] | None = None,
        unaccounted: float = 0.0,
        columns: Convention = "surface",
    ) -> None:
        super().__init__()
        if form not in ("increment", "variance", "ratio"):
            raise ValueError(f"total_energy takes form increment, variance or ratio; got '{form}'.")
        if form == "ratio" and energy == "ace":
            raise ValueError("form=ratio scales the energy of each layer, which energy=ace has no local form of.")
        self.form = form
        self.budgets = energy_by_interval(
            world,
            columns=columns,
            energy=energy,
            topography=topography,
            heat=heat,
            unaccounted=unaccounted,
        )
        self.intervals, self.budget = self.budgets.intervals, self.budgets.all[1]
        self.register_buffer("profile", self._variance(world) if form == "variance" else None, persistent=False)
        self.changes, self.rests_on = ("temperature",), self.budgets.uses

    @staticmethod
    def _variance(world: World) -> Tensor:
        """Return the variance of the layers' changes over a timestep, relative to the largest; float64 (level, *1)."""
        std = world.scale(world.prognostic, "tendency_std")[world.prognostic.slice("temperature")]
        variance = torch.as_tensor(std, dtype=torch.float64) ** 2
        return (variance / variance.max()).reshape(-1, *[1] * len(world.grid.shape))

    def forward(self, before: State, after: State, forcing: State) -> State:
        budget = self.budgets.of(before, after)
        columns = budget.columns
        old = after["temperature"]
        target = budget.total(before) + budget.mean(budget.gain(after, forcing))
        total = budget.total(after)
        if self.form == "ratio":
            new = self._scaled(after, target / total)
        else:
            change = ((target - total) / budget.sensitivity(after, self.profile)).unsqueeze(-1 - columns.rank)
            new = old.double() + (change if self.profile is None else change * self.profile)
        return after.with_(temperature=round_keeping_mean(new, old.dtype, columns.nominal, columns.pattern))

    def _scaled(self, after: State, ratio: Tensor) -> Tensor:
        capacity, other_energy = self.budget.heat_capacity(after), self.budget.other(after)
        energy = capacity * after["temperature"].double() + other_energy
        return (energy * ratio.unsqueeze(-1 - self.budget.columns.rank) - other_energy) / capacity
