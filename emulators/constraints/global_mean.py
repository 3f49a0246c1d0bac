"""Global mean: keep the mean of a variable over the globe at its start, or let it follow a budget.

    offset   x <- x + m - <x>          ratio   x <- x m / <x>
    m = <x_start>,  or  <x_before> + <f>  if a flux f gives the amount added in a timestep

Every level has a mean of its own. Means are weighted by the area of the grid cells, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from emulators.physics.columns import dither, round_keeping_mean
from emulators.physics.fluxes import values
from emulators.state import State
from emulators.world import World, timesteps_between


class GlobalMean(nn.Module):
    """Keep the global mean of variables.

    variables: default, surface_pressure. form: `offset` or `ratio`.
    budget: variable -> predicted or prescribed variable that gives its change: in the same units the change over the
    timestep, in those units per second (`s-1` after them) the rate of change.
    """

    area: Tensor
    pattern: Tensor

    def __init__(
        self,
        world: World,
        *,
        variables: Sequence[str] | None = None,
        form: Literal["offset", "ratio"] = "offset",
        budget: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        if form not in ("offset", "ratio"):
            raise ValueError(f"global_mean takes form offset or ratio; got '{form}'.")
        if not world.grid.is_global:
            raise ValueError(f"global_mean holds means over the globe; got a {world.grid!r}.")
        names = ["surface_pressure"] if variables is None else list(variables)
        unknown = [name for name in names if name not in world.prognostic]
        if unknown:
            raise ValueError(
                f"global_mean names {', '.join(unknown)}, which is not prognostic; "
                f"the prognostic variables are {', '.join(world.prognostic.names)}."
            )
        self.form, self.budget = form, {k: (v, _seconds(world, k, v)) for k, v in (budget or {}).items()}
        stray = sorted(set(self.budget) - set(names))
        if stray:
            raise ValueError(f"global_mean has a budget for {', '.join(stray)}, which is not among its variables.")
        self.changes = tuple(names)
        self.intervals = (1,) if self.budget else None
        self.timestep = world.timestep
        self.rests_on = (*names, *(flux for flux, _ in self.budget.values()))
        area = torch.as_tensor(world.grid.weights / world.grid.weights.sum(), dtype=torch.float64)
        self.register_buffer("area", area, persistent=False)
        self.register_buffer("pattern", dither(tuple(area.shape)), persistent=False)

    def forward(self, before: State, after: State, forcing: State) -> State:
        axes = tuple(range(-after.rank, 0))

        def mean(field: Tensor) -> Tensor:
            return (field.double() * self.area).sum(axes, keepdim=True)

        changed = {}
        for name in self.changes:
            old = after[name]
            if name in self.budget:
                _refuse_other_interval(self.timestep, before, after)
                flux, seconds = self.budget[name]
                target = mean(before[name]) + seconds * mean(values(flux, after, forcing))
            else:
                target = mean(before.start[name])
            exact = old.double()
            new = exact + (target - mean(old)) if self.form == "offset" else exact * (target / mean(old))
            changed[name] = round_keeping_mean(new, old.dtype, self.area, self.pattern)
        return after.with_(**changed)


def _refuse_other_interval(timestep: np.timedelta64, before: State, after: State) -> None:
    """Raise ValueError where a step is not of one timestep, over which budgets give the change."""
    interval = timesteps_between(timestep, before.time, after.time)
    if interval > 1:
        raise ValueError(
            f"A budget of global_mean is of one timestep; the step takes {interval}. Leave the budget out."
        )


def _seconds(world: World, name: str, flux: str) -> float:
    """Return the factor of a budget term. Raises ValueError if the term is unknown or its units do not fit."""
    available = world.available
    if flux not in available:
        raise ValueError(f"global_mean: the budget of {name} is {flux}, which is neither predicted nor prescribed.")
    variable, units = available.variable(name), available.variable(flux).units
    if len(available.variable(flux).levels) != len(variable.levels):
        raise ValueError(f"global_mean: the budget of {name} is {flux}, which has other levels.")
    if units == variable.units:
        return 1.0
    if units == f"{variable.units} s-1":
        return float(world.lead_time(1) / np.timedelta64(1, "s"))
    raise ValueError(f"The budget of {name} is in {variable.units} or {variable.units} s-1; {flux} is in {units}.")
