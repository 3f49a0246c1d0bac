"""Moisture budget: the water that a forecast created or lost in a timestep, relative to precipitation and evaporation.

    L = (<W_after - W_before - (E - P)> / <|E| + |P|>_target)^2,    <.> the global mean

Soft form of the constraint `moisture_budget`.
"""

from __future__ import annotations

from torch import Tensor, nn

from emulators.physics.budgets import Water
from emulators.physics.budgets_by_interval import BudgetsByInterval
from emulators.physics.columns import Convention
from emulators.state import State
from emulators.world import World


class MoistureBudget(nn.Module):
    """Penalise water created or lost in a timestep.

    precipitation, evaporation: names of these fluxes; default, the usual names. columns: `surface` or `fixed`.
    """

    def __init__(
        self,
        world: World,
        *,
        columns: Convention = "surface",
        precipitation: str | None = None,
        evaporation: str | None = None,
    ) -> None:
        super().__init__()
        self.budgets = BudgetsByInterval(
            world,
            lambda interval: Water(
                world, columns=columns, precipitation=precipitation, evaporation=evaporation, interval=interval
            ),
        )
        self.intervals = self.budgets.intervals

    def forward(self, prediction: State, target: State) -> Tensor:
        imbalance, turnover = self.budgets.imbalance_and_turnover(prediction, target)
        return (imbalance / turnover).flatten(-prediction.rank).squeeze(-1).square().to(prediction.values.dtype)
