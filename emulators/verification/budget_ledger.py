"""Conservation errors of a rollout by lead time, and the size of its constraints' corrections.

With M(s) the global mean of what the columns of a State hold, G what they gained in a timestep dt, and P what rained,

    drift      (M(after) - M(start)) / M(start)                           of dry air, and of all air
    residual   M(after) - M(before) - <G>                                 of water, kg m-2; of energy over dt, W m-2
               between States a timestep apart, whatever the intervals of the steps that made them
    relative   residual / <P>                                             of water
    share      rms(constrained - given) / rms(tendency)                   of each constraint and variable

with the tendency x_raw - x_before of what is prognostic, and x_raw itself of what is diagnostic. Per year, the slope of
a least-squares line through the drift, or through the sum of residuals so far, from zero at lead 0. Budgets are those
of Sha et al. 2025 (arXiv 2503.00332) and Watt-Meyer et al. 2024 (arXiv 2411.11268), see `emulators.physics.budgets`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from emulators.interfaces import Constraint, optional
from emulators.physics.budgets import DryAir, Energy, Water
from emulators.verification.budget_results import BUDGETED, QUANTITIES, BudgetResults
from emulators.world import World, counted_timesteps

if TYPE_CHECKING:
    from emulators.state import State
    from emulators.steps.step import Step

VAPOUR = ("specific_humidity",)
Kind = TypeVar("Kind", DryAir, Water, Energy)


class Ledger:
    """Accumulate budgets of rollouts by lead number (from 0) and initial time, and the corrections of constraints.

    constraints: those of the Step; where one states a budget (its definition of energy, its columns), that is the one
    taken. maps: where constraints changed what, as means over initial times and leads. The leads of a rollout, as many
    as `leads` from number `first` on, are added in their order; ledgers of other initial times or of some of the leads
    add up by `add_partial`. left_out: why budgets are absent.
    """

    def __init__(
        self,
        world: World,
        constraints: Mapping[str, Constraint] | None = None,
        *,
        leads: int,
        first: int = 0,
        maps: bool = False,
    ) -> None:
        self.world, self.leads, self.first, self.maps = world, leads, first, maps
        self.constraints = dict(constraints or {})
        self.left_out: dict[str, str] = {}
        stated = [optional(constraint, Constraint, "budget") for constraint in self.constraints.values()]
        self.dry_air = self._budget("dry_air", DryAir, stated)
        self.moisture = self._budget("moisture", Water, stated)
        self.energy = self._budget("energy", Energy, stated)
        budgeted = {name for kind, names in BUDGETED.items() if kind not in self.left_out for name in names}
        if self.dry_air is not None and (self.dry_air.columns.is_fixed or world.vertical.dry):
            budgeted.discard("air_drift")
        self.names = tuple(name for name in QUANTITIES if name in budgeted)
        self.corrections = tuple(
            (name, variable)
            for name, constraint in self.constraints.items()
            for variable in optional(constraint, Constraint, "changes") or world.predicted.names
        )
        dry, wet = self.dry_air, self.moisture
        self._share_water = (
            dry is not None
            and wet is not None
            and (dry.species, dry.levels, dry.columns.is_fixed) == (wet.species, wet.levels, wet.columns.is_fixed)
        )
        self.area = torch.as_tensor(world.grid.weights / world.grid.weights.sum(), dtype=torch.float32)
        self._rows = RowsByLead((len(self.names),), leads)
        self._changed = RowsByLead((2, len(self.corrections)), leads)
        self._maps: dict[tuple[str, str], Tensor] = {}  # (2, level, *grid): sums of the change and of its square
        self._mapped = 0
        self._before: tuple[int, np.ndarray, dict[str, Tensor]] | None = None
        self._start: dict[str, Tensor] = {}
        self._raw: State | None = None
        self._pending: dict[tuple[str, str], Tensor] = {}
        self._pending_maps: dict[tuple[str, str], Tensor] = {}

    def _budget(self, name: str, kind: type[Kind], stated: list[Any]) -> Kind | None:
        matching = [budget for budget in stated if isinstance(budget, kind)]
        if matching:
            return matching[0]
        try:
            return kind(self.world, part=f"the budget of {name.replace('_', ' ')}")
        except ValueError as error:
            self.left_out[name] = str(error)
            return None

    @property
    def is_empty(self) -> bool:
        """True where the world has no budget and no correction to record."""
        return not self.names and not self.corrections

    @contextmanager
    def record_corrections(self, step: Step) -> Iterator[Ledger]:
        """Record the corrections of the constraints of `step` within this context."""
        step.observer = self.record_correction
        try:
            yield self
        finally:
            step.observer = None

    def record_correction(self, name: str, given: State, constrained: State) -> None:
        """Record the change that constraint `name` made; a Step calls this in each timestep."""
        if self._raw is None or self._raw.origin is not given.origin:
            self._raw, self._pending, self._pending_maps = given, {}, {}
        for variable in (variable for constraint, variable in self.corrections if constraint == name):
            change = self._fields(constrained, variable) - self._fields(given, variable)
            self._pending[name, variable] = torch.stack([self._mean_square(change), self._tendency(variable)])
            if self.maps:
                change = change.double().flatten(0, -2 - given.rank)
                self._pending_maps[name, variable] = torch.stack([change.sum(0), change.square().sum(0)]).cpu()

    def _tendency(self, variable: str) -> Tensor:
        """Mean square of the raw tendency of a variable, or of itself where it is diagnostic; (*lead,)."""
        raw = self._raw
        assert raw is not None
        assert raw.origin is not None
        for (_, name), squares in self._pending.items():
            if name == variable:
                return squares[1]
        field = self._fields(raw, variable)
        before = raw.origin.before
        return self._mean_square(field - self._fields(before, variable) if variable in before.variables else field)

    def _fields(self, state: State, variable: str) -> Tensor:
        """(*lead, level, *grid)."""
        return (
            state[variable]
            if state.variables.variable(variable).levels
            else state[variable].unsqueeze(state.channel_axis)
        )

    def _mean_square(self, field: Tensor) -> Tensor:
        """Over levels and the globe; (*lead,)."""
        axes = tuple(range(-1 - self.area.ndim, 0))
        self.area = self.area.to(field.device)
        return (field.square() * self.area).sum(axes).double() / field.shape[axes[0]]

    def add(self, lead: int, state: State, contents: dict[str, Tensor] | None = None) -> Ledger:
        """Add the States of one lead number, made by a Step (or with an `origin` that says what went before).

        contents: those of `state`, where they are known already.
        """
        origin = state.origin
        if origin is None:
            raise ValueError("A ledger compares a State with those before it; expected one with an origin, got data.")
        after = self.contents(state) if contents is None else contents
        previous = self._before
        if lead and previous and previous[0] == lead - 1 and self._follows(previous[1], state.time):
            before: dict[str, Tensor] | None = previous[2]
        else:
            before = self.contents(origin.before)
            self._start = before if origin.before is origin.start or not lead else self.contents(origin.start)
            before = before if self._follows(origin.before.time, state.time) else None
        self._before = (lead, state.time, after)
        self._rows.add(lead - self.first, self._row(before, after, state, origin.forcing))
        if self._raw is not None and self._raw.origin is origin:
            squares = [self._by_init(self._pending[key]) for key in self.corrections]
            self._changed.add(lead - self.first, torch.stack(squares, dim=1))
            self._mapped += int(np.prod(state.lead))
            for key, sums in self._pending_maps.items():
                self._maps[key] = self._maps.get(key, 0.0) + sums
            self._raw, self._pending, self._pending_maps = None, {}, {}
        return self

    def _follows(self, start: np.ndarray, end: np.ndarray) -> bool:
        """Whether `end` is one timestep after `start`, the time over which fluxes are summed."""
        return bool((counted_timesteps(self.world.timestep, start, end) == 1).all())

    def add_missing(self, lead: int, inits: int) -> Ledger:
        """Count a lead as missing, for `inits` initial times."""
        self._rows.add(lead - self.first, torch.full((len(self.names), inits), torch.nan, dtype=torch.float64))
        return self

    def carried_state(self) -> dict[str, np.ndarray]:
        """The contents at the start and at the last lead, which the next lead is compared with, for `restore`."""
        if self._before is None:
            return {}
        lead, time, contents = self._before
        arrays = {"lead": np.array(lead), "time": time.astype(np.int64)}
        for when, totals in (("before", contents), ("start", self._start)):
            arrays |= {f"{when} {name}": total.cpu().numpy() for name, total in totals.items()}
        return arrays

    def restore(self, carried: Mapping[str, np.ndarray], device: torch.device | str = "cpu") -> Ledger:
        """Continue a rollout whose first leads are in another ledger, from its `carried_state`."""
        if carried:
            contents: dict[str, dict[str, Tensor]] = {"before": {}, "start": {}}
            for key, array in carried.items():
                when, _, name = key.partition(" ")
                if name:
                    contents[when][name] = torch.from_numpy(array).to(device)
            self._before = int(carried["lead"]), carried["time"].astype("datetime64[s]"), contents["before"]
            self._start = contents["start"]
        return self

    def contents(self, state: State) -> dict[str, Tensor]:
        """Global means of all air, dry air, water and energy, float64 (*lead, 1, 1), each computed once.

        `column_water` is there too where all water is vapour, for checks that need it.
        """
        device, contents = state.values.device, {}
        water = None
        if self.moisture is not None:
            water = self.moisture.to(device).content(state)
            contents["moisture"] = self.moisture.mean(water)
        if self.dry_air is not None:
            budget, weight = self.dry_air.to(device), self.dry_air.columns.weight(state)
            if water is None or not self._share_water:
                water = budget.water(state)
            contents["dry_air"] = budget.mean(weight if water is None else weight - water)
            if "air_drift" in self.names:
                contents["air"] = budget.mean(weight)
            if budget.species == VAPOUR and water is not None and "moisture" not in contents:
                contents["column_water"] = budget.mean(water)
        if self.moisture is not None and self.moisture.species == VAPOUR:
            contents["column_water"] = contents["moisture"]
        if self.energy is not None:
            contents["energy"] = self.energy.to(device).total(state)
        return contents

    def _row(self, before: dict[str, Tensor] | None, after: dict[str, Tensor], state: State, forcing: State) -> Tensor:
        """(quantity, init) in the order of `names`. before: a timestep earlier; None: unknown, and so are residuals."""
        before = before or {name: torch.full_like(content, torch.nan) for name, content in after.items()}
        row = {}
        for name in ("air", "dry_air"):
            if name in after:
                row[f"{name}_drift"] = (after[name] - self._start[name]) / self._start[name]
        if self.moisture is not None:
            fallen = self.moisture.mean(self.moisture.precipitated(state, forcing))
            risen = self.moisture.mean(self.moisture.evaporated(state, forcing))
            residual = after["moisture"] - before["moisture"] - (risen - fallen)
            row["moisture_residual"] = residual
            row["moisture_residual_relative"] = residual / torch.where(fallen > 0.0, fallen, torch.nan)
        if self.energy is not None:
            residual = after["energy"] - before["energy"] - self.energy.mean(self.energy.gain(state, forcing))
            row["energy_residual"] = residual / self.seconds
        if not row:
            return torch.zeros(0, state.lead[-1] if state.lead else 1)
        return self._by_init(torch.stack([row[name].reshape(state.lead) for name in self.names]))

    @staticmethod
    def _by_init(rows: Tensor) -> Tensor:
        """(quantity, *lead) -> (quantity, init): members are averaged."""
        return rows.reshape(rows.shape[0], -1, rows.shape[-1] if rows.ndim > 1 else 1).mean(1)

    @property
    def seconds(self) -> float:
        """The length of a timestep."""
        return float(self.world.lead_time(1) / np.timedelta64(1, "s"))

    def partial(self) -> dict[str, np.ndarray]:
        """All so far as arrays, to be stored, sent, or added to another ledger: (quantity, init, lead) and so on."""
        arrays = {"rows": self._rows.array()}
        if self.corrections:
            arrays["changed"] = self._changed.array()
        arrays |= {f"map {name} {variable}": sums.numpy() for (name, variable), sums in self._maps.items()}
        return arrays | {"mapped": np.array(self._mapped)}

    def add_partial(self, partial: Mapping[str, np.ndarray], first: int = 0) -> Ledger:
        """Add what another ledger of the same world and constraints holds, of leads from number `first` on."""
        for name, rows in (("rows", self._rows), ("changed", self._changed)):
            if name in partial:
                rows.extend(first, partial[name])
        for key in self.corrections:
            if "map {} {}".format(*key) in partial:
                self._maps[key] = self._maps.get(key, 0.0) + torch.from_numpy(partial["map {} {}".format(*key)])
        self._mapped += int(partial["mapped"])
        return self

    def results(self) -> BudgetResults:
        """Series, trends and corrections of all that was added."""
        count = max(self._mapped, 1)
        return BudgetResults(
            world=self.world,
            leads=self.leads,
            series=dict(zip(self.names, self._rows.array(), strict=True)),
            shares=self._shares(),
            maps={
                key: ((sums[0] / count).numpy(), (sums[1] / count).sqrt().numpy()) for key, sums in self._maps.items()
            },
            conventions=self._conventions(),
            left_out=self.left_out,
        )

    def _shares(self) -> dict[tuple[str, str], np.ndarray]:
        """By constraint and variable the share of the raw tendency that it changed, (lead,); 0 where both are zero."""
        squares = self._changed.array()  # (change and tendency, correction, init, lead)
        if not squares.shape[2]:
            return {}
        changed, tendency = squares.mean(axis=2)
        zeros = np.where(np.isfinite(changed), 0.0, np.nan)
        with np.errstate(divide="ignore"):  # what is held has no tendency of its own, as water under a slab's
            ratio = np.sqrt(np.divide(changed, tendency, out=zeros, where=changed > 0.0))
        return dict(zip(self.corrections, ratio, strict=True))

    def _conventions(self) -> dict[str, str]:
        reasons = [why.rstrip(".") for why in self.left_out.values()]
        attrs = {
            "title": "budgets of forecasts",
            "left_out": " ".join(f"{why[:1].upper()}{why[1:]}." for why in reasons),
        }
        if self.dry_air is not None:
            attrs["columns"] = "fixed" if self.dry_air.columns.is_fixed else "to the surface pressure"
        if self.energy is not None:
            attrs["energy"] = f"{self.energy.definition}; fluxes: {', '.join(flux.name for flux in self.energy.heat)}"
        if self.moisture is not None:
            attrs["water"] = f"{', '.join(self.moisture.species)}; fluxes: {self.moisture.precipitation.name}, "
            attrs["water"] += self.moisture.evaporation.name
        return attrs


class RowsByLead:
    """Accumulate rows (*shape, init) of `leads` leads; batches of initial times are joined in the order they are added.

    Ranges of leads are kept as arrays, so that a century of them takes little more memory than its numbers. Rows that
    were added lead by lead come after them.
    """

    def __init__(self, shape: tuple[int, ...], leads: int) -> None:
        self.shape, self.leads = shape, leads
        self._stretches: list[tuple[int, np.ndarray]] = []
        self._rows: dict[int, list[Tensor]] = defaultdict(list)

    def __bool__(self) -> bool:
        return bool(self._stretches or self._rows)

    def add(self, lead: int, row: Tensor) -> None:
        """Add a batch at one lead, (*shape, init)."""
        self._rows[lead].append(row)

    def extend(self, first: int, stretch: np.ndarray) -> None:
        """Add a batch at the leads from number `first` on, (*shape, init, lead)."""
        self._stretches.append((first, stretch))

    def array(self) -> np.ndarray:
        """All rows, float64 (*shape, init, lead); NaN where nothing was added."""
        rows = {lead: torch.cat(blocks, dim=-1).double().cpu().numpy() for lead, blocks in self._rows.items()}
        blocks = [*self._stretches, *((lead, row[..., None]) for lead, row in rows.items())]
        count = np.zeros(self.leads, dtype=np.int64)
        for first, block in blocks:
            count[first : first + block.shape[-1]] += block.shape[-2]
        whole = np.full((*self.shape, count.max(initial=0), self.leads), np.nan)
        count[:] = 0
        for first, block in blocks:
            filled = count[first : first + block.shape[-1]]  # how many initial times each lead has already
            for offset in np.unique(filled):
                matching = filled == offset
                whole[..., offset : offset + block.shape[-2], first + np.flatnonzero(matching)] = block[..., matching]
            filled += block.shape[-2]
        return whole
