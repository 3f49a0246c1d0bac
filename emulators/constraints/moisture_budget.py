"""Moisture budget: let the water of the air change by evaporation and precipitation alone.

With W the column water, E evaporation and P precipitation over the timestep (kg m-2), <.> the global mean,

    precipitation    P <- P (<E> - <dW>) / <P>
    evaporation      E <- E (<P> + <dW>) / <E>
    advection_and_*  after that, in every column  A <- dW - (E - P),  the moisture that the wind brought

The forms are ACE's (Watt-Meyer et al. 2024, arXiv 2411.11268); `precipitation` is also the fixer of CREDIT (Sha et al.
2025, arXiv 2501.05648). If the flux to be scaled has a global mean of almost zero, the same amount is added everywhere.
If the predicted air gains more water than evaporates, precipitation becomes negative: the budget comes first.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from emulators.physics import fluxes
from emulators.physics.budgets import Water
from emulators.physics.columns import Convention
from emulators.physics.fluxes import Flux
from emulators.state import State
from emulators.world import World

ClosingTerm = Literal["precipitation", "evaporation", "advection_and_precipitation", "advection_and_evaporation"]
LEAST = 1e-9  # kg m-2 in a timestep: a global mean below it cannot be scaled


class MoistureBudget(nn.Module):
    """Close the global budget of water, and with `advection` that of every column.

    closing: the terms that are changed. precipitation, evaporation, advection: names of the fluxes; default, the usual
    names. columns: `surface`, or `fixed` (pressure levels without regard to surface pressure).
    """

    keeps = ("ZeroMeanMoistureAdvection",)  # advection recomputed from a closed global budget has no mean

    def __init__(
        self,
        world: World,
        *,
        closing: ClosingTerm = "precipitation",
        columns: Convention = "surface",
        precipitation: str | None = None,
        evaporation: str | None = None,
        advection: str | None = None,
    ) -> None:
        super().__init__()
        scaled = closing.removeprefix("advection_and_")
        if scaled not in ("precipitation", "evaporation"):
            raise ValueError(
                "moisture_budget closes by precipitation, evaporation, advection_and_precipitation or "
                f"advection_and_evaporation; got '{closing}'."
            )
        self.budget = Water(world, columns=columns, precipitation=precipitation, evaporation=evaporation)
        self.scaled = self.budget.precipitation if scaled == "precipitation" else self.budget.evaporation
        if self.scaled.name not in world.predicted:
            raise ValueError(f"closing={closing} changes {self.scaled.name}, which must be predicted, not prescribed.")
        self.advection = _advection(world, advection) if closing != scaled else None
        moved = () if self.advection is None else (self.advection.name,)
        self.changes = (self.scaled.name, *moved)
        self.rests_on = (*self.budget.uses, *moved)

    def forward(self, before: State, after: State, forcing: State) -> State:
        budget = self.budget
        change = budget.content(after) - budget.content(before)
        fallen, risen = budget.precipitated(after, forcing), budget.evaporated(after, forcing)
        if self.scaled is budget.precipitation:
            old, needed = fallen, budget.mean(risen) - budget.mean(change)
        else:
            old, needed = risen, budget.mean(fallen) + budget.mean(change)
        new = _with_mean(old, budget.mean(old), needed)
        changed = {self.scaled.name: self._flux_values(new, after)}
        after = after.with_(**changed)
        if self.advection is None:
            return after
        local = change - budget.gain(after, forcing)
        dtype = after[self.advection.name].dtype
        return after.with_(**{self.advection.name: (local / self.advection.factor).to(dtype)})

    def _flux_values(self, amount: Tensor, after: State) -> Tensor:
        """Return an amount in kg m-2 in the units and direction in which the flux is predicted."""
        if self.scaled is self.budget.precipitation:
            factor = -self.scaled.factor
        else:
            factor = self.scaled.evaporation_factor
        return (amount / factor).to(after[self.scaled.name].dtype)


def _with_mean(field: Tensor, mean: Tensor, needed: Tensor) -> Tensor:
    """Return `field` scaled to another global mean, or shifted to it if its mean is almost zero."""
    scalable = mean.abs() > LEAST
    scaled = field * (needed / torch.where(scalable, mean, 1.0))
    return torch.where(scalable, scaled, field + needed - mean)


def _advection(world: World, name: str | None) -> Flux:
    """Return the flux of moisture by the wind. Raises ValueError if it is not predicted."""
    candidates = [fluxes.flux(world, name)] if name is not None else fluxes.find(world, "moisture advection")
    if not candidates or candidates[0].name not in world.predicted:
        raise ValueError(
            f"Closing columns needs {fluxes.names_of(['moisture advection'])} among the predicted variables; "
            f"they are {', '.join(world.predicted.names)}."
        )
    return candidates[0]
