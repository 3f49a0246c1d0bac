"""Energy budget: the energy that a forecast created or lost in a timestep, relative to the heat exchanged.

    L = (<E_after - E_before - G> / <sum |G|>_target)^2,    <.> the global mean, G the gain by each flux

Soft form of the constraint `total_energy`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from emulators.physics.budgets import EnergyDefinition
from emulators.physics.budgets_by_interval import energy_by_interval
from emulators.physics.columns import Convention
from emulators.state import State
from emulators.world import World


class EnergyBudget(nn.Module):
    """Penalise energy created or lost in a timestep.

    energy, topography, heat, unaccounted, columns: as in the constraint `total_energy`.
    """

    def __init__(
        self,
        world: World,
        *,
        energy: EnergyDefinition = "enthalpy",
        topography: bool = True,
        heat: Sequence[str] | None = None,
        unaccounted: float = 0.0,
        columns: Convention = "surface",
    ) -> None:
        super().__init__()
        self.budgets = energy_by_interval(
            world,
            part="energy_budget",
            columns=columns,
            energy=energy,
            topography=topography,
            heat=heat,
            unaccounted=unaccounted,
        )
        self.intervals = self.budgets.intervals

    def forward(self, prediction: State, target: State) -> Tensor:
        imbalance, turnover = self.budgets.imbalance_and_turnover(prediction, target)
        return (imbalance / turnover).flatten(-prediction.rank).squeeze(-1).square().to(prediction.values.dtype)
