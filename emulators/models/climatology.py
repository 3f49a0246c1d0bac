"""Climatology as a forecast: the mean of the training period for the day of the year and the hour of the day.

forecast(t) = sum_k c_k h_k(t),   h: harmonics of year and day, see emulators.statistics.climatology
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from emulators.statistics.climatology import HarmonicClimatology, harmonics, resolved_harmonics
from emulators.world import World


class Climatology(nn.Module):
    """Predict (batch, output channel, *grid) from the time alone; for a Step with absolute output.

    annual, diurnal: number of harmonics of year and day, fewer if the world's timestep does not resolve them.
    """

    coefficients: Tensor

    def __init__(self, world: World, *, annual: int = 2, diurnal: int = 2) -> None:
        super().__init__()
        self.annual, self.diurnal = resolved_harmonics(world.timestep, annual, diurnal)
        size = HarmonicClimatology(self.annual, self.diurnal).size
        self.register_buffer("coefficients", torch.zeros(size, world.output_channels, *world.grid.shape))

    def fit(self, examples: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Fit the coefficients to all examples (fields, time, target) by least squares."""
        climatology = HarmonicClimatology(self.annual, self.diurnal)
        for _, time, target in examples:
            climatology.accumulate(time, target)
        fitted = climatology.solve().coefficients
        assert fitted is not None
        self.coefficients.copy_(fitted)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        basis = harmonics(time, self.annual, self.diurnal).to(self.coefficients.dtype)
        return torch.tensordot(basis, self.coefficients, dims=1)
