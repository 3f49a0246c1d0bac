"""The spherical-harmonic transform as two matrix products: a DFT along longitude, Legendre sums along latitude.

    analysis   a_lm = 2 pi sum_k w_k P_lm(mu_k) (1/nlon) sum_j f(lambda_j, mu_k) exp(-i m lambda_j)
    synthesis  f    = Re sum_m (2 - delta_m0) exp(i m lambda) sum_l a_lm P_lm(mu)

On a Gaussian grid the weights w are Gauss-Legendre's and analysis is exact for l < nlat. Quadrature on equally
spaced rows is exact only to about half of that; there the Legendre sums are inverted by weighted least squares
instead, which recovers every field of at most nlat degrees at the same cost.

Layout: fields are (lon, lat, n) and coefficients (2 * orders, degrees, n), the real part of order m in row 2m and the
imaginary part in row 2m + 1, n being everything else (batch, channels, levels). Both sums then are plain GEMMs
without a copy. `coefficients` and `field` take the customary (..., lat, lon).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from emulators.grid import LatLonGrid
from emulators.sphere.legendre import legendre


class SphericalHarmonics(nn.Module):
    """Transform between fields on `grid` and coefficients of degree l < degrees, order m < orders (triangular: l >= m).

    Defaults: as many degrees as the grid resolves, at most nlat, and as many orders, at most half of nlon.
    Tables are float64 for dtype float64, else float32; transforms never run in less (autocast is switched off).
    """

    fourier: Tensor
    inverse_fourier: Tensor
    analysis_table: Tensor
    synthesis_table: Tensor

    def __init__(
        self,
        grid: LatLonGrid,
        degrees: int | None = None,
        orders: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        nlat, nlon = grid.shape
        if not grid.is_cyclic or grid.kind == "limited_area":
            raise ValueError(
                f"Spherical harmonics need a grid over the whole sphere; got {grid!r}. "
                "Choose a model for limited areas."
            )
        self.grid = grid
        limit = nlat if grid.kind != "equiangular_with_poles" else nlat - 1
        self.degrees = degrees or min(limit, nlon // 2)
        self.orders = orders or min(self.degrees, nlon // 2)
        if self.degrees > limit or self.orders > nlon // 2:
            raise ValueError(
                f"{grid!r} resolves {limit} degrees and {nlon // 2} orders; got {self.degrees} and {self.orders}."
            )
        forward, inverse = _fourier_tables(tuple(grid.longitude), self.orders)
        analysis, synthesis = _legendre_tables(tuple(grid.latitude), grid.kind, self.degrees, self.orders)
        for name, table in (
            ("fourier", forward),
            ("inverse_fourier", inverse),
            ("analysis_table", analysis),
            ("synthesis_table", synthesis),
        ):
            self.register_buffer(name, _as_tensor(table, dtype), persistent=False)

    def analysis(self, field: Tensor) -> Tensor:
        """(lon, lat, n) -> coefficients (2 * orders, degrees, n)."""
        with torch.autocast(field.device.type, enabled=False):
            nlon, nlat, n = field.shape
            rows = self.fourier @ field.to(self.fourier.dtype).reshape(nlon, nlat * n)
            return torch.bmm(self.analysis_table, rows.view(2 * self.orders, nlat, n))

    def synthesis(self, coefficients: Tensor) -> Tensor:
        """Coefficients (2 * orders, degrees, n) -> (lon, lat, n)."""
        with torch.autocast(coefficients.device.type, enabled=False):
            nlat, nlon = self.grid.shape
            rows = torch.bmm(self.synthesis_table, coefficients.to(self.synthesis_table.dtype))
            return (self.inverse_fourier @ rows.view(2 * self.orders, -1)).view(nlon, nlat, -1)

    def coefficients(self, field: Tensor) -> Tensor:
        """(..., lat, lon) -> complex coefficients (..., degrees, orders)."""
        lead = field.shape[:-2]
        rows = self.analysis(field.reshape(-1, *field.shape[-2:]).permute(2, 1, 0))
        pairs = rows.view(self.orders, 2, self.degrees, -1).permute(3, 2, 0, 1).contiguous()
        return torch.view_as_complex(pairs).reshape(*lead, self.degrees, self.orders)

    def field(self, coefficients: Tensor) -> Tensor:
        """Complex coefficients (..., degrees, orders) -> (..., lat, lon)."""
        lead = coefficients.shape[:-2]
        pairs = torch.view_as_real(coefficients.reshape(-1, self.degrees, self.orders))
        rows = pairs.permute(2, 3, 1, 0).reshape(2 * self.orders, self.degrees, -1)
        return self.synthesis(rows).permute(2, 1, 0).reshape(*lead, *self.grid.shape)


@lru_cache(maxsize=32)
def _fourier_tables(longitude: tuple[float, ...], orders: int) -> tuple[np.ndarray, np.ndarray]:
    angle = np.outer(np.arange(orders), np.deg2rad(longitude))
    waves = np.stack([np.cos(angle), -np.sin(angle)], axis=1).reshape(2 * orders, -1)
    twice = np.where(np.arange(2 * orders) < 2, 1.0, 2.0)[:, None]
    return waves / len(longitude), np.ascontiguousarray((waves * twice).T)


@lru_cache(maxsize=32)
def _legendre_tables(
    latitude: tuple[float, ...], kind: str, degrees: int, orders: int
) -> tuple[np.ndarray, np.ndarray]:
    mu = np.sin(np.deg2rad(latitude))
    table = legendre(degrees, orders, mu)
    if kind == "gaussian":
        weights = np.polynomial.legendre.leggauss(len(mu))[1][::-1]
        analysis = 2.0 * np.pi * table * weights
    else:
        analysis = exact_analysis(table, np.sqrt(np.cos(np.deg2rad(latitude)).clip(1e-6)))
    synthesis = np.ascontiguousarray(table.transpose(0, 2, 1))
    return np.repeat(analysis, 2, axis=0), np.repeat(synthesis, 2, axis=0)


def exact_analysis(table: np.ndarray, root_weights: np.ndarray) -> np.ndarray:
    """Weighted least-squares inverse of the Legendre sums, (orders, degrees, lat): exact for what the grid resolves."""
    analysis = np.zeros_like(table)
    for m, functions in enumerate(table):
        analysis[m, m:] = np.linalg.pinv(functions[m:].T * root_weights[:, None]) * root_weights
    return analysis


_tensors: dict[tuple[int, torch.dtype], tuple[np.ndarray, Tensor]] = {}


def _as_tensor(table: np.ndarray, dtype: torch.dtype) -> Tensor:
    """One tensor a table and dtype, shared by all transforms of the process."""
    dtype = torch.float64 if dtype == torch.float64 else torch.float32
    key = (id(table), dtype)
    if key not in _tensors:
        _tensors[key] = (table, torch.from_numpy(table).to(dtype))
    return _tensors[key][1]
