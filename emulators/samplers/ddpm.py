"""Ancestral sampling: each level is drawn from its distribution given the noisier one and the restored field.

The formula is that of `layers.noise_levels.ancestral_sample`. Ho et al. 2020, arXiv 2006.11239.
"""

from __future__ import annotations

from torch import Tensor

from emulators.interfaces import Draw, Restore, Sampler
from emulators.layers.noise_levels import Process, ancestral_sample, rho_levels
from emulators.world import World


class DDPM(Sampler):
    """Sample by one network pass and one draw of noise a level; options as in `emulators.samplers.euler`."""

    def __init__(
        self, world: World, *, levels: int = 50, largest: float = 80.0, smallest: float = 0.03, rho: float = 7.0
    ) -> None:
        self.levels = rho_levels(levels, smallest, largest, rho)

    def __call__(self, process: Process, restore: Restore, noise: Draw) -> Tensor:
        process.refuse_above_one(self.levels[0])
        return ancestral_sample(process, self.levels, restore, noise)
