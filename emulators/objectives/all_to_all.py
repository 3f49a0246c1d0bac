"""All-to-all training: from every state of a window to every later one, in one step each.

    L = mean over pairs i < j of loss(step(x_i, t_j - t_i), x_j),     i, j = 0, ..., n

A stretch of n timesteps gives n (n + 1) / 2 examples where steps of one length would give n. Poseidon (Herde et al.
2024, arXiv 2405.19101). If not all pairs are taken, they are drawn from torch's own generator, which a training seeds
by optimiser step.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from emulators.interfaces import Loss, Objective
from emulators.state import Window
from emulators.world import World


class AllToAll(Objective):
    """Train on every pair of an earlier and a later state of a window.

    stretch: timesteps of a window, n above. pairs: number of pairs drawn for each batch; None: all.
    """

    def __init__(self, world: World, *, stretch: int = 4, pairs: int | None = None) -> None:
        self.all = list(combinations(range(stretch + 1), 2))
        if stretch < 1 or (pairs is not None and not 1 <= pairs <= len(self.all)):
            raise ValueError(
                "objective.stretch must be at least 1 timestep, and objective.pairs null or from 1 to "
                f"stretch (stretch + 1) / 2; got {stretch} and {pairs}."
            )
        if world.history > 1:
            raise ValueError(
                f"Steps over several timesteps start from one known state; got history={world.history}: take 1."
            )
        self.stretch, self.pairs, self.intervals = stretch, pairs, range(1, stretch + 1)

    @property
    def longest(self) -> int:
        """Timesteps that a window must hold."""
        return self.stretch

    def length(self, step: int) -> int:
        """The same at every optimiser step."""
        return self.stretch

    def begin(self, step: Any) -> None:
        """Raise ValueError where the step does not know an interval."""
        step.refuse_intervals(self.intervals)

    def __call__(
        self, step: torch.nn.Module, window: Window, losses: Mapping[str, Loss]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and its detached parts by loss and interval in timesteps."""
        states = [window.history[-1], *window.target]
        pairs = self.all
        if self.pairs is not None:
            pairs = [self.all[k] for k in sorted(torch.randperm(len(self.all))[: self.pairs].tolist())]
        shares: dict[str, list[Tensor]] = {}
        for start, end in pairs:
            state = step((states[start],), window.forcing[end - 1])
            for name, loss in losses.items():
                shares.setdefault(f"{name}_{end - start}", []).append(loss(state, states[end]).mean())
        total = torch.stack([value for values in shares.values() for value in values]).sum() / len(pairs)
        return total, {name: torch.stack(values).mean().detach() for name, values in shares.items()}
