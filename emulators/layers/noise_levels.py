"""Noise levels of generative networks: how clean fields y and unit noise n make what a network restores.

    edm    x = y + s n                    y = x d^2 / (s^2 + d^2) + F(x / sqrt(s^2 + d^2)) s d / sqrt(s^2 + d^2)
    flow   x = (1 - s) y + s n            y = F(x)
    vp     x = sqrt(1 - s^2) y + s n      y = sqrt(1 - s^2) x - s F(x)

s is the noise level, F the network and d the standard deviation of y. Each process has the weight of the squared error
of y at which its paper trains, (s^2 + d^2) / (s d)^2, (1 - s) / s and 1 / s^2. Karras et al. 2022, arXiv 2206.00364;
flow matching as in ArchesWeatherGen, Couairon et al. 2024, arXiv 2412.12971; vp is the diffusion of Ho et al. 2020,
arXiv 2006.11239, with the velocity as output, Salimans & Ho 2022, arXiv 2202.00512.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

PROCESSES = ("edm", "flow", "vp")
LEVEL = "noise_level"  # what tells a network the level: a forcing, and a keyword of networks that take it themselves


@dataclass(frozen=True)
class Process:
    """Hold the relation of clean and noisy fields. kind: edm, flow or vp; data_std: d above, of edm alone."""

    kind: str
    data_std: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in PROCESSES or self.data_std <= 0:
            raise ValueError(
                f"Expected a process of {', '.join(PROCESSES)} and a positive data_std; got '{self.kind}' and "
                f"{self.data_std}."
            )

    def amplitudes(self, level: Any) -> tuple[Any, Any]:
        """Return the amplitudes of clean field and noise at a level, a number or a tensor."""
        if self.kind == "edm":
            return 1.0, level
        return (1.0 - level if self.kind == "flow" else (1.0 - level * level) ** 0.5), level

    def restored(self, network: Callable[[Tensor], Tensor], x: Tensor, level: Tensor) -> Tensor:
        """Return the estimate of the clean fields from noisy ones. level: a shape that broadcasts with `x`."""
        if self.kind == "flow":
            return network(x)
        if self.kind == "vp":
            return (1.0 - level.square()).sqrt() * x - level * network(x)
        whole = level.square() + self.data_std**2
        out = level * self.data_std * whole.rsqrt() * network(x * whole.rsqrt())
        return x * (self.data_std**2 / whole) + out

    def weight(self, level: Tensor) -> Tensor:
        """Return the weight of the squared error of the clean field at each level."""
        if self.kind == "flow":
            return (1.0 - level) / level
        if self.kind == "vp":
            return level.square().reciprocal()
        return (level.square() + self.data_std**2) / (level * self.data_std).square()

    def scalar(self, level: Tensor) -> Tensor:
        """Return what a network is told of a level: its logarithm; of flow a number from -4 to 4."""
        return 8.0 * level - 4.0 if self.kind == "flow" else level.log()

    def refuse_above_one(self, level: float) -> None:
        """Raise ValueError for a level that is no share of noise, where levels are shares."""
        if self.kind != "edm" and level > 1.0:
            raise ValueError(f"Noise levels of process={self.kind} go from 1 down; the sampler begins at {level:g}.")

    def moved(self, x: Tensor, clean: Tensor, level: float, to: float) -> Tensor:
        """Return noisy fields at another level, by the noise that `clean` leaves in `x`: one step of Euler."""
        signal, noise = self.amplitudes(level)
        signal_to, noise_to = self.amplitudes(to)
        ratio = noise_to / noise
        return ratio * x + (signal_to - ratio * signal) * clean


def rho_quantile(u: Any, smallest: float, largest: float, rho: float) -> Any:
    """Return the levels at quantiles u of a distribution uniform in level^(1 / rho)."""
    low, high = smallest ** (1.0 / rho), largest ** (1.0 / rho)
    return (low + u * (high - low)) ** rho


def rho_levels(count: int, smallest: float, largest: float, rho: float) -> list[float]:
    """Return `count` descending levels, evenly spaced in level^(1 / rho), then 0. ValueError where there are none."""
    if count < 1 or not 0 < smallest <= largest or rho <= 0:
        raise ValueError(
            "Expected at least one noise level, 0 < smallest <= largest and a positive rho; got "
            f"levels={count}, smallest={smallest}, largest={largest}, rho={rho}."
        )
    return [*rho_quantile(np.linspace(1.0, 0.0, count), smallest, largest, rho).tolist(), 0.0]


def ancestral_sample(
    process: Process,
    levels: Sequence[float],
    restore: Callable[[Tensor, float], Tensor],
    noise: Callable[[], Tensor],
) -> Tensor:
    """Draw each level from its distribution given the noisier one and the restored field D; at level 0 it is D.

        r = a / a',   v = b^2 - r^2 b'^2:    x' = (r b'^2 / b^2) x + (a' v / b^2) D + sqrt(b'^2 v / b^2) n

    a and b are the amplitudes of field and noise, primes the next level. Ho et al. 2020, arXiv 2006.11239, written for
    any pair of amplitudes.
    """
    x = noise() * process.amplitudes(levels[0])[1]
    for level, after in pairwise(levels):
        clean = restore(x, level)
        if not after:
            return clean
        (a, b), (a_next, b_next) = process.amplitudes(level), process.amplitudes(after)
        ratio = a / a_next
        added = b**2 - (ratio * b_next) ** 2
        mean = (ratio * b_next**2 / b**2) * x + (a_next * added / b**2) * clean
        x = mean + noise() * (math.sqrt(added) * b_next / b)
    return x


@dataclass(frozen=True)
class Churn:
    """Raise the noise level before a step, as in Karras et al. 2022: rate over all steps, range of levels, inflation.

    inflation: of the noise that is added, over what the level says.
    """

    rate: float = 0.0
    lowest: float = 0.0
    highest: float = math.inf
    inflation: float = 1.0

    def __call__(self, x: Tensor, level: float, steps: int, noise: Callable[[], Tensor]) -> tuple[Tensor, float]:
        """Return noisy fields and their level; steps: number of all steps."""
        share = min(self.rate / steps, math.sqrt(2.0) - 1.0) if self.lowest <= level <= self.highest else 0.0
        if not share:
            return x, level
        raised = level * (1.0 + share)
        return x + noise() * (math.sqrt(raised**2 - level**2) * self.inflation), raised


class LevelEmbedding(nn.Module):
    """Turn what is told of a noise level into numbers for conditioned norms: cosines and sines, then an MLP.

    Frequencies are multiples of 1 / 16, as in GenCast (Price et al. 2023, arXiv 2312.15796).
    """

    frequencies: Tensor

    def __init__(self, size: int, count: int = 32, period: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 * math.pi / period * torch.arange(1, count + 1), persistent=False)
        self.expand, self.contract = nn.Linear(2 * count, count), nn.Linear(count, size)

    def forward(self, level: Tensor) -> Tensor:
        phase = level[..., None] * self.frequencies
        hidden = self.expand(torch.cat([phase.cos(), phase.sin()], -1))
        return self.contract(F.gelu(hidden, approximate="tanh"))
