"""PDE-Refiner: a forecast from noise alone, then refined K times from ever less noise, by ancestral sampling.

    beta_k = m^(1 - k / K),  k = 0, ..., K;    abar_k = prod_{j <= k} (1 - beta_j);    level s_k = sqrt(1 - abar_k)

from k = K, where beta = 1, abar = 0 and s = 1, to k = 0. The published code takes its least noise m for the variance
beta (m of 4e-7 makes a noise of 6.3e-4), the paper for the standard deviation, s_k = m^(1 - k / K). Lippe et al. 2023,
arXiv 2308.05732; the code: pdearena.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from emulators.interfaces import Draw, Restore, Sampler
from emulators.layers.noise_levels import Process, ancestral_sample
from emulators.world import World


class Refinement(Sampler):
    """Sample by 1 + `refinements` network passes.

    smallest: the least noise, m above. meaning: of `smallest`, `variance` as in the published code or `std`.
    """

    processes = ("vp",)

    def __init__(
        self,
        world: World,
        *,
        refinements: int = 3,
        smallest: float = 4e-7,
        meaning: Literal["variance", "std"] = "variance",
    ) -> None:
        if refinements < 1 or not 0.0 < smallest < 1.0 or meaning not in ("variance", "std"):
            raise ValueError(
                "Expected sampler.refinements of at least 1, sampler.smallest between 0 and 1, and sampler.meaning "
                f"variance or std; got {refinements}, {smallest} and '{meaning}'."
            )
        steps = smallest ** (np.arange(refinements + 1) / refinements)[::-1]  # beta or noise by k, least first
        levels = np.sqrt(1.0 - np.cumprod(1.0 - steps)) if meaning == "variance" else steps
        self.levels = [*levels[::-1].tolist(), 0.0]

    def __call__(self, process: Process, restore: Restore, noise: Draw) -> Tensor:
        return ancestral_sample(process, self.levels, restore, noise)
