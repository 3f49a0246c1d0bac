"""The Kuramoto-Sivashinsky equation on a circle: fronts that form, wander and merge, chaos in space and time.

    du/dt = -u du/dx - d2u/dx2 - d4u/dx4,   u(x + length) = u(x),   mean of u zero

by Fourier series with the linear terms exact (ETDRK4, Kassam & Trefethen 2005, doi 10.1137/S1064827502410633) and
products free of aliases (two thirds rule). Kuramoto & Tsuzuki 1976, doi 10.1143/PTP.55.356; Sivashinsky 1977,
doi 10.1016/0094-5765(77)90096-0; the leading Lyapunov exponent at length 22 is 0.043 (Cvitanovic, Davidchack & Siminos
2010, doi 10.1137/070705623; Edson et al. 2019, doi 10.1017/S1446181119000105).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from data_pipelines.simulators.time_schemes import ExponentialRungeKutta


class KuramotoSivashinskyEquation:
    """Fourier coefficients (..., points // 2 + 1), complex, as `torch.fft.rfft` has them."""

    def __init__(self, points: int, length: float, step: float) -> None:
        self.points, self.length, self.timestep = points, length, step
        wave = 2.0 * np.pi / length * np.arange(points // 2 + 1)
        kept = np.arange(points // 2 + 1) < points / 3.0
        self._slope = torch.from_numpy(np.where(kept, -0.5j * wave, 0.0))
        self._scheme = ExponentialRungeKutta(wave**2 - wave**4, step)

    def advection(self, coefficients: Tensor) -> Tensor:
        """-u du/dx = -d(u^2 / 2)/dx."""
        return self._slope * torch.fft.rfft(self.field(coefficients).square())

    def step(self, coefficients: Tensor) -> Tensor:
        """The state one step later."""
        return self._scheme(self.advection, coefficients)

    def field(self, coefficients: Tensor) -> Tensor:
        """u on the circle, (..., points)."""
        return torch.fft.irfft(coefficients, n=self.points)

    def sample(self, coefficients: Tensor) -> dict[str, np.ndarray]:
        """u on one row of latitude, float32, (member, 1, point)."""
        return {"velocity": self.field(coefficients)[:, None].float().numpy()}

    def static(self) -> dict[str, np.ndarray]:
        """Nothing stands still."""
        return {}

    def disturbed(self, coefficients: Tensor, size: float, generator: torch.Generator) -> Tensor:
        """The state with noise of rms `size` and mean zero, white as far as the waves that are kept."""
        noise = torch.fft.rfft(torch.randn(len(coefficients), self.points, generator=generator, dtype=torch.float64))
        noise = torch.where(self._slope != 0.0, noise, 0.0)
        return coefficients + noise * (size / self.field(noise).square().mean().sqrt())

    def rest(self, members: int) -> Tensor:
        """u = 0: steady, but unstable."""
        return torch.zeros(members, self.points // 2 + 1, dtype=torch.complex128)
