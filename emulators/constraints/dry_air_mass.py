"""Dry-air mass: keep the global mean of dry air at its value at the start of the rollout.

With pd_i = sum_k (1 - q_k) dp_k the weight of a column's dry air and M its global mean at the start,

    offset     pd_i <- pd_i + M - mean(pd), and ps is solved for again, as the water of the column depends on it
    ratio      ps <- ps (M - mean(sum_k (1 - q_k) da_k)) / mean(sum_k (1 - q_k) db_k ps)
    humidity   1 - q_k <- (1 - q_k) (M - M_held) / M_fix in the lowest layers, whose dry air is M_fix

`offset` is that of ACE (Watt-Meyer et al. 2024, arXiv 2411.11268), which keeps the start since its version of 2025, as
differences from step to step add up to a drift; `ratio` and `humidity` are those of CREDIT on hybrid and on pressure
levels (Sha et al. 2025, arXiv 2503.00332 and 2501.05648). CREDIT divides a trapezoidal integral between two levels and
leaves a quarter of the error; here every level has its own weight, and nothing is left. If surface pressure is the
weight of dry air alone (`World.vertical.dry`), as on the embedded planet, pd is ps.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from emulators.constants import GRAVITY
from emulators.physics.budgets import DryAir
from emulators.physics.columns import Convention, round_keeping_mean
from emulators.state import State
from emulators.world import World


class DryAirMass(nn.Module):
    """Keep the global mean of dry air by changing surface pressure or humidity.

    form: `offset`, `ratio` or `humidity`. reference: `start` of the rollout, or the State `before` the step.
    columns: `surface`, or `fixed` (pressure levels without regard to surface pressure; form `humidity` only).
    layers: number of layers, counted from the lowest, that form `humidity` changes.
    """

    changed_layers: Tensor

    def __init__(
        self,
        world: World,
        *,
        form: Literal["offset", "ratio", "humidity"] = "offset",
        reference: Literal["start", "before"] = "start",
        columns: Convention = "surface",
        layers: int = 4,
    ) -> None:
        super().__init__()
        if form not in ("offset", "ratio", "humidity") or reference not in ("start", "before"):
            raise ValueError(
                "dry_air_mass takes form offset, ratio or humidity and reference start or before; "
                f"got {form} and {reference}."
            )
        if columns == "fixed" and form != "humidity":
            raise ValueError(
                f"Fixed columns have no surface pressure that form={form} could change; say form=humidity."
            )
        if form == "humidity" and world.vertical.dry:
            raise ValueError(
                "Surface pressure is the weight of dry air here, which humidity does not change; got form=humidity. "
                "Take form=offset or form=ratio."
            )
        if form == "ratio" and world.vertical.kind not in ("sigma", "hybrid"):
            raise ValueError(f"form=ratio needs sigma or hybrid levels; got '{world.vertical.kind}'. Take form=offset.")
        self.form, self.reference = form, reference
        self.budget = DryAir(world, part="dry_air_mass", columns=columns)
        if form == "humidity":
            self.register_buffer("changed_layers", self._changed_layers(world, layers), persistent=False)
        self.changes = ("specific_humidity",) if form == "humidity" else ("surface_pressure",)
        self.rests_on = self.budget.uses

    def _changed_layers(self, world: World, layers: int) -> Tensor:
        """Return 1 for the layers that change, 0 for the others, (level, 1, 1)."""
        count = len(self.budget.levels)
        if not 1 <= layers <= count:
            raise ValueError(f"form=humidity changes 1 to {count} of the layers; got layers={layers}.")
        depth = torch.as_tensor(self.budget.levels, dtype=torch.float64)
        lowest = torch.argsort(depth, descending=True)[:layers]
        changed_layers = torch.zeros(count, dtype=torch.float64).index_fill(0, lowest, 1.0)
        return changed_layers.reshape(-1, *[1] * len(world.grid.shape))

    def forward(self, before: State, after: State, forcing: State) -> State:
        budget = self.budget
        reference = before.start if self.reference == "start" else before
        target = budget.mean(budget.content(reference))
        if self.form == "humidity":
            return after.with_(specific_humidity=self._humidity(after, target))
        return after.with_(surface_pressure=self._pressure(after, target))

    def _pressure(self, after: State, target: Tensor) -> Tensor:
        budget, columns = self.budget, self.budget.columns
        old = after["surface_pressure"]
        share, thickness = budget.share(after), columns.thickness(after)
        dry = columns.sum(share, thickness)
        if self.form == "offset":
            new = columns.surface_pressure(GRAVITY * (dry + target - budget.mean(dry)), share)
        else:
            fixed = columns.sum(share, (columns.lower - columns.upper).expand_as(thickness))
            new = old.double() * (target - budget.mean(fixed)) / budget.mean(dry - fixed)
        return round_keeping_mean(new, old.dtype, columns.area, columns.pattern[0])

    def _humidity(self, after: State, target: Tensor) -> Tensor:
        budget, columns = self.budget, self.budget.columns
        share, thickness = budget.share(after), columns.thickness(after)
        dry = columns.sum(share, thickness)
        loose = columns.sum(share * self.changed_layers, thickness)
        ratio = (target - budget.mean(dry - loose)) / budget.mean(loose)
        new = after["specific_humidity"].double() + share * self.changed_layers * (1.0 - ratio).unsqueeze(
            -1 - columns.rank
        )
        return new.to(after["specific_humidity"].dtype)
