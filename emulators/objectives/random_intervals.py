"""Training on intervals drawn at random: one network for several timesteps, conditioned on the interval.

    L = (1 / n) sum_i loss(x_i, truth(i k)),   x_i = step(x_i-1) over k timesteps,   k drawn from `intervals`

One interval for a batch, as its loss is one number; drawn from torch's own generator, which a training seeds by
optimiser step.
Stormer's randomised dynamics (Nguyen et al. 2024, arXiv 2312.03876); with a single interval, a network for that alone,
as each of Pangu-Weather's (Bi et al. 2023, doi 10.1038/s41586-023-06185-3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from emulators.interfaces import Loss, Objective
from emulators.rollout import rollout
from emulators.state import Window
from emulators.world import World


class RandomIntervals(Objective):
    """Train on steps of an interval that is drawn for each batch.

    intervals: in timesteps of the World. rollout: number of successive steps.
    """

    def __init__(self, world: World, *, intervals: Sequence[int] = (1, 2, 4), rollout: int = 1) -> None:
        if not intervals or min(intervals) < 1 or rollout < 1:
            raise ValueError(
                "objective.intervals must be lengths of at least 1 timestep and objective.rollout at least 1; "
                f"got {list(intervals)} and {rollout}."
            )
        if world.history > 1 and max(intervals) > 1:
            raise ValueError(
                f"Intervals of several timesteps start from one known state; got history={world.history}: take 1."
            )
        self.intervals, self.rollout = list(intervals), rollout

    @property
    def longest(self) -> int:
        """Timesteps that a window must hold."""
        return max(self.intervals) * self.rollout

    def length(self, step: int) -> int:
        """The same at every optimiser step."""
        return self.longest

    def begin(self, step: Any) -> None:
        """Raise ValueError where the step does not know an interval."""
        step.refuse_intervals(self.intervals)

    def __call__(
        self, step: torch.nn.Module, window: Window, losses: Mapping[str, Loss]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and its detached parts by loss and lead in timesteps."""
        interval = self.intervals[int(torch.randint(len(self.intervals), ()))]
        leads = [interval * i for i in range(1, self.rollout + 1)]
        total, parts = torch.zeros((), device=window.history[-1].values.device), {}
        states = rollout(step, window.history, [window.forcing[lead - 1] for lead in leads])
        for lead, state in zip(leads, states, strict=True):
            for name, loss in losses.items():
                value = loss(state, window.target[lead - 1]).mean()
                parts[f"{name}_{lead}"] = value.detach()
                total = total + value / len(leads)
        return total, parts
