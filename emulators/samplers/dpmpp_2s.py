"""DPM-Solver++ 2S: second-order steps through the geometric mean of two noise levels, with churn.

    x_mid = (m / s) x + (1 - m / s) D(x, s),    m = sqrt(s s')
    x'    = (s' / s) x + (1 - s' / s) D(x_mid, m);    at s' = 0:  x' = D(x, s)

D is the restored field. Lu et al. 2022, arXiv 2211.01095; with the churn of Karras et al. 2022, arXiv 2206.00364, as
GenCast samples: Price et al. 2023, arXiv 2312.15796, whose levels and constants are the defaults.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor

from emulators.interfaces import Draw, Restore, Sampler
from emulators.layers.noise_levels import Churn, Process, rho_levels
from emulators.world import World


class DPMpp2S(Sampler):
    """Sample by two network passes a level, one at the last.

    levels: number of noise levels from `largest` to `smallest`, evenly spaced in level^(1 / rho). churn: rate at which
    noise is added again, over all steps, at levels of at least `churn_from`; inflation: of that noise.
    """

    processes = ("edm",)

    def __init__(
        self,
        world: World,
        *,
        levels: int = 20,
        largest: float = 80.0,
        smallest: float = 0.03,
        rho: float = 7.0,
        churn: float = 2.5,
        churn_from: float = 0.75,
        inflation: float = 1.05,
    ) -> None:
        self.levels = rho_levels(levels, smallest, largest, rho)
        self.churn = Churn(churn, churn_from, inflation=inflation)

    def __call__(self, process: Process, restore: Restore, noise: Draw) -> Tensor:
        x = noise() * self.levels[0]
        for level, after in pairwise(self.levels):
            x, level = self.churn(x, level, len(self.levels) - 1, noise)
            clean = restore(x, level)
            if not after:
                return clean
            middle = math.sqrt(level * after)
            clean = restore(process.moved(x, clean, level, middle), middle)
            x = process.moved(x, clean, level, after)
        return x
