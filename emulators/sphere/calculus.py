"""Vector calculus on the sphere in spectral space: winds, vorticity, divergence, gradients, Laplacians.

    vorticity   zeta = (1 / (a cos)) (dv/dlambda - d(u cos)/dphi)
    divergence  D    = (1 / (a cos)) (du/dlambda + d(v cos)/dphi)
    u = (1 / (a cos)) (i m chi - cos dpsi/dphi),   v = (1 / (a cos)) (i m psi + cos dchi/dphi)

with psi and chi the inverse Laplacians of vorticity and divergence.

Derivatives of products are taken by integration by parts in the Legendre sums, so that no field is differentiated on
the grid (Bourke 1972; Durran 2010, section 6.4).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from emulators.constants import EARTH_RADIUS
from emulators.grid import LatLonGrid
from emulators.sphere.legendre import legendre, legendre_slope
from emulators.sphere.transform import SphericalHarmonics


class SphericalCalculus(SphericalHarmonics):
    """The transform plus derivatives; layouts as in `SphericalHarmonics`, lengths in metres. Gaussian grids only."""

    vector_analysis: Tensor
    vector_synthesis: Tensor
    laplacian: Tensor
    inverse_laplacian: Tensor
    signed_order: Tensor

    def __init__(
        self,
        grid: LatLonGrid,
        degrees: int | None = None,
        orders: int | None = None,
        dtype: torch.dtype = torch.float32,
        radius: float = EARTH_RADIUS,
    ) -> None:
        super().__init__(grid, degrees, orders, dtype)
        if grid.kind != "gaussian":
            raise ValueError(f"Spectral calculus needs a Gaussian grid, whose quadrature is exact; got {grid!r}.")
        dtype = self.fourier.dtype
        mu = np.sin(np.deg2rad(grid.latitude))
        slope = legendre_slope(self.degrees, self.orders, mu)
        metric = radius * np.sqrt(1.0 - mu * mu)
        weights = 2.0 * np.pi * np.polynomial.legendre.leggauss(len(mu))[1][::-1]
        plain = legendre(self.degrees, self.orders, mu) / metric
        pair = np.repeat(np.concatenate([plain, slope / metric], axis=1), 2, axis=0)
        l = np.arange(self.degrees)
        eigenvalues = -l * (l + 1.0) / radius**2
        inverse = np.divide(1.0, eigenvalues, out=np.zeros_like(eigenvalues), where=l > 0)
        order = np.repeat(np.arange(self.orders), 2) * np.tile([-1.0, 1.0], self.orders)
        for name, table in (
            ("vector_analysis", pair * weights),
            ("vector_synthesis", np.ascontiguousarray(pair.transpose(0, 2, 1))),
            ("laplacian", eigenvalues[None, :, None]),
            ("inverse_laplacian", inverse[None, :, None]),
            ("signed_order", order[:, None, None]),
        ):
            self.register_buffer(name, torch.from_numpy(table).to(dtype), persistent=False)

    def times_im(self, coefficients: Tensor) -> Tensor:
        """i m a_lm: the derivative along longitude."""
        pairs = coefficients.view(self.orders, 2, *coefficients.shape[1:])
        return pairs.flip(1).view_as(coefficients) * self.signed_order

    def _vector_field(self, first: Tensor, second: Tensor) -> Tensor:
        rows = torch.bmm(self.vector_synthesis, torch.cat([first, second], dim=1))
        nlat, nlon = self.grid.shape
        return (self.inverse_fourier @ rows.view(2 * self.orders, -1)).view(nlon, nlat, -1)

    def winds(self, vorticity: Tensor, divergence: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of vorticity and divergence (s-1) -> u, v (m s-1), each (lon, lat, n)."""
        psi, chi = vorticity * self.inverse_laplacian, divergence * self.inverse_laplacian
        first = torch.cat([self.times_im(chi), self.times_im(psi)], dim=2)
        second = torch.cat([-psi, chi], dim=2)
        u, v = self._vector_field(first, second).chunk(2, dim=2)
        return u, v

    def gradient(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of f -> eastward and northward derivative of f per metre, each (lon, lat, n)."""
        zero = torch.zeros_like(coefficients)
        first = torch.cat([self.times_im(coefficients), zero], dim=2)
        second = torch.cat([zero, coefficients], dim=2)
        east, north = self._vector_field(first, second).chunk(2, dim=2)
        return east, north

    def vorticity_divergence(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """u, v (m s-1), each (lon, lat, n) -> coefficients of vorticity and divergence (s-1)."""
        nlon, nlat, n = u.shape
        rows = self.fourier @ torch.cat([u, v], dim=2).view(nlon, -1)
        sums = torch.bmm(self.vector_analysis, rows.view(2 * self.orders, nlat, 2 * n))
        plain, slope = sums[:, : self.degrees], sums[:, self.degrees :]
        vorticity = self.times_im(plain[:, :, n:].contiguous()) + slope[:, :, :n]
        divergence = self.times_im(plain[:, :, :n].contiguous()) - slope[:, :, n:]
        return vorticity, divergence
