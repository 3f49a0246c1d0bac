"""Vector calculus on the sphere in spectral space: winds, vorticity, divergence, gradients, Laplacians.

    u = (1 / a) (i m chi P / cos - psi dP/dphi),        v = (1 / a) (i m psi P / cos + chi dP/dphi)
    vorticity = laplacian of psi,    divergence = laplacian of chi,    laplacian = -l (l + 1) / a^2

On Gaussian and Lobatto grids analysis takes derivatives by integration by parts in the sums over latitude, so that
no field is differentiated on the grid (Bourke 1972; Durran 2010, section 6.4); on equally spaced rows it inverts the
sums for u and v together by least squares, which is as exact as for scalars. Winds at the poles are those along each
column's meridian. In terms of orthonormal vector harmonics (Swarztrauber 1979, doi 10.1137/0716069) flow is

    (u, v) = sum s_lm Psi_lm + t_lm Phi_lm,   Psi = a grad Y / sqrt(l (l + 1)) spheroidal,   Phi = k x Psi toroidal

Spectral regridding: evaluate the spherical harmonics of fields on one grid at the points of another.

    g(lambda', mu') = sum over l < degrees of a_lm Y_lm(lambda', mu'),   a = analysis of f

Exact for fields whose degrees both grids resolve; finer scales are cut off. Winds go through vorticity and divergence,
so that they are those of one flow at the poles too (Swarztrauber 1979, doi 10.1137/0716069).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from emulators.constants import EARTH_RADIUS
from emulators.grid import LatLonGrid
from emulators.sphere import matrix_products
from emulators.sphere.legendre import legendre_derivative, legendre_over_cosine, nodes
from emulators.sphere.transform import (
    SphericalHarmonics,
    check_last,
    counts,
    degrees_and_orders,
    functions,
    least_squares,
    phase,
    scale,
)


class SphericalCalculus(SphericalHarmonics):
    """Add derivatives to the transform; layouts and options as in `SphericalHarmonics`, lengths in metres.

    radius: that of the sphere, m.
    """

    laplacian: Tensor
    inverse_laplacian: Tensor
    curl: Tensor
    signed_order: Tensor

    def __init__(
        self,
        grid: LatLonGrid,
        degrees: int | None = None,
        orders: int | None = None,
        dtype: torch.dtype = torch.float32,
        radius: float = EARTH_RADIUS,
        **options: bool,
    ) -> None:
        super().__init__(grid, degrees, orders, dtype, **options)
        self.radius = radius
        self._share_blocks("vector_synthesis", (1, 2), vector_functions)
        if not self.quadrature:
            self._share_blocks("vector_analysis", (1, 2), vector_inverses)
        if self.single:
            for name, kinds in (("synthesis", 1), ("vector_synthesis", 2)):
                for factor in ("counts", "scale"):
                    shape = (self.orders, 2, kinds, self.degrees, grid.shape[0])
                    at = (grid.kind, *grid.shape, self.degrees, self.orders, self.condon_shortley, radius)
                    self.share(f"{name}_{factor}", shape, doubled, name, factor, *at)
        self.share("laplacian", (1, self.degrees, 1), _laplacian, self.degrees, radius)
        self.share("inverse_laplacian", (1, self.degrees, 1), _inverse_laplacian, self.degrees, radius)
        self.share("curl", (1, self.degrees, 1), _curl, self.degrees, radius)
        self.share("signed_order", (2 * self.orders, 1, 1), _signed_order, self.orders)

    def weighted(self, name: str, factor: str) -> tuple[Tensor | None, list[Tensor]]:
        """Return the tables `name` and their factor; with few degrees, tables that include the factor."""
        if self.single:
            return None, [self.get_buffer(f"{name}_{factor}")]
        by, blocks = super().weighted(name, factor)
        return by / self.radius if by is not None and name.startswith("vector") else by, blocks

    def times_im(self, coefficients: Tensor) -> Tensor:
        """Return i m a_lm, the derivative along longitude."""
        pairs = coefficients.view(self.orders, 2, *coefficients.shape[1:])
        return pairs.flip(1).view_as(coefficients) * self.signed_order

    def _vector_field(self, over_cosine: Tensor, derivative: Tensor) -> Tensor:
        """Return the sum of the series with P / cos and with dP/dphi, per metre."""
        pair = torch.stack([over_cosine, derivative], dim=1).to(self.dtype)
        waves = matrix_products.series(pair, *self.weighted("vector_synthesis", "counts"))
        return matrix_products.columns(waves, self.wave_tables)

    def winds(self, vorticity: Tensor, divergence: Tensor) -> tuple[Tensor, Tensor]:
        """Return u, v (m s-1), each (lon, lat, n), from coefficients of vorticity and divergence (s-1)."""
        psi, chi = vorticity * self.inverse_laplacian, divergence * self.inverse_laplacian
        over_cosine = torch.cat([self.times_im(chi), self.times_im(psi)], dim=2)
        u, v = self._vector_field(over_cosine, torch.cat([-psi, chi], dim=2)).chunk(2, dim=2)
        return u, v

    def gradient(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Return the eastward and northward derivative per metre, each (lon, lat, n), from coefficients of a field."""
        zero = torch.zeros_like(coefficients)
        over_cosine = torch.cat([self.times_im(coefficients), zero], dim=2)
        east, north = self._vector_field(over_cosine, torch.cat([zero, coefficients], dim=2)).chunk(2, dim=2)
        return east, north

    def vector_synthesis(self, spheroidal: Tensor, toroidal: Tensor) -> tuple[Tensor, Tensor]:
        """Return u, v, each (lon, lat, n), from coefficients s, t of vector harmonics; degree 0 has no effect."""
        return self.winds(toroidal * self.curl, spheroidal * self.curl)

    def vector_analysis(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coefficients s, t of vector harmonics of u, v, each (lon, lat, n)."""
        vorticity, divergence = self.vorticity_divergence(u, v)
        inverse = self.curl * self.inverse_laplacian  # curl^2 = -laplacian
        return -divergence * inverse, -vorticity * inverse

    def vorticity_divergence(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return coefficients of vorticity and divergence (s-1) of u, v (m s-1), each (lon, lat, n)."""
        n = u.shape[2]
        waves = matrix_products.waves(torch.cat([u, v], dim=2).to(self.dtype), self.wave_tables)
        tables = self.weighted("vector_synthesis" if self.quadrature else "vector_analysis", "scale")
        over_cosine, derivative = matrix_products.sums(waves, *tables).unbind(1)
        along = self.times_im(over_cosine.contiguous())
        return along[:, :, n:] + derivative[:, :, :n], along[:, :, :n] - derivative[:, :, n:]


def vector_functions(kind: str, nlat: int, degrees: int, start: int, end: int, condon_shortley: bool) -> np.ndarray:
    """Return P / cos and dP/dphi of the orders from `start` to `end`, (end - start, 1, 2, degrees - start, nlat)."""
    mu = nodes(kind, nlat)[0]
    pair = [function(degrees, end, mu, start) for function in (legendre_over_cosine, legendre_derivative)]
    table = np.stack(pair, axis=1)[:, None, :, start:]
    return table * phase(start, end) if condon_shortley else table


def doubled(
    name: str, factor: str, kind: str, nlat: int, nlon: int, degrees: int, orders: int, condon: bool, radius: float
) -> np.ndarray:
    """Return functions for real and imaginary rows, with their factor, (orders, 2, kinds, degrees, nlat)."""
    make = vector_functions if name.startswith("vector") else functions
    table = make(kind, nlat, degrees, 0, orders, condon)
    by = scale(kind, nlat, nlon, True) if factor == "scale" else counts(orders)
    unit = radius if name.startswith("vector") else 1.0
    return table * (by / unit)


def vector_inverses(kind: str, nlat: int, degrees: int, start: int, end: int, condon_shortley: bool) -> np.ndarray:
    """Return the tables that replace `vector_functions` and weights in `vorticity_divergence`, in the same shape.

    Least squares for psi and i chi from u and i v, which makes all numbers real: u = -P' psi + m P/cos (i chi),
    i v = -m P/cos psi + P' (i chi). By symmetry the rows for psi are enough.
    """
    table = vector_functions(kind, nlat, degrees, start, end, condon_shortley)
    weights = nodes(kind, nlat)[1]
    inverse = np.zeros_like(table)
    for m in range(start, end):
        first = max(m, 1)  # the mean of a potential is no flow
        over_cosine, derivative = table[m - start, 0, :, first - start :].transpose(0, 2, 1)
        system = np.block([[-derivative, m * over_cosine], [-m * over_cosine, derivative]])
        from_u, from_iv = np.split(least_squares(system, np.tile(weights, 2))[: degrees - first], 2, axis=1)
        l = np.arange(first, degrees)[:, None]
        inverse[m - start, 0, :, first - start :] = -l * (l + 1) * np.stack([from_iv / max(m, 1), from_u])
    return inverse


def _laplacian(degrees: int, radius: float) -> np.ndarray:
    l = np.arange(degrees)
    return (-l * (l + 1.0) / radius**2)[None, :, None]


def _curl(degrees: int, radius: float) -> np.ndarray:
    """Return -sqrt(l (l + 1)) / a: vorticity of toroidal and divergence of spheroidal harmonics."""
    return -np.sqrt(-_laplacian(degrees, radius))


def _inverse_laplacian(degrees: int, radius: float) -> np.ndarray:
    """Return the inverse eigenvalues of the Laplacian, 0 for the mean."""
    eigenvalues = _laplacian(degrees, radius)
    return np.divide(1.0, eigenvalues, out=np.zeros_like(eigenvalues), where=eigenvalues < 0)


def _signed_order(orders: int) -> np.ndarray:
    return (np.repeat(np.arange(orders), 2) * np.tile([-1.0, 1.0], orders))[:, None, None]


class Regrid(nn.Module):
    """Regrid fields (..., lat, lon) from `source` to `target`.

    degrees: default, as many as both grids resolve. Raises ValueError if a grid does not cover the sphere or resolves
    fewer degrees, and for fields of another grid.
    """

    def __init__(
        self, source: LatLonGrid, target: LatLonGrid, degrees: int | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        resolved = [degrees_and_orders(grid, degrees) for grid in (source, target)]
        degrees, orders = (min(numbers) for numbers in zip(*resolved, strict=True))
        self.source, self.target = (SphericalCalculus(grid, degrees, orders, dtype) for grid in (source, target))

    def forward(self, field: Tensor) -> Tensor:
        """Regrid scalar fields: (..., lat, lon) -> (..., lat', lon')."""
        return _customary(self.target.synthesis(self.source.analysis(self._native(field))), field)

    def winds(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Regrid eastward and northward wind: (..., lat, lon) each -> (..., lat', lon') each."""
        if u.shape != v.shape:
            raise ValueError(f"Expected two components of one shape; got {tuple(u.shape)} and {tuple(v.shape)}.")
        vorticity, divergence = self.source.vorticity_divergence(self._native(u), self._native(v))
        east, north = self.target.winds(vorticity, divergence)
        return _customary(east, u), _customary(north, v)

    def _native(self, field: Tensor) -> Tensor:
        check_last("fields (..., lat, lon)", field, self.source.grid.shape)
        return field.reshape(-1, *field.shape[-2:]).permute(2, 1, 0)


def _customary(field: Tensor, like: Tensor) -> Tensor:
    return field.permute(2, 1, 0).reshape(*like.shape[:-2], field.shape[1], field.shape[0])
