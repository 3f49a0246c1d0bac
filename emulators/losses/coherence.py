"""Loss of coherence: the part of two fields that is not shared at each scale, whatever their amplitudes.

    L = mean over channels of  w_c mean_{l >= lowest} [ 1 - C(l) ],   C = Re sum_m a conj(b) / sqrt(P_a P_b)

0 if the prediction is a multiple of the truth at every scale, 1 if they have nothing in common, 2 if they are opposite.
It ignores amplitudes: use it together with a loss that does not. C as in Subich et al. 2025, arXiv 2501.19374.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from emulators.scores.spectral_errors import SpectralErrors
from emulators.state import State
from emulators.world import World


class Coherence(nn.Module):
    """Compute the loss of coherence for each lead element of two States.

    lowest: the first total wavenumber that counts; at 0 there is one coefficient, whose coherence is its sign.
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
        lost = self.spectra(prediction, target).lost
        return self.spectra.mean(lost[self.lowest :].mean(dim=0))
