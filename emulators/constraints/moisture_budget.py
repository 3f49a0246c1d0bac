"""Moisture budget: let the water of the air change by evaporation and precipitation alone.

With W the column water, E evaporation and P precipitation over the step (kg m-2), <.> the global mean,

    precipitation    P <- r P + (N+ - r <P>),    N = <E> - <dW>,  N+ = max(N, 0),  r = min(N+ / <P>, 10)
                     E <- E + N+ - N
    evaporation      the same with P and E exchanged, N = <P> + <dW>
    advection_and_*  after that, in every column  A <- dW - (E - P),  the moisture that the wind brought

Where N / <P> is within 0 and 10 this is the form of ACE (Watt-Meyer et al. 2024, arXiv 2411.11268), P <- P N / <P>, and
of the fixer of CREDIT (Sha et al. 2025, arXiv 2501.05648). Beyond, one of them makes precipitation negative or without
bound; here what scaling cannot take is spread evenly, and air that gains more water than evaporates takes it from E.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from emulators.physics import fluxes
from emulators.physics.budgets import Water
from emulators.physics.budgets_by_interval import BudgetsByInterval
from emulators.physics.columns import Convention
from emulators.physics.fluxes import Flux
from emulators.state import State
from emulators.world import World

ClosingTerm = Literal["precipitation", "evaporation", "advection_and_precipitation", "advection_and_evaporation"]
LARGEST = 10.0  # factor by which a flux is scaled


class MoistureBudget(nn.Module):
    """Close the global budget of water, and with `advection` that of every column.

    closing: the terms that are changed. precipitation, evaporation, advection: names of the fluxes; default, the usual
    names. columns: `surface`, or `fixed` (pressure levels without regard to surface pressure). If the flux that is not
    scaled is prescribed, it cannot take water that the other lacks, which then becomes negative.
    """

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
        self.closing = closing.removeprefix("advection_and_")
        if self.closing not in ("precipitation", "evaporation"):
            raise ValueError(
                "moisture_budget closes by precipitation, evaporation, advection_and_precipitation or "
                f"advection_and_evaporation; got '{closing}'."
            )
        self.advection = _advection(world, advection) if closing != self.closing else None

        def budget(interval: int) -> Water:
            if self.advection is not None and interval > 1:
                raise ValueError("Moisture advection is a mean over one timestep.")
            return Water(
                world, columns=columns, precipitation=precipitation, evaporation=evaporation, interval=interval
            )

        self.budgets = BudgetsByInterval(world, budget)
        pairs = {interval: self._pair(budget) for interval, budget in self.budgets.all.items()}
        for scaled, _ in pairs.values():
            if scaled.name not in world.predicted:
                raise ValueError(f"closing={closing} changes {scaled.name}, which must be predicted, not prescribed.")
        self.intervals, self.budget = self.budgets.intervals, self.budgets.all[1]
        self.passes_on = all(counterpart.name in world.predicted for _, counterpart in pairs.values())
        names = [flux.name for pair in pairs.values() for flux in pair[: 1 + self.passes_on]]
        moved = () if self.advection is None else (self.advection.name,)
        self.changes = (*names, *moved)
        self.rests_on = (*self.budgets.uses, *moved)
        # advection recomputed from a closed global budget has no mean; a flux that is not negative stays so
        self.keeps = ("ZeroMeanMoistureAdvection", *(("Positivity",) if self.passes_on else ()))

    def _pair(self, budget: Water) -> tuple[Flux, Flux]:
        """Return the flux that is scaled, and the one that takes what the first lacks."""
        pair = budget.precipitation, budget.evaporation
        return pair if self.closing == "precipitation" else pair[::-1]

    def forward(self, before: State, after: State, forcing: State) -> State:
        budget = self.budgets.of(before, after)
        scaled, counterpart = self._pair(budget)
        change = budget.content(after) - budget.content(before)
        fallen, risen = budget.precipitated(after, forcing), budget.evaporated(after, forcing)
        if self.closing == "precipitation":
            amount, needed = fallen, budget.mean(risen) - budget.mean(change)
        else:
            amount, needed = risen, budget.mean(fallen) + budget.mean(change)
        possible = needed.clamp(min=0.0) if self.passes_on else needed
        changed = {
            scaled.name: self._in_units(budget, scaled, _with_mean(amount, budget.mean(amount), possible), after)
        }
        if self.passes_on:
            other_amount = (risen if self.closing == "precipitation" else fallen) + (possible - needed)
            adjusted = self._in_units(budget, counterpart, other_amount, after)
            changed[counterpart.name] = torch.where(possible > needed, adjusted, after[counterpart.name])
        after = after.with_(**changed)
        if self.advection is None:
            return after
        local = change - budget.gain(after, forcing)
        dtype = after[self.advection.name].dtype
        return after.with_(**{self.advection.name: (local / self.advection.factor).to(dtype)})

    @staticmethod
    def _in_units(budget: Water, flux: Flux, amount: Tensor, after: State) -> Tensor:
        """Return an amount in kg m-2 in the units and direction in which the flux is predicted."""
        factor = -flux.factor if flux is budget.precipitation else flux.evaporation_factor
        return (amount / factor).to(after[flux.name].dtype)


def _with_mean(field: Tensor, mean: Tensor, needed: Tensor) -> Tensor:
    """Return `field` scaled to another global mean by at most LARGEST; what is left is added everywhere."""
    rains = mean > 0.0
    ratio = torch.where(rains, (needed / torch.where(rains, mean, 1.0)).clamp(-LARGEST, LARGEST), 1.0)
    is_reached = rains & (ratio.abs() < LARGEST)  # what is left is rounding then, which would make none negative
    return field * ratio + torch.where(is_reached, 0.0, needed - mean * ratio)


def _advection(world: World, name: str | None) -> Flux:
    """Return the flux of moisture by the wind. Raises ValueError if it is not predicted."""
    candidates = [fluxes.flux(world, name)] if name is not None else fluxes.find(world, "moisture advection")
    if not candidates or candidates[0].name not in world.predicted:
        raise ValueError(
            f"Closing columns needs {fluxes.names_of(['moisture advection'])} among the predicted variables; "
            f"they are {', '.join(world.predicted.names)}."
        )
    return candidates[0]
