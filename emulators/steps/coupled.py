"""A Step made of trained Steps: atmosphere, ocean, ice or land, each on its own grid and clock, that force each other.

The World of the coupled Step has the shortest of the clocks. At each timestep every component whose clock is due makes
a step, the fastest first and otherwise in the order given; what it predicts is held until its next. With an ocean over
n timesteps, from a start at 0,

    a(k)  = atmosphere(a(k - 1); o held),    k = 1, ..., n
    o(n)  = ocean(o(0); mean of a(1), ..., a(n)),

the order of SamudrACE (Duncan et al. 2025, arXiv 2509.12490; n = 20): the mean is over the n new states, without the
first. A component on the clock of the World is due at every timestep (n = 1). Components are trained apart, and then on
forecasts of the coupled Step: first those that `Tuning.trainable` names under others at rest, then all.

A slab ocean is the constraint `slab_ocean` of the coupled Step: it stands inside the timestep, as in ACE2-SOM (Clark et
al. 2024, arXiv 2412.04418).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from emulators.interfaces import Constraint, optional
from emulators.layers.sample_draws import Generators
from emulators.state import State
from emulators.steps.component import Component
from emulators.steps.exchange import Fields, part, size_of
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World, timesteps_between

NONE = "step=coupled needs trained runs: parts.atmosphere=outputs/train/<name> parts.ocean=outputs/train/<name>."


class CoupledStep(Step):
    """Step several trained Steps that exchange fields; a State carries what they need for the next step.

    network: without weights; model=persistence. components: trained Steps by name, at rest until `Tuning.trainable`
    names them; gradients go back through what they exchange. exchange: {component: {its forcing: {mean | sum | last: a
    variable or channel of the World, or {name: factor}}}}, over the timestep of the component, with `per: cell` beside
    them for fluxes per area of the whole cell, all of which go to the part of it that is the component's; a forcing
    that the World predicts under the same name needs none, and is a mean; other forcings are those of the World at the
    component's next time. masks: {component: its static variable that is 1 where its fields are meant}. A prognostic
    variable that no component predicts must be changed by a constraint. Raises ValueError where the components do not
    fit the World or each other.
    """

    def __init__(
        self,
        world: World,
        network: nn.Module,
        constraints: Mapping[str, Constraint] | None = None,
        *,
        exchange: Mapping[str, Mapping[str, Any]] | None = None,
        masks: Mapping[str, str] | None = None,
        **components: Step,
    ) -> None:
        super().__init__(world, network, constraints, truncation=None)
        if any(True for _ in network.parameters()):
            raise ValueError("step=coupled has no weights of its own; take model=persistence.")
        if not components:
            raise ValueError(NONE)
        for name in (*(exchange or {}), *(masks or {})):
            if name not in components:
                raise ValueError(
                    f"step.exchange and step.masks: no component '{name}'; these are {', '.join(components)}."
                )
        by_clock = [
            Component(
                name, step.requires_grad_(False).eval(), world, (exchange or {}).get(name), (masks or {}).get(name)
            )
            for name, step in components.items()
        ]
        by_clock.sort(key=lambda component: component.every)
        self.components = nn.ModuleDict({component.name: component for component in by_clock})
        if not any(isinstance(step, StandIn) for step in components.values()):
            refuse_misfits(world, by_clock, self.constraints)
        needed = max((component.step.world.history - 1) * component.every + 1 for component in by_clock)
        if world.history < needed:
            raise ValueError(
                f"Expected history={needed} or more, for the states that components know; got {world.history}."
            )

    @classmethod
    def stand_in(cls, world: World, options: Mapping[str, Any]) -> Step:
        """A Step that predicts nothing, with all forcings that the exchange names."""
        given = {str(name) for forcings in (options.get("exchange") or {}).values() for name in forcings}
        forcing = VariableSet(tuple(Variable(name) for name in sorted(given)))
        scales = {name: Scale(0.0, 1.0, 1.0) for name in given}
        return StandIn(World(world.grid, VariableSet(), world.timestep, forcing=forcing, scales=scales), nn.Identity())

    @classmethod
    def unlike_part(cls, held: Step, world: World) -> list[str]:
        """Nothing: a component may live on another World; what must fit is compared when the Step is made."""
        return []

    @property
    def is_random(self) -> bool:
        """Whether a component draws from a generator."""
        return any(component.step.is_random for component in self._ordered)

    @property
    def _ordered(self) -> list[Component]:
        components: Any = self.components
        return [*components.values()]

    def train(self, mode: bool = True) -> CoupledStep:
        """Set the mode; components at rest stay in that of forecasts."""
        super().train(mode)
        for component in self._ordered:
            component.train(mode and component.is_trained)
        return self

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Those of the components."""
        return tuple(network for component in self._ordered for network in component.step.networks)

    @property
    def shortest_rollout(self) -> int:
        """Until the slowest of the trained components has stepped."""
        return max((component.every for component in self._ordered if component.is_trained), default=1)

    def comparable(self, state: State, target: State) -> State:
        """`state`, with `target` in the variables that are held from an earlier timestep: they count at their own."""
        passed = timesteps_between(self.world.timestep, state.start.time, state.time)
        names = [
            variable.name for component in self._ordered if passed % component.every for variable in component.gives
        ]
        return state.with_(**{name: target[name].expand_as(state[name]) for name in names}) if names else state

    def refuse_intervals(self, intervals: Collection[int]) -> None:
        """Raise ValueError for intervals of several timesteps, as components keep their clocks."""
        if set(intervals) != {1}:
            raise ValueError(f"Coupled components step timestep by timestep; got intervals {sorted(set(intervals))}.")

    def forward(
        self, history: tuple[State, ...], forcing: State, *, generator: Generators = None, **conditioning: Any
    ) -> State:
        """The State of `world.predicted` at forcing.time, with what the components carry on; arguments as of Step."""
        if conditioning:
            raise ValueError(f"Coupled components take no {', '.join(conditioning)}.")
        last = history[-1]
        passed = 0 if last.origin is None else timesteps_between(self.world.timestep, last.start.time, last.time)
        carried = [*self._carried(history, passed)]
        fields = self._fields(last, forcing)
        drawn = {} if generator is None else {"generator": generator}
        carried_on: list[State] = []
        for component in self._ordered:
            component_states = [carried.pop(0) for _ in range(component.carries)]
            carried_on += component.advance(component_states, fields, last, forcing, passed, drawn)
        values = torch.cat([fields.by_name[name] for name in self.world.predicted.names], dim=last.channel_axis)
        after = State(values, self.world.predicted, forcing.time, last.rank)
        state = self.constrained(last.select(self.world.prognostic.names), after, forcing)
        return replace(state, carried=tuple(carried_on))

    def _carried(self, history: tuple[State, ...], passed: int) -> tuple[State, ...]:
        """What the components carry from the step before, or at the start what they make of the known States."""
        if not passed:
            return tuple(state for component in self._ordered for state in component.first(history))
        expected = sum(component.carries for component in self._ordered)
        if len(history[-1].carried) != expected:
            raise ValueError("A coupled step goes on from a State that it made itself; this one comes from elsewhere.")
        return history[-1].carried

    def _fields(self, last: State, forcing: State) -> Fields:
        """What components may read: the held fields, to be replaced by what they predict, and what is prescribed."""
        values = forcing.values.expand(*last.lead, *forcing.values.shape[forcing.channel_axis :])
        held = {name: part(last.values, last.variables, name, last.rank) for name in self.world.prognostic.names}
        prescribed = {name: part(values, forcing.variables, name, last.rank) for name in self.world.forcing.names}
        return Fields(self.world.available, prescribed | held, last.rank)


class StandIn(Step):
    """Stand for a trained component whose World is not known yet."""


def refuse_misfits(world: World, components: Sequence[Component], constraints: Mapping[str, Constraint]) -> None:
    """Raise ValueError where a variable of the World has no source or two, or a component lacks what it is to be given.

    components: in the order in which they step.
    """
    owners: dict[str, Component] = {}
    for component in components:
        for variable in component.gives:
            if variable.name in owners:
                both = f"{owners[variable.name].name} and {component.name}"
                raise ValueError(f"Both {both} predict {variable.name}; leave one of them out.")
            owners[variable.name] = component
        refuse_other_variables(world, component)
    changed = {
        name for constraint in constraints.values() for name in (optional(constraint, Constraint, "changes") or ())
    }
    for variable in world.predicted:
        is_changed = variable.name in world.prognostic and variable.name in changed
        if variable.name not in owners and not is_changed:
            raise ValueError(
                f"No component predicts {variable.name}, and no constraint such as slab_ocean changes it; name a run "
                "that does in parts, or leave it out of the variables, or make it a forcing."
            )
    for number, component in enumerate(components):
        later = {name for name, owner in owners.items() if owner in components[number:] and name in world.diagnostic}
        refuse_absent_forcings(world, component, later)


def refuse_other_variables(world: World, component: Component) -> None:
    """Raise ValueError where the World lacks what a component starts from, or takes it for something else."""
    step_world, name = component.step.world, component.name
    for variable in step_world.prognostic:
        if variable not in world.prognostic.variables:
            raise ValueError(
                f"{name} starts from {variable.name} ({', '.join(variable.channels)}; {variable.units}); list it among "
                "the prognostic variables, with the same levels and units."
            )
    for variable in (v for v in step_world.diagnostic if v.name in world.predicted):
        if variable != world.predicted.variable(variable.name):
            raise ValueError(f"{name} predicts {variable.name} in other units or on other levels than the data.")
        if component.every > 1:
            raise ValueError(
                f"{variable.name} is diagnosed by {name} every {component.every} timesteps only, and is not known "
                "before; leave it out of the variables."
            )


def refuse_absent_forcings(world: World, component: Component, unknown: Collection[str]) -> None:
    """Raise ValueError where a forcing of a component is told by nobody. unknown: diagnosed after it has stepped."""
    for forcing in component.step.world.forcing:
        key = f"step.exchange.{component.name}.{forcing.name}"
        if forcing.name not in component.exchange:
            if forcing not in world.forcing.variables:
                raise ValueError(
                    f"{component.name} is forced by {forcing.name}, which is neither predicted nor among the forcings; "
                    f"say what it is made of: {key}={{mean: <variable>}}."
                )
            continue
        for source in component.exchange[forcing.name].terms:
            try:
                size = size_of(world.available, source)
            except KeyError as error:
                raise ValueError(f"{key}: {error.args[0]}") from None
            if size != forcing.size:
                raise ValueError(f"{key}: {source} has {size} channels, the forcing {forcing.size}.")
            if source in unknown:
                raise ValueError(
                    f"{key}: {source} is diagnosed later in the timestep; name its component first in parts."
                )
