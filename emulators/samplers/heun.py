"""Heun's method on the probability flow of a diffusion, with churn.

    d = (x - D(x, s)) / s,    x_e = x + (s' - s) d,    x' = x + (s' - s) (d + (x_e - D(x_e, s')) / s') / 2

D is the restored field; the last step, to s' = 0, is Euler's. Algorithms 1 and 2 of Karras et al. 2022, arXiv
2206.00364; levels as in LaDCast (Zhuang & Duraisamy 2025, arXiv 2506.09193).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from emulators.interfaces import Draw, Restore, Sampler
from emulators.layers.noise_levels import Churn, Process, rho_levels
from emulators.world import World


class Heun(Sampler):
    """Sample by two network passes a level, one at the last; options as in `emulators.samplers.dpmpp_2s`."""

    processes = ("edm",)

    def __init__(
        self,
        world: World,
        *,
        levels: int = 20,
        largest: float = 80.0,
        smallest: float = 0.002,
        rho: float = 7.0,
        churn: float = 0.0,
        churn_from: float = 0.0,
        inflation: float = 1.0,
    ) -> None:
        self.levels = rho_levels(levels, smallest, largest, rho)
        self.churn = Churn(churn, churn_from, inflation=inflation)

    def __call__(self, process: Process, restore: Restore, noise: Draw) -> Tensor:
        x = noise() * self.levels[0]
        for level, after in pairwise(self.levels):
            x, level = self.churn(x, level, len(self.levels) - 1, noise)
            slope = (x - restore(x, level)) / level
            ahead = x + (after - level) * slope
            if after:
                slope = 0.5 * (slope + (ahead - restore(ahead, after)) / after)
            x = x + (after - level) * slope
        return x
