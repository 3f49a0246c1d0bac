"""Random fields on the sphere: Gaussian, isotropic, of unit variance at every point.

    E |a_lm|^2 = 4 pi / (L (2 l + 1))   spectrum `degree`: every degree has the same power (GenCast: Price et al. 2023,
                                        arXiv 2312.15796)
    E |a_lm|^2 = 4 pi / N               spectrum `coefficient`: every coefficient has the same, N being how many there
                                        are (the noise of ACE's stochastic networks)

for l < L; coefficients of m > 0 have independent real and imaginary parts of half that variance, those of m = 0 are
real. Truncated orders leave their share of a degree's power to the others.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from emulators.grid import LatLonGrid
from emulators.sphere.transform import SphericalHarmonics


class RandomField(nn.Module):
    """Draws on `grid`. spectrum: `degree` or `coefficient`. degrees: default, as many as the grid resolves."""

    deviation: Tensor

    def __init__(
        self,
        grid: LatLonGrid,
        spectrum: str = "degree",
        degrees: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if spectrum not in ("degree", "coefficient"):
            raise ValueError(f"Expected spectrum to be 'degree' or 'coefficient'; got '{spectrum}'.")
        self.transform = SphericalHarmonics(grid, degrees, dtype=dtype)
        table = deviation(spectrum, self.transform.degrees, self.transform.orders)
        self.register_buffer("deviation", torch.from_numpy(table).to(self.transform.dtype), persistent=False)

    def forward(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(*shape, lat, lon), on the device of the grid's tables; the generator may live on another."""
        count = int(np.prod(shape))
        rows, degrees, _ = self.deviation.shape
        noise = torch.randn(
            count, rows, degrees, generator=generator, device=generator.device, dtype=self.deviation.dtype
        )
        coefficients = noise.to(self.deviation.device).permute(1, 2, 0) * self.deviation
        field = self.transform.synthesis(coefficients).permute(2, 1, 0)
        return field.reshape(*shape, *self.transform.grid.shape)


def deviation(spectrum: str, degrees: int, orders: int) -> np.ndarray:
    """Standard deviation of each number, (2 * orders, degrees, 1)."""
    l, m = np.arange(degrees)[None, :], np.repeat(np.arange(orders), 2)[:, None]
    held = 2 * np.minimum(l, orders - 1) + 1  # orders of a degree that the truncation holds, of both signs
    variance = 4.0 * np.pi / (degrees * held if spectrum == "degree" else held.sum())
    table = np.sqrt(variance * np.where(m == 0, 1.0, 0.5)) * (l >= m)
    table[1] = 0.0
    return table[..., None]
