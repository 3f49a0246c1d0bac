"""Spectra: power by total wavenumber, what two fields share of it, zonal spectra by latitude, effective resolution.

    power         P(l)    = sum over all m of |a_lm|^2 = |a_l0|^2 + 2 sum over m > 0 of |a_lm|^2
    cross power   X(l)    = Re sum over all m of a_lm conj(b_lm)
    coherence     C(l)    = X / sqrt(P_a P_b)
    Parseval      sum over l of P(l) = 4 pi * (area mean of f^2)
    zonal         S(k)    = 2 pi R cos(latitude) (2 - delta_k0) |F_k|^2,   F_k = mean of f exp(-i k longitude)

The zonal energy spectrum is that of WeatherBench 2, which counts the last wavenumber of an even row twice as well
(Rasp et al. 2024, arXiv 2308.15560). Coherence and power are those of AMSE (Subich et al. 2025, arXiv 2501.19374).
Coefficients come in the layout of `SphericalHarmonics`, (2 * orders, degrees, n), zero where l < m.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emulators.constants import EARTH_RADIUS
from emulators.grid import LatLonGrid
from emulators.sphere.transform import check_last

WEATHERBENCH_RADIUS = 6.3675e6  # m, the mean of 6357 km and 6378 km, for zonal spectra alone


def cross_power(a: Tensor, b: Tensor) -> Tensor:
    """Two sets of coefficients (2 * orders, degrees, n) -> X(l), (degrees, n)."""
    weights = a.new_full((a.shape[0],), 2.0)
    weights[0], weights[1] = 1.0, 0.0  # order 0 stands once, and has no imaginary part
    return (weights @ (a * b).flatten(1)).view(a.shape[1:])


def power(coefficients: Tensor) -> Tensor:
    """Coefficients (2 * orders, degrees, n) -> P(l), (degrees, n). Divide by 4 pi for shares of the mean square."""
    return cross_power(coefficients, coefficients)


def coherence(a: Tensor, b: Tensor) -> Tensor:
    """Two sets of coefficients (2 * orders, degrees, n) -> C(l) in -1..1, (degrees, n); 0 where either has no power."""
    amplitudes = [torch.where(p > 0, p, 1.0).sqrt() for p in (power(a), power(b))]
    return cross_power(a, b) / amplitudes[0] / amplitudes[1]


def zonal_energy_spectrum(field: Tensor, grid: LatLonGrid) -> Tensor:
    """(..., lat, lon) in units -> S(k) in units2 m, (..., lat, lon // 2 + 1). Average it over time, not the field."""
    if not grid.is_cyclic:
        raise ValueError(f"A zonal spectrum needs whole circles of latitude; got {grid!r}.")
    check_last("fields (..., lat, lon)", field, grid.shape)
    waves = torch.view_as_real(torch.fft.rfft(field, norm="forward")).square().sum(-1)
    waves[..., 1:] *= 2.0
    circles = torch.from_numpy(_circumference(grid)).to(waves)
    return waves * circles[:, None]


def zonal_wavelength(grid: LatLonGrid) -> np.ndarray:
    """Wavelength (m) of each zonal wavenumber on each row, infinite for the mean, float64, (lat, lon // 2 + 1)."""
    waves = np.arange(grid.shape[1] // 2 + 1.0)
    with np.errstate(divide="ignore"):
        return _circumference(grid)[:, None] / waves


def _circumference(grid: LatLonGrid) -> np.ndarray:
    return 2.0 * np.pi * WEATHERBENCH_RADIUS * np.cos(np.deg2rad(grid.latitude))


@dataclass(frozen=True)
class EffectiveResolution:
    """degree: the last one resolved, int64. wavelength: 2 pi radius / degree (m), infinite where none is resolved."""

    degree: Tensor
    wavelength: Tensor
    threshold: float
    convention: str


def effective_resolution(
    forecast: Tensor, truth: Tensor, threshold: float = 0.5, radius: float = EARTH_RADIUS
) -> EffectiveResolution:
    """How fine a forecast is: the last degree up to which it keeps `threshold` of the truth's power at every degree.

    forecast, truth: power by degree, (degrees, ...), the mean before l = 1 not counted; averages over dates and members
    are taken of the power, before this. Wavelengths are whole ones; half of it is the size of one crest.
    """
    if not threshold > 0.0:
        raise ValueError(f"Expected a threshold above 0, as a share of the truth's power; got {threshold}.")
    degree = (forecast[1:] >= threshold * truth[1:]).cumprod(dim=0).sum(dim=0)
    wavelength = 2.0 * torch.pi * radius / degree.to(torch.float64)
    convention = (
        f"wavelength 2 pi a / l of the last degree l with power(forecast) >= {threshold:g} power(truth) at 1..l, "
        f"a = {radius:g} m"
    )
    return EffectiveResolution(degree, wavelength, threshold, convention)
