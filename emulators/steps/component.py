"""One component of a coupled Step: a trained Step with a clock and a grid of its own, and what it is given."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emulators.state import Origin, State
from emulators.statistics.accumulation import Accumulation
from emulators.steps.exchange import LEAST, CellMeans, Fields, part
from emulators.steps.step import Step
from emulators.variables import VariableSet
from emulators.world import World, hours_of


class Component(nn.Module):
    """Hold a trained Step: how often it is due, what it is given, and the ways between its grid and the World's.

    every: timesteps of the World in one of its own. carries: the number of States that the coupled State carries for
    it: those that it knows, but for the newest where it has the grid of the World, and what it was given since its last
    step. exchange, mask: as of CoupledStep, of this component.
    """

    adds: Tensor
    divisor: Tensor

    def __init__(
        self, name: str, step: Step, world: World, exchange: Mapping[str, Any] | None = None, mask: str | None = None
    ) -> None:
        super().__init__()
        if not isinstance(step, Step):
            raise ValueError(f"step=coupled takes no '{name}'; components are named in parts, such as parts.ocean=...")
        self.name, self.step, self.world = name, step, world
        self.every = timesteps_within(name, step.world, world)
        self.exchange = exchanges(name, step.world, world, exchange or {})
        self.given = VariableSet(tuple(v for v in step.world.forcing if v.name in self.exchange))
        self.gives = VariableSet(tuple(v for v in step.world.predicted if v.name in world.predicted))
        self.has_own_grid = not step.world.grid.same_as(world.grid)
        self.to_world, self.to_component = ways(name, step.world, world, mask)
        self.older_count = step.world.history - (not self.has_own_grid)
        self.accumulates = self.every > 1 and bool(self.given.size)
        self.carries = self.older_count + self.accumulates
        adds, divisor = self.accumulated(per_cell(name, exchange or {}, mask))
        self.register_buffer("adds", adds, persistent=False)
        self.register_buffer("divisor", divisor, persistent=False)

    def accumulated(self, whole: Collection[str]) -> tuple[Tensor, Tensor]:
        """Return whether the channels that are given add up, 0 or 1, and what their sums are divided by, in float64.

        whole: forcings per area of the whole cell, which are divided by the component's share of it too: (channel,
        *grid of the World).
        """
        kinds = [(self.exchange[v.name].over, v.name in whole) for v in self.given for _ in v.channels]
        share = self.to_world.share.where(self.to_world.share > LEAST, torch.inf)
        divisor = share.new_ones(len(kinds), *share.shape)
        for row, (over, is_whole) in zip(divisor, kinds, strict=True):
            row.mul_((share if is_whole else 1.0) * (self.every if over == "mean" else 1))
        adds = share.new_tensor([float(over != "last") for over, _ in kinds])
        return adds.reshape(-1, *[1] * share.ndim), divisor

    @property
    def is_trained(self) -> bool:
        """Whether some of its weights are not at rest."""
        return any(weight.requires_grad for weight in self.step.parameters())

    def first(self, history: tuple[State, ...]) -> list[State]:
        """Return what is carried into the first timestep, from the States known at the start."""
        newest = 0 if self.has_own_grid else 1
        back = range(self.step.world.history - 1, newest - 1, -1)
        states = [self.on_its_grid(history[-1 - number * self.every]) for number in back]
        return [*states, *([self.nothing_given(history[-1])] if self.accumulates else [])]

    def nothing_given(self, last: State) -> State:
        """Return sums of what is given before anything is, on the grid of the World."""
        zeros = last.values.new_zeros(*last.lead, self.given.size, *self.world.grid.shape, dtype=torch.float64)
        return State(zeros, self.given, last.time, last.rank)

    def on_its_grid(self, state: State) -> State:
        """Return what a State of the World tells of the component's prognostic variables, on its own grid."""
        subset = state.select(self.step.world.prognostic.names)
        if self.has_own_grid:
            values = self.to_component.means(subset.values, self.to_component.totals(subset.values)).to(
                subset.values.dtype
            )
            return State(values, subset.variables, subset.time, len(self.step.world.grid.shape))
        return replace(subset, carried=(), origin=None)

    def advance(
        self,
        carried: list[State],
        fields: Fields,
        last: State,
        forcing: State,
        passed: int,
        drawn: Mapping[str, Any],
    ) -> list[State]:
        """Take in what is given and, where the clock is due, step: replaces what it predicts in `fields`.

        carried: States of this component. fields: of the World, those predicted before it in this timestep included.
        last, forcing: of the coupled Step, `passed` timesteps after the start. drawn: the generator, if there is one.
        Returns what is carried on.
        """
        older, total = carried[: self.older_count], self._given(fields, last)
        if self.accumulates and passed % self.every:
            total = total + self.adds * carried[-1].values
        sums = [] if not self.accumulates else [State(total, self.given, forcing.time, last.rank)]
        if (passed + 1) % self.every:
            return [*older, *sums]
        history = self._history(older, fields, last, forcing)
        after = self.step(tuple(history), self._forcing(total, last, forcing), **(drawn if self.step.is_random else {}))
        for variable in self.gives:
            predicted = part(after.values, after.variables, variable.name, after.rank)
            held = fields.by_name.get(variable.name)
            otherwise = predicted.new_zeros(()) if held is None else held
            fields.by_name[variable.name] = self.to_world.means(predicted, otherwise).to(last.values.dtype)
        next_states = (
            [*history[1:], after.select(self.step.world.prognostic.names)] if self.has_own_grid else history[1:]
        )
        return [*(replace(state, origin=None, carried=()) for state in next_states), *sums]

    def _given(self, fields: Fields, last: State) -> Tensor:
        """What is given at this timestep, (*lead, channel, *grid of the World), float64."""
        values = [fields.total(self.exchange[name].terms) for name in self.given.names]
        return torch.cat(values, dim=fields.axis) if values else self.nothing_given(last).values

    def _history(self, older: list[State], fields: Fields, last: State, forcing: State) -> list[State]:
        """The States that the Step reads, the newest with the start of the rollout, at its own times."""
        step_world, start = self.step.world, last.start
        if self.has_own_grid:
            states = older
            start = states[-1] if last.origin is None else self.on_its_grid(start)
        else:
            names = step_world.prognostic.names
            values = torch.cat([fields.by_name[name] for name in names], dim=last.channel_axis)
            states = [*older, State(values, step_world.prognostic, step_world.after(forcing.time, -1), last.rank)]
        began = np.array_equal(states[-1].time, start.time)
        origin = None if began else Origin(replace(start, carried=()), replace(start, carried=()), forcing)
        return [*states[:-1], replace(states[-1], origin=origin)]

    def _forcing(self, total: Tensor, last: State, forcing: State) -> State:
        """What forces the Step at its target, on its own grid."""
        step_world = self.step.world
        rank, parts = len(step_world.grid.shape), []
        exchanged = self.to_component.totals(total / self.divisor)
        for variable in step_world.forcing:
            if variable.name in self.exchange:
                parts.append(part(exchanged, self.given, variable.name, rank))
            else:
                values = forcing.select([variable.name]).values
                parts.append(self.to_component.totals(values.expand(*last.lead, *values.shape[forcing.channel_axis :])))
        empty = last.values.new_zeros(*last.lead, 0, *step_world.grid.shape)
        values = torch.cat(parts, dim=-1 - rank).to(last.values.dtype) if parts else empty
        return State(values, step_world.forcing, forcing.time, rank)


def timesteps_within(name: str, step_world: World, world: World) -> int:
    """Return the timesteps of `world` in one of a component's; ValueError where they are no whole number."""
    if step_world.timestep == world.timestep:
        return 1
    count = hours_of(step_world.timestep) / hours_of(world.timestep)
    is_months = "M" in (np.datetime_data(step_world.timestep)[0], np.datetime_data(world.timestep)[0])
    if is_months or count < 1 or count != int(count):
        raise ValueError(
            f"Expected the timestep of {name} to be a whole number of those of the data; got {step_world.timestep} and "
            f"{world.timestep}. The data have the timestep of the fastest component."
        )
    return int(count)


def exchanges(name: str, step_world: World, world: World, declared: Mapping[str, Any]) -> dict[str, Accumulation]:
    """Return how each forcing that is not prescribed is made; ValueError for one that the component does not have."""
    for forcing in declared:
        if forcing not in step_world.forcing:
            names = ", ".join(step_world.forcing.names) or "none"
            raise ValueError(f"step.exchange.{name}: '{forcing}' is no forcing of {name}; these are {names}.")
    same = {v.name: Accumulation("mean", {v.name: 1.0}) for v in step_world.forcing if v.name in world.predicted}
    key = f"step.exchange.{name}"
    terms = {
        forcing: {word: term for word, term in given.items() if word != "per"} if isinstance(given, Mapping) else given
        for forcing, given in declared.items()
    }
    return same | {forcing: Accumulation.declared(f"{key}.{forcing}", given) for forcing, given in terms.items()}


def per_cell(name: str, declared: Mapping[str, Any], mask: str | None) -> set[str]:
    """Return the forcings per area of the whole cell; ValueError for another word, or without a mask."""
    words = {forcing: given.get("per", "part") for forcing, given in declared.items() if isinstance(given, Mapping)}
    for forcing, word in words.items():
        if word not in ("part", "cell") or (word == "cell" and mask is None):
            without = (
                f", and no step.masks.{name}, which tells the part of a cell that is its own" if word == "cell" else ""
            )
            raise ValueError(f"step.exchange.{name}.{forcing}.per: expected part or cell; got {word}{without}.")
    return {forcing for forcing, word in words.items() if word == "cell"}


def ways(name: str, step_world: World, world: World, mask: str | None) -> tuple[CellMeans, CellMeans]:
    """Return the ways from the grid of a component to that of the World, and back.

    mask: its static variable that is 1 where its fields are meant; None: everywhere. ValueError where it is no static
    variable, or the component reaches beyond the World.
    """
    inside = None
    if mask is not None:
        if mask not in step_world.static or step_world.static_fields is None:
            names = ", ".join(step_world.static.names) or "none"
            raise ValueError(f"step.masks.{name}: '{mask}' is no static variable of {name}; these are {names}.")
        inside = np.asarray(step_world.static_fields[step_world.static.slice(mask).start], dtype=np.float64)
    here = CellMeans(step_world.grid, world.grid, inside)
    covered = CellMeans(world.grid, step_world.grid)
    if float(covered.share.min()) < 1.0 - LEAST:
        raise ValueError(f"The grid of {name}, {step_world.grid}, reaches beyond that of the data, {world.grid}.")
    return here, covered if mask is None else CellMeans(world.grid, step_world.grid, here.share.numpy())
