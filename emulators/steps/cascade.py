"""Chain several networks by lead time or by interval into one step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from torch import nn

from emulators.state import State


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
        found = np.unique((forcing.time - since) / np.timedelta64(1, "h"))
        if found.size != 1:
            raise ValueError(
                f"All cases of a batch must share one {self.by}; got {', '.join(f'{h:g}' for h in found)} h."
            )
        hours = float(found[0])
        if self.by == "interval":
            if hours not in self.hours:
                raise ValueError(
                    f"No step for an interval of {hours:g} hours, only for {', '.join(f'{h:g}' for h in self.hours)}."
                )
            return self.steps[self.hours.index(hours)](history, forcing)
        return self.steps[sum(first < hours for first in self.hours) - 1](history, forcing)
