"""Learning-rate schedules: factors of the base rate as pure functions of the optimiser step."""

from __future__ import annotations

import math


class _Warmup:
    """A linear rise over the first `warmup` steps, shared by all schedules."""

    def __init__(self, *, warmup: int = 0) -> None:
        if warmup < 0:
            raise ValueError(f"schedule.warmup must not be negative; got {warmup}.")
        self.warmup = warmup

    def rise(self, step: int) -> float:
        return min(1.0, (step + 1) / (self.warmup + 1))


class Constant(_Warmup):
    """The base rate, after the warm-up."""

    def __call__(self, step: int, steps: int) -> float:
        return self.rise(step)


class WarmupCosine(_Warmup):
    """Half a cosine from 1 to `final` after the warm-up (Loshchilov & Hutter 2017, arXiv 1608.03983)."""

    def __init__(self, *, warmup: int = 0, final: float = 0.0) -> None:
        super().__init__(warmup=warmup)
        self.final = final

    def __call__(self, step: int, steps: int) -> float:
        progress = min(1.0, max(0.0, (step - self.warmup) / max(1, steps - self.warmup)))
        return self.rise(step) * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress)))


class WarmupStableDecay(_Warmup):
    """Warm-up, constant, then a cooldown 1 - sqrt(progress) over the last `cooldown` share of the steps.

    Hägele et al. 2024, arXiv 2405.18392.
    """

    def __init__(self, *, warmup: int = 0, cooldown: float = 0.2, final: float = 0.0) -> None:
        super().__init__(warmup=warmup)
        if not 0 <= cooldown <= 1:
            raise ValueError(f"schedule.cooldown is a share of the steps, 0 to 1; got {cooldown}.")
        self.cooldown, self.final = cooldown, final

    def __call__(self, step: int, steps: int) -> float:
        start = steps * (1 - self.cooldown)
        if step < start:
            return self.rise(step)
        progress = min(1.0, (step - start) / max(1.0, steps - start))
        return self.rise(step) * (self.final + (1 - self.final) * (1 - math.sqrt(progress)))
