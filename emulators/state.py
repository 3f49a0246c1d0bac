"""State: the fields at one time, and Window: the consecutive States of one training example."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from emulators.variables import VariableSet


@dataclass(frozen=True, eq=False)
class State:
    """Hold the fields at one time, for one case, a batch of cases, or an ensemble of batches; SI units.

    values: (*lead, channel, *grid.shape); lead is (), (batch,) or (member, batch).
    variables: the variables of the channels, in order.
    time: valid time, datetime64[s], shape () or (batch,).
    rank: number of grid dimensions (2 on a latitude-longitude grid, 1 on a set of cells).
    origin: for a State that a step made, the States that it was made from; None for data.
    carried: what a step of several components needs beside it for its next, of the same lead, on grids of their own.

    Raises ValueError if the number of channels is not that of `variables`.
    """

    values: Tensor
    variables: VariableSet
    time: np.ndarray
    rank: int = 2
    origin: Origin | None = None
    carried: tuple[State, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "time", np.asarray(self.time, dtype="datetime64[s]"))
        if self.values.shape[self.channel_axis] != self.variables.size:
            raise ValueError(
                f"Expected {self.variables.size} channels on axis {self.channel_axis} for variables "
                f"{', '.join(self.variables.names)}; got a tensor of shape {tuple(self.values.shape)}."
            )

    @property
    def channel_axis(self) -> int:
        """The axis of the channels, counted from the end."""
        return -1 - self.rank

    @property
    def lead(self) -> tuple[int, ...]:
        """The shape before the channel axis."""
        return tuple(self.values.shape[: self.channel_axis])

    @property
    def start(self) -> State:
        """The State at the start of the rollout that this one belongs to; itself for data."""
        return self if self.origin is None else self.origin.start

    @cached_property
    def _parts(self) -> dict[str, Tensor]:
        """The channels of each variable, all from one split, so that the backward pass assembles a single gradient."""
        sizes = [variable.size for variable in self.variables]
        fields = self.values.split(sizes, self.channel_axis) if sizes else ()
        return dict(zip(self.variables.names, fields, strict=True))

    def __getitem__(self, name: str) -> Tensor:
        """Return a view of variable `name`: (*lead, level, *grid), or (*lead, *grid) for a single-level field."""
        self.variables.slice(name)
        field = self._parts[name]
        return field if self.variables.variable(name).levels else field.squeeze(self.channel_axis)

    def with_(self, **fields: Tensor) -> State:
        """Return a State in which the named variables are replaced; shapes as `state[name]` gives them."""
        for name in fields:
            self.variables.slice(name)
        tensors = []
        for variable in self.variables:
            field = fields.get(variable.name, None)
            if field is None:
                field = self._parts[variable.name]
            elif not variable.levels:
                field = field.unsqueeze(self.channel_axis)
            tensors.append(field)
        return replace(self, values=torch.cat(tensors, dim=self.channel_axis))

    def select(self, names: Iterable[str]) -> State:
        """Return a State of the named variables only, in the order of `names`."""
        variables = self.variables.select(names)
        if variables == self.variables:
            return self
        index = [i for v in variables for i in range(*self.variables.slice(v.name).indices(self.variables.size))]
        picked = torch.as_tensor(index, device=self.values.device)
        return replace(self, values=self.values.index_select(self.channel_axis, picked), variables=variables)

    def to(self, *args, **kwargs) -> State:
        """Return the State on another device or in another floating-point type (arguments of `Tensor.to`)."""
        origin = None if self.origin is None else self.origin.to(*args, **kwargs)
        carried = tuple(state.to(*args, **kwargs) for state in self.carried)
        return replace(self, values=self.values.to(*args, **kwargs), origin=origin, carried=carried)

    def detach(self) -> State:
        """Return the State cut off from what computed it: gradients stop here."""
        origin = None if self.origin is None else self.origin.detach()
        carried = tuple(state.detach() for state in self.carried)
        return replace(self, values=self.values.detach(), origin=origin, carried=carried)


@dataclass(frozen=True, eq=False)
class Origin:
    """Hold the States that a State was made from; budgets compare it with these.

    start: the State at the start of the rollout. before: the State one timestep earlier. forcing: that of the timestep.
    None of these has an origin of its own, so that memory does not grow with the rollout.
    """

    start: State
    before: State
    forcing: State

    def to(self, *args, **kwargs) -> Origin:
        """Return the origin on another device or in another floating-point type (arguments of `Tensor.to`)."""
        start = self.start.to(*args, **kwargs)
        before = start if self.before is self.start else self.before.to(*args, **kwargs)
        return Origin(start, before, self.forcing.to(*args, **kwargs))

    def detach(self) -> Origin:
        """Return the origin cut off from what computed it."""
        start = self.start.detach()
        before = start if self.before is self.start else self.before.detach()
        return Origin(start, before, self.forcing.detach())


@dataclass(frozen=True, eq=False)
class Window:
    """Hold a training example (or a batch of them): consecutive States, one timestep apart.

    history: the known States, oldest first. target: the States to forecast, prognostic and diagnostic variables.
    forcing: the forcing at the time of each target; as many as targets, perhaps without channels.
    """

    history: tuple[State, ...]
    target: tuple[State, ...]
    forcing: tuple[State, ...]

    def to(self, *args, **kwargs) -> Window:
        """Return the Window on another device or in another floating-point type (arguments of `Tensor.to`)."""
        return Window(
            *(tuple(s.to(*args, **kwargs) for s in states) for states in (self.history, self.target, self.forcing))
        )
