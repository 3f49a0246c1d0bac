"""Errors in a Sobolev norm H^s: mean square errors that weigh small scales more (s > 0) or less (s < 0).

    L = mean over channels of  w_c / (4 pi) sum_l v_l sum_m |a_lm - b_lm|^2
    v_l = (1 + l (l + 1))^s / mean over harmonics

so that errors with the same power in every harmonic count as in the mean square error, which s = 0 is, of the part of
the fields that the harmonics resolve. l (l + 1) is the eigenvalue of minus the Laplacian on the unit sphere: s = 1 adds
the squared gradient to the square.
Sobolev training: Czarnecki et al. 2017, arXiv 1706.04859; H^s errors of operators: Li et al. 2022, arXiv 2106.06898.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from emulators.scores.spectral_errors import SpectralErrors
from emulators.state import State
from emulators.world import World

LARGEST = 80.0  # natural logarithm of the greatest ratio of two weights


class Sobolev(nn.Module):
    """Compute the squared error in a Sobolev norm for each lead element of two States.

    exponent: s, limited to weights that single precision can hold, 8 on a grid of 1.5 degrees, 6 on one of 0.25.
    degrees: number of total wavenumbers, from 0; default: all that the grid resolves.
    scale, variable_weights, level_weights: as in `emulators.scores.channel_weights.ChannelWeights`.
    """

    by_degree: Tensor

    def __init__(
        self,
        world: World,
        *,
        exponent: float = 1.0,
        degrees: int | None = None,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__()
        self.spectra = SpectralErrors(
            world, degrees, scale=scale, variable_weights=variable_weights, level_weights=level_weights
        )
        weights = degree_weights(self.spectra.degrees, exponent) / (4.0 * math.pi)
        self.register_buffer("by_degree", torch.as_tensor(weights, dtype=torch.float32), persistent=False)

    def forward(self, prediction: State, target: State) -> Tensor:
        error = self.spectra.error(prediction, target)
        weights = self.by_degree.to(error.dtype).view(-1, *[1] * (error.ndim - 1))
        return self.spectra.mean((error * weights).sum(dim=0))


def degree_weights(degrees: int, exponent: float) -> np.ndarray:
    """Return v_l, (degrees,). Raises ValueError if single precision cannot hold them all."""
    l = np.arange(degrees)
    limit = LARGEST / math.log(max(2.0, 1.0 + (degrees - 1.0) * degrees))
    if not abs(exponent) <= limit:
        raise ValueError(
            f"Expected exponent, that of the norm, from {-limit:.1f} to {limit:.1f} for {degrees} degrees, "
            f"whose weights single precision holds; got {exponent}."
        )
    weights = (1.0 + l * (l + 1.0)) ** exponent
    return weights * (2.0 * l + 1.0).sum() / (weights * (2.0 * l + 1.0)).sum()
