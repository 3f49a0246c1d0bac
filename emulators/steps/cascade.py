"""A cascade: several steps as one, chosen by lead time or by interval."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
from torch import nn

from emulators.state import State
from emulators.world import hours_of


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
