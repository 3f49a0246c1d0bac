"""Euler's method on the probability flow, of diffusions and of flow matching.

    x' = a' D + (b' / b) (x - a D)

D is the restored field at level s, a and b the amplitudes of field and noise there; primes are the next level. In flow
matching this is x + (s' - s) (x - D) / s. First noise multiplied by `inflation`, 1.05 in ArchesWeatherGen (Couairon et
al. 2024, arXiv 2412.12971). Song et al. 2021, arXiv 2010.02502.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from emulators.interfaces import Draw, Restore, Sampler
from emulators.layers.noise_levels import Process, rho_levels
from emulators.world import World


class Euler(Sampler):
    """Sample by one network pass a level.

    levels: number of noise levels from `largest` to `smallest`, evenly spaced in level^(1 / rho). inflation: of the
    first noise.
    """

    def __init__(
        self,
        world: World,
        *,
        levels: int = 30,
        largest: float = 80.0,
        smallest: float = 0.03,
        rho: float = 7.0,
        inflation: float = 1.0,
    ) -> None:
        self.levels, self.inflation = rho_levels(levels, smallest, largest, rho), inflation

    def __call__(self, process: Process, restore: Restore, noise: Draw) -> Tensor:
        process.refuse_above_one(self.levels[0])
        x = noise() * (process.amplitudes(self.levels[0])[1] * self.inflation)
        for level, after in pairwise(self.levels):
            x = process.moved(x, restore(x, level), level, after)
        return x
