"""Log-spectral distance: the difference of two power spectra on a logarithmic axis, every scale with the same weight.

    L = mean over channels of  w_c sqrt( mean_{l >= lowest} [ ln P_a - ln P_b ]^2 )

with P_a, P_b the power of prediction and truth by total wavenumber; a prediction of c times the truth is 2 |ln c| away.
It ignores positions: use it together with a loss that does not.
Gray & Markel 1976, doi 10.1109/TASSP.1976.1162849.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emulators.scores.spectral_errors import SpectralErrors
from emulators.state import State
from emulators.world import World


class LogSpectralDistance(nn.Module):
    """Compute the log-spectral distance for each lead element of two States.

    lowest: the first total wavenumber that counts. epsilon: a power in units of the squared scale, added to both
    spectra; differences far below it do not count.
    degrees, scale, variable_weights, level_weights: as in `emulators.losses.amse.AMSE`.
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
        spectra = self.spectra(prediction, target)
        ratio = (spectra.prediction / spectra.truth).log()[self.lowest :]
        norm = torch.linalg.vector_norm(ratio, dim=0)  # its gradient at zero is zero, that of a root is not
        return self.spectra.mean(norm / len(ratio) ** 0.5)
