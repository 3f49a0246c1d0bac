"""ProbConserv: condition a prediction with a variance on the integral that it must have.

    mu* = mu - S G' (s^2 + G S G')^-1 (G mu - b)

for a Gaussian prediction of mean mu and covariance S, the row G that integrates, its value b and the variance s^2 of
the knowledge of b (Hansen et al. 2023, Learning Physical Models that Can Respect Conservation Laws, ICML, arXiv
2302.11002). S is diagonal: points of large variance take most of the change; the identity spreads it evenly. With
s = 0 the integral holds exactly. Here G is the mean over area and levels of a variable and b its value at the start of
the rollout.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from emulators.state import State
from emulators.world import World


class ProbConserv(nn.Module):
    """Condition variables on the integral that they had at the start of the rollout.

    variables: default, surface_pressure.
    variance: predicted or forcing variable that holds the variance of each number (of one of `variables`, the same
    levels), null for the identity. noise: standard deviation s of the integral, in the units of the variable; above 0
    the integral only comes nearer to b, and nearer still when applied again.
    """

    area: Tensor

    def __init__(
        self,
        world: World,
        *,
        variables: Sequence[str] | None = None,
        variance: str | None = None,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        names = ["surface_pressure"] if variables is None else list(variables)
        unknown = [name for name in names if name not in world.prognostic]
        if unknown or noise < 0:
            raise ValueError(
                f"probconserv takes prognostic variables, {', '.join(world.prognostic.names)}, and noise from 0; "
                f"got {', '.join(names)} and {noise:g}."
            )
        available = world.available
        if variance is not None and (
            variance not in available
            or any(available.variable(n).levels != available.variable(variance).levels for n in names)
        ):
            raise ValueError(f"probconserv needs its variance '{variance}' on the levels of {', '.join(names)}.")
        self.variance, self.noise = variance, noise
        self.changes = tuple(names)
        self.rests_on = (*names, *((variance,) if variance else ()))
        area = torch.as_tensor(world.grid.weights / world.grid.weights.sum(), dtype=torch.float64)
        self.register_buffer("area", area, persistent=False)

    def forward(self, before: State, after: State, forcing: State) -> State:
        changed = {}
        for name in self.changes:
            old = after[name]
            axes = old.ndim - after.rank - (1 if after.variables.variable(name).levels else 0)
            row = self.area.expand(*old.shape[axes:])
            row = (row / row.sum()).flatten()
            spread = None
            if self.variance is not None:
                variance = after[self.variance] if self.variance in after.variables else forcing[self.variance]
                spread = variance.double().expand_as(old).flatten(axes)
            value = (before.start[name].double().flatten(axes) * row).sum(-1, keepdim=True)
            new = conditioned(old.double().flatten(axes), row, value, variance=spread, noise=self.noise)
            changed[name] = new.reshape(old.shape).to(old.dtype)
        return after.with_(**changed)


def conditioned(
    mean: Tensor, row: Tensor, value: Tensor, *, variance: Tensor | None = None, noise: float = 0.0
) -> Tensor:
    """Return mu* for a diagonal covariance: mean and variance (..., n), row (n,), value (..., 1)."""
    weighted = row if variance is None else variance * row
    gain = weighted / (noise**2 + (row * weighted).sum(-1, keepdim=True))
    return mean - gain * ((row * mean).sum(-1, keepdim=True) - value)
