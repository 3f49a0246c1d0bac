"""Budgets of steps of several lengths: of each interval over which the data hold the sums of all fluxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from emulators.physics.budgets import Energy, Water
from emulators.physics.fluxes import sums_over
from emulators.state import State
from emulators.world import World, timesteps_between

Kind = TypeVar("Kind", Water, Energy)


class BudgetsByInterval(nn.Module, Generic[Kind]):
    """Hold a budget for each interval that steps may have.

    make: the budget of steps over a number of timesteps; that of one timestep must exist. intervals: in timesteps.
    """

    def __init__(self, world: World, make: Callable[[int], Kind]) -> None:
        super().__init__()
        budgets: dict[int, Kind] = {1: make(1)}
        for interval in sums_over(world):
            if interval > 1:
                try:
                    budgets[interval] = make(interval)
                except ValueError:  # a sum over this interval is absent
                    continue
        self.timestep, self.intervals = world.timestep, tuple(budgets)
        self.modules_by_interval = nn.ModuleList(budgets.values())

    @property
    def all(self) -> Mapping[int, Kind]:
        """The budgets by interval."""
        return dict(zip(self.intervals, self.modules_by_interval, strict=True))  # type: ignore[arg-type]

    @property
    def uses(self) -> tuple[str, ...]:
        """The variables that any of them uses."""
        return tuple(dict.fromkeys(name for budget in self.all.values() for name in budget.uses))

    def of(self, before: State, after: State) -> Kind:
        """Return the budget of the step between two States; ValueError where the data lack sums over its interval."""
        interval = timesteps_between(self.timestep, before.time, after.time)
        if interval not in self.intervals:
            part = self.all[1].part
            raise ValueError(
                f"{part} takes fluxes as sums over the step, here of {interval} timesteps; the data hold them for "
                f"steps of {', '.join(map(str, self.intervals))}. List the sums among the variables, such as "
                f"total_precipitation_24hr, or leave {part} out."
            )
        return self.all[interval]

    def imbalance_and_turnover(self, prediction: State, target: State) -> tuple[Tensor, Tensor]:
        """Return those of the budget of the step that made `prediction`."""
        origin = prediction.origin
        budget = self.all[1] if origin is None else self.of(origin.before, prediction)
        return budget.imbalance_and_turnover(prediction, target)


def energy_by_interval(world: World, *, heat: Sequence[str] | None, **options: Any) -> BudgetsByInterval[Energy]:
    """Return the energy budgets of each interval. heat, options: those of `Energy`."""
    fluxes = None if heat is None else list(heat)
    return BudgetsByInterval(world, lambda interval: Energy(world, heat=fluxes, interval=interval, **options))
