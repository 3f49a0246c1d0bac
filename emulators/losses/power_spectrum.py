"""Error of the power spectrum: the difference in variance at each scale, wherever it lies.

    L = mean over channels of  w_c sum_{l >= lowest} [ (P_a - P_b) / 4 pi ]^2

with P_a, P_b the power of prediction and truth by total wavenumber; P / 4 pi is the part of the area mean of the square
that belongs to l. It ignores positions: use it together with a loss that does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from emulators.scores.spectral_errors import SpectralErrors
from emulators.state import State
from emulators.world import World


class PowerSpectrum(nn.Module):
    """Compute the error of the power spectrum for each lead element of two States.

    lowest: the first total wavenumber that counts; 0 includes the global mean, whose square dwarfs the others.
    degrees, epsilon, scale, variable_weights, level_weights: as in `emulators.losses.amse.AMSE`.
    """

    def __init__(
        self,
        world: World,
        *,
        lowest: int = 1,
        degrees: int | None = None,
        epsilon: float = 1e-8,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__()
        self.spectra = SpectralErrors(world, degrees, epsilon, scale, variable_weights, level_weights)
        self.lowest = self.spectra.checked(lowest)

    def forward(self, prediction: State, target: State) -> Tensor:
        excess = self.spectra(prediction, target).excess[self.lowest :] / (4.0 * math.pi)
        return self.spectra.mean(excess.square().sum(dim=0))
