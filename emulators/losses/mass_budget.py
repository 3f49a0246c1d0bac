"""Mass budget: the dry air that a forecast created or lost, relative to its total.

    L = ((<M> - <M_ref>) / <M_ref>)^2,    <M> the global mean of dry air; M_ref that of the target

Soft form of the constraint `dry_air_mass`.
"""

from __future__ import annotations

from torch import Tensor, nn

from emulators.physics.budgets import DryAir
from emulators.physics.columns import Convention
from emulators.state import State
from emulators.world import World


class MassBudget(nn.Module):
    """Penalise dry air created or lost.

    columns: `surface`, or `fixed` (pressure levels without regard to surface pressure).
    """

    def __init__(self, world: World, *, columns: Convention = "surface") -> None:
        super().__init__()
        self.budget = DryAir(world, part="mass_budget", columns=columns)

    def forward(self, prediction: State, target: State) -> Tensor:
        reference = self.budget.mean(self.budget.content(target))
        share = (self.budget.mean(self.budget.content(prediction)) - reference) / reference
        return share.flatten(-prediction.rank).squeeze(-1).square().to(prediction.values.dtype)
