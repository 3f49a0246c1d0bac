"""Training of generative networks: restore the next State from itself with noise, at levels drawn for each sample.

    L = mean over the batch of  weight(s) loss(restored(x_s, s), clean State),    x_s = a(s) y + b(s) n

Weights, amplitudes and what y is, are the Step's: the next State, or what it makes of several that follow. Levels s are
drawn uniformly in s^(1 / rho) between two bounds (GenCast: Price et al. 2023, arXiv 2312.15796), log-normally (Karras
et al. 2022, arXiv 2206.00364) or, for flow matching, logit-normally (Esser et al. 2024, arXiv 2403.03206), or they are
those of the sampler, one as often as the other (PDE-Refiner: Lippe et al. 2023, arXiv 2308.05732). The weights are made
for losses of squares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from emulators.interfaces import Loss, Objective
from emulators.layers.noise_levels import rho_quantile
from emulators.layers.sample_draws import sample_generators
from emulators.state import State, Window
from emulators.world import World

DISTRIBUTIONS = ("rho", "lognormal", "logitnormal", "sampler")
SHARES = 1e-3, 1.0 - 1e-3  # bounds of logit-normal levels, at which weights are finite


@runtime_checkable
class Restoring(Protocol):
    """Describe a Step that restores noisy States, and samples by doing so. frames: timesteps made at once."""

    sampler: Any
    frames: int

    def restored_pair(self, window: Window, levels: Tensor) -> tuple[State, State, Tensor]:
        """The State restored from noise of these levels, the State without noise, and the weight of each case."""
        ...


class Diffusion(Objective):
    """Train on one timestep with noise, or on as many `frames` as the Step makes at once.

    distribution: of levels, `rho` (smallest, largest, rho), `lognormal` (log_mean, log_std), `logitnormal` (the same of
    its logit) or `sampler` (those of the Step's sampler).
    """

    def __init__(
        self,
        world: World,
        *,
        frames: int = 1,
        distribution: str = "rho",
        smallest: float = 0.02,
        largest: float = 88.0,
        rho: float = 7.0,
        log_mean: float = -1.2,
        log_std: float = 1.2,
    ) -> None:
        if frames < 1:
            raise ValueError(f"objective.frames must be at least 1; got {frames}.")
        if distribution not in DISTRIBUTIONS or not 0 < smallest < largest or rho <= 0 or log_std <= 0:
            raise ValueError(
                f"objective.distribution must be one of {', '.join(DISTRIBUTIONS)}, 0 < smallest < largest, and rho "
                f"and log_std positive; got '{distribution}', {smallest}, {largest}, {rho} and {log_std}."
            )
        self.frames, self.distribution, self.log_mean, self.log_std = frames, distribution, log_mean, log_std
        self.smallest, self.largest, self.rho = smallest, largest, rho

    @property
    def longest(self) -> int:
        """Timesteps that a window must hold."""
        return self.frames

    def length(self, step: int) -> int:
        """The same at every optimiser step."""
        return self.frames

    def begin(self, step: Any) -> None:
        """Raise ValueError where the Step restores nothing, or other frames."""
        if not isinstance(step, Restoring):
            raise ValueError(f"{type(step).__name__} restores no noise; take step=denoising or objective=forecast.")
        if step.frames != self.frames:
            raise ValueError(f"Expected objective.frames={step.frames}, which the step makes; got {self.frames}.")

    def levels(self, rows: int, among: Sequence[float]) -> Tensor:
        """Draw the noise level of each sample. among: levels of the sampler, 0 at the end."""
        kind, generators = self.distribution, sample_generators(rows)
        if kind in ("rho", "sampler"):
            u = torch.stack([torch.rand((), generator=g) for g in generators])
            if kind == "rho":
                return rho_quantile(u, self.smallest, self.largest, self.rho)
            return torch.tensor(list(among[:-1]))[(u * (len(among) - 1)).long()]
        z = torch.stack([torch.randn((), generator=g) for g in generators]) * self.log_std + self.log_mean
        return z.exp() if kind == "lognormal" else z.sigmoid().clamp(*SHARES)

    def __call__(
        self, step: torch.nn.Module, window: Window, losses: Mapping[str, Loss]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and its detached parts by loss, weighted."""
        restoring: Any = step
        values = window.target[0].values
        levels = self.levels(len(values), restoring.sampler.levels).to(values.device)
        state, clean, weight = restoring.restored_pair(window, levels)
        shares = {name: (weight * loss(state, clean)).mean() for name, loss in losses.items()}
        total = torch.stack([*shares.values()]).sum()
        return total, {name: share.detach() for name, share in shares.items()}
