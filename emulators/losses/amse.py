"""The adjusted mean square error: the error of amplitude plus the loss of correlation at the greater of both powers.

    AMSE = mean over channels of  w_c / (4 pi) sum_l [ (sqrt(P_a) - sqrt(P_b))^2 + 2 max(P_a, P_b) (1 - C) ]

with P_a, P_b the power of prediction and truth by total wavenumber and C their coherence. With sqrt(P_a P_b) in place
of max(P_a, P_b) it would be the mean square error, whose minimum at a given C has C times the amplitude of the truth:
the double penalty, which blurs forecasts. That of AMSE has the truth's amplitude at every C.
Subich et al. 2025, Fixing the Double Penalty in Data-Driven Weather Forecasting, arXiv 2501.19374.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emulators.scores.spectral_errors import ByDegree, SpectralErrors
from emulators.state import State
from emulators.world import World


class AMSE(nn.Module):
    """Compute the adjusted mean square error for each lead element of two States; comparable with their `mse`.

    degrees: number of total wavenumbers, from 0; default: all that the grid resolves. epsilon: a power in units of the
    squared scale, added under the roots. scale, variable_weights, level_weights: as in
    `emulators.scores.channel_weights.ChannelWeights`.
    """

    def __init__(
        self,
        world: World,
        *,
        degrees: int | None = None,
        epsilon: float = 1e-8,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__()
        self.spectra = SpectralErrors(world, degrees, epsilon, scale, variable_weights, level_weights)

    def forward(self, prediction: State, target: State) -> Tensor:
        terms = amse_terms(self.spectra(prediction, target))
        return self.spectra.mean(terms.sum(dim=0)) / (4.0 * math.pi)


def amse_terms(spectra: ByDegree) -> Tensor:
    """Return the term of each degree, (degree, *lead, channel)."""
    return spectra.amplitude + 2.0 * torch.maximum(spectra.prediction, spectra.truth) * spectra.lost
