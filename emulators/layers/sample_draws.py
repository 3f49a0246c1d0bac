"""Random draws that belong to a sample of an optimiser step, in whichever pass or process the sample is.

    seed of a row = (salt, member, number of the sample in the whole batch),    salt drawn from torch's own generator

A training seeds torch's own generator by optimiser step alone, so that all passes and processes draw the same salts.
Nothing is kept between draws: activations that are computed again for the backward pass draw the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_NUMBERS: list[int] = []  # of the samples at hand, in the batch of the optimiser step


def begin_samples(numbers: Sequence[int]) -> None:
    """Number the samples of the batch at hand; none: rows are numbered from 0."""
    _NUMBERS[:] = numbers


def sample_numbers() -> tuple[int, ...]:
    """The numbers of the samples at hand, in the batch of the optimiser step; none outside of one."""
    return tuple(_NUMBERS)


def sample_generators(rows: int, device: torch.device | str = "cpu") -> list[torch.Generator]:
    """One generator for each row of a batch; rows are samples, or members first of several for each sample."""
    numbers = _NUMBERS if _NUMBERS and rows % len(_NUMBERS) == 0 else range(rows)
    salt = int(torch.randint(2**62, ()))
    keys = [(salt, row // len(numbers), numbers[row % len(numbers)]) for row in range(rows)]
    seeds = (int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1 for key in keys)
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def uniform(shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Draw uniform numbers of [0, 1), (row, ...), row by row."""
    rows, rest = shape[0], tuple(shape[1:])
    return torch.stack([torch.rand(rest, generator=g, device=device) for g in sample_generators(rows, device)])


Generators = torch.Generator | Sequence[torch.Generator] | None  # of all rows, or one a row


def normal(rows: int, shape: Sequence[int], device: torch.device | str, generator: Generators = None) -> list[Tensor]:
    """Draw standard normal numbers of `shape` for each row, so that the first rows do not depend on their number.

    generator: one for all rows, one for each, or None for those of the samples. ValueError for another number.
    """
    if generator is None:
        generator = sample_generators(rows, device)
    generators = [generator] * rows if isinstance(generator, torch.Generator) else list(generator)
    if len(generators) != rows:
        raise ValueError(f"Expected one generator, or one for each of {rows} cases; got {len(generators)}.")
    return [torch.randn(*shape, generator=g, device=g.device).to(device) for g in generators]


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Set a share `rate` of the values of (row, ...) to zero in training, and scale the others to compensate."""
    if not training or not rate:
        return x
    return x * ((uniform(x.shape, x.device) >= rate).to(x.dtype) / (1.0 - rate))
