"""Steps made of others: cascades by lead or interval, several trainings as one ensemble, cases stepped one by one.

Members of several trainings differ by the noise that a network draws and by the network itself, which stands for what
is not known of the model (the four seeds of FGN, Alet et al. 2025, arXiv 2506.10772; Lakshminarayanan et al. 2017,
arXiv 1612.01474). Products of matrices may round differently for other numbers of rows; a case that is stepped by
itself has the same bits in any company.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from emulators.state import Origin, State
from emulators.world import hours_of

if TYPE_CHECKING:
    from emulators.steps.step import Step


class SeedEnsemble(nn.Module):
    """Step members with several networks of one kind: the first share of them with the first, and so on.

    steps: alike but for their weights, of any kind: noise of the network, of a sampler or of latent fields is drawn
    from the generators of the members. The constraints of the first are applied to all. starts_differ: whether members
    begin apart. Raises ValueError for fewer members than steps, and for members of one step that nothing tells apart.
    """

    def __init__(self, steps: Sequence[Step], members: int, *, starts_differ: bool = False) -> None:
        super().__init__()
        count = len(steps)
        if members < count:
            raise ValueError(f"{count} runs make an ensemble of at least {count} members; got members={members}.")
        silent = [step for step in steps if not step.is_random]
        if silent and members > count and not starts_differ:
            name = type(silent[0].network).__name__
            raise ValueError(f"{name} draws no noise: {count} runs make {count} members; got members={members}.")
        self.first, bare = steps[0], []
        for step in steps:
            bare.append(copy.copy(step))
            bare[-1].constraints = {}  # applied to all members at once
        self.steps = nn.ModuleList(bare)
        self.numbers = range(members)
        self.shares = [range(*pair) for pair in pairwise(number * members // count for number in range(count + 1))]

    def of(self, numbers: range) -> SeedEnsemble:
        """Return the same for some of the members, of which the States that it steps are."""
        part = copy.copy(self)
        part.numbers = numbers
        return part

    @property
    def constraints(self) -> Mapping[str, Any]:
        """Constraints of the first step."""
        return self.first.constraints

    @property
    def observer(self) -> Callable[[str, State, State], None] | None:
        """Called with the name, input and output of every constraint that is applied."""
        return self.first.observer

    @observer.setter
    def observer(self, observer: Callable[[str, State, State], None] | None) -> None:
        self.first.observer = observer

    def constrained(self, before: State, after: State, forcing: State) -> State:
        """Apply the constraints."""
        return self.first.constrained(before, after, forcing)

    def refuse_intervals(self, intervals: Collection[int]) -> None:
        """Raise ValueError where a step does not know one of these, in timesteps."""
        self.first.refuse_intervals(intervals)

    def forward(
        self, history: tuple[State, ...], forcing: State, *, generator: Sequence[torch.Generator] = ()
    ) -> State:
        """Return the State of all members, (member, batch, ...). generator: one for each case, members first."""
        last = history[-1].select(self.first.world.prognostic.names)
        batch = last.lead[1]
        states = []
        steps: Any = self.steps
        for step, whole in zip(steps, self.shares, strict=True):
            share = slice(*(min(max(n - self.numbers.start, 0), len(self.numbers)) for n in (whole.start, whole.stop)))
            if share.start == share.stop:
                continue
            own = generator[share.start * batch : share.stop * batch]
            share_history = tuple(_members(state, share) for state in history)
            states.append(step(share_history, forcing, **({"generator": own} if own and step.is_random else {})))
        values = torch.cat([state.values for state in states])
        after = State(values, self.first.world.predicted, forcing.time, last.rank)
        carried = tuple(
            replace(parts[0], values=torch.cat([part.values for part in parts]))
            for parts in zip(*(state.carried for state in states), strict=True)
        )
        return replace(self.constrained(last, after, forcing), carried=carried)


def _members(state: State, share: slice) -> State:
    """Return some members of a State (member, batch, ...)."""
    origin = state.origin
    if origin is not None:
        origin = Origin(_members(origin.start, share), _members(origin.before, share), origin.forcing)
    carried = tuple(_members(part, share) for part in state.carried)
    return replace(state, values=state.values[share], origin=origin, carried=carried)


class CasesApart(nn.Module):
    """Step each case by itself, so that its bits do not depend on the members and initial times beside it.

    What the constraints of `step` change is observed for all cases together.
    """

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step
        self.observer: Callable[[str, State, State], None] | None = None

    @property
    def constraints(self) -> Mapping[str, Any]:
        """Constraints of the step."""
        return self.step.constraints

    @property
    def is_random(self) -> bool:
        """Whether the step draws from a generator."""
        return self.step.is_random

    def refuse_intervals(self, intervals: Collection[int]) -> None:
        """Raise ValueError where the step does not know one of these, in timesteps."""
        self.step.refuse_intervals(intervals)

    def constrained(self, before: State, after: State, forcing: State) -> State:
        """Apply the constraints, case by case."""
        return self._apart(
            before, forcing, lambda case, force, _: self.step.constrained(case(before), case(after), force)
        )

    def forward(
        self, history: tuple[State, ...], forcing: State, *, generator: Sequence[torch.Generator] = ()
    ) -> State:
        """Return the State of all cases, with the lead of `history`. generator: one for each case, members first."""

        def stepped(case: Callable[[State], State], force: State, number: int) -> State:
            drawn = {"generator": [generator[number]]} if generator else {}
            return self.step(tuple(case(state) for state in history), force, **drawn)

        return self._apart(history[-1], forcing, stepped)

    def _apart(
        self, before: State, forcing: State, function: Callable[[Callable[[State], State], State, int], State]
    ) -> State:
        """What `function` makes of each case, as one State of the lead shape of `before`."""
        cases, seen = list[State](), dict[str, list[tuple[State, State]]]()
        if self.observer is not None:
            self.step.observer = lambda name, given, corrected: seen.setdefault(name, []).append((given, corrected))
        try:
            for number, index in enumerate(np.ndindex(*before.lead)):
                cases.append(function(partial(_case, index=index), _case(forcing, index), number))
        finally:
            self.step.observer = None
        last = before.select(self.step.world.prognostic.names)
        origin = Origin(last.start, replace(last, origin=None), forcing)

        def together(states: Sequence[State]) -> State:
            values = torch.cat([state.values for state in states])
            values = values.reshape(*before.lead, *values.shape[1:])
            first = states[0]
            carried = tuple(
                replace(together(parts), time=_batched(parts, before), origin=None)
                for parts in zip(*(state.carried for state in states), strict=True)
            )
            return State(values, first.variables, forcing.time, first.rank, origin, carried)

        for name, pairs in seen.items():
            assert self.observer is not None
            self.observer(name, *(together(states) for states in zip(*pairs, strict=True)))
        return together(cases)


def _case(state: State, index: tuple[int, ...]) -> State:
    """Return one case of a State as a batch of one. index: of the case, which ends with its number in the batch."""
    origin, place = state.origin, index[len(index) - len(state.lead) :]
    if origin is not None:
        origin = Origin(*(_case(part, index) for part in (origin.start, origin.before, origin.forcing)))
    carried = tuple(_case(part, index) for part in state.carried)
    return replace(
        state, values=state.values[place][None], time=state.time[index[-1:]][None], origin=origin, carried=carried
    )


def _batched(cases: Sequence[State], before: State) -> np.ndarray:
    """The times of cases, members first, as those of the batch of `before`."""
    return np.concatenate([case.time for case in cases[: before.lead[-1]]])


class StepCascade(nn.Module):
    """Combine several steps into one, chosen `by` lead time or `by` interval.

    steps: by lead in hours, each used from its lead on; or by interval in hours, each used for its own.
    """

    def __init__(self, by: str, steps: Mapping[float, nn.Module]) -> None:
        super().__init__()
        if by not in ("lead", "interval") or not steps:
            raise ValueError(f"Expected steps by 'lead' or by 'interval'; got {len(steps)} by '{by}'.")
        self.by, self.hours = by, sorted(steps)
        self.steps = nn.ModuleList(steps[hours] for hours in self.hours)
        if by == "lead" and self.hours[0] != 0:
            raise ValueError(f"A cascade needs a step from the start on; the first begins at {self.hours[0]:g} hours.")

    @property
    def constraints(self) -> Mapping[str, Any]:
        """Constraints of the first step."""
        first: Any = self.steps[0]
        return first.constraints

    def constrained(self, before: State, after: State, forcing: State) -> State:
        """Apply the constraints of the first step."""
        first: Any = self.steps[0]
        return first.constrained(before, after, forcing)

    def refuse_intervals(self, intervals: Collection[int]) -> None:
        """Raise ValueError where a step does not know one of these, in timesteps, or there is no step for one."""
        steps: list[Any] = list(self.steps)
        if self.by == "lead":
            for step in steps:
                step.refuse_intervals(intervals)
            return
        for interval in sorted(set(intervals)):
            hours = interval * hours_of(steps[0].world.timestep)
            if hours not in self.hours:
                raise self._no_step(hours)
            selected = steps[self.hours.index(hours)]
            selected.refuse_intervals([round(hours / hours_of(selected.world.timestep))])

    def _no_step(self, hours: float) -> ValueError:
        available = ", ".join(f"{h:g}" for h in self.hours)
        return ValueError(f"No step for an interval of {hours:g} hours, only for {available}.")

    @property
    def observer(self) -> Callable[[str, State, State], None] | None:
        """Called with the name, input and output of every constraint that the chosen step applies."""
        first: Any = self.steps[0]
        return first.observer

    @observer.setter
    def observer(self, observer: Callable[[str, State, State], None] | None) -> None:
        steps: Iterable[Any] = self.steps
        for step in steps:
            step.observer = observer

    def forward(self, history: tuple[State, ...], forcing: State) -> State:
        """Apply the step that the lead or interval chooses; ValueError where a batch needs several."""
        since = history[-1].start.time if self.by == "lead" else history[-1].time
        spans = np.unique((forcing.time - since) / np.timedelta64(1, "h"))
        if spans.size != 1:
            raise ValueError(
                f"All cases of a batch must share one {self.by}; got {', '.join(f'{h:g}' for h in spans)} h."
            )
        hours = float(spans[0])
        if self.by == "interval":
            if hours not in self.hours:
                raise self._no_step(hours)
            return self.steps[self.hours.index(hours)](history, forcing)
        return self.steps[sum(first < hours for first in self.hours) - 1](history, forcing)
