"""Spectra by total wavenumber: power, cross power of two fields, effective resolution.

    power         P(l)    = sum over all m of |a_lm|^2 = |a_l0|^2 + 2 sum over m > 0 of |a_lm|^2
    cross power   X(l)    = Re sum over all m of a_lm conj(b_lm)
    Parseval      sum over l of P(l) = 4 pi * (area mean of f^2)

Power and cross power are those of AMSE (Subich et al. 2025, arXiv 2501.19374).
Coefficients come in the layout of `SphericalHarmonics`, (2 * orders, degrees, n), zero where l < m.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from emulators.constants import EARTH_RADIUS


def cross_power(a: Tensor, b: Tensor) -> Tensor:
    """Return the cross power X(l), (degrees, n), of two sets of coefficients (2 * orders, degrees, n)."""
    weights = a.new_full((a.shape[0],), 2.0)
    weights[0], weights[1] = 1.0, 0.0  # order 0 counts once, and has no imaginary part
    return (weights @ (a * b).flatten(1)).view(a.shape[1:])


def power(coefficients: Tensor) -> Tensor:
    """Return the power P(l), (degrees, n), of coefficients (2 * orders, degrees, n).

    Divided by 4 pi it is the share of each degree in the mean square.
    """
    return cross_power(coefficients, coefficients)


@dataclass(frozen=True)
class EffectiveResolution:
    """Hold the effective resolution of forecasts.

    degree: the last degree resolved, int64. wavelength: 2 pi radius / degree (m), infinite if none is resolved.
    threshold: share of the truth's power. convention: the definition, in words.
    """

    degree: Tensor
    wavelength: Tensor
    threshold: float
    convention: str


def effective_resolution(
    forecast: Tensor, truth: Tensor, threshold: float = 0.5, radius: float = EARTH_RADIUS
) -> EffectiveResolution:
    """Return the last degree up to which a forecast has at least `threshold` of the truth's power at every degree.

    forecast, truth: power by degree, (degrees, ...), the mean before l = 1 not counted; average power over dates and
    members, not fields. Wavelengths are whole ones; half of it is the size of one crest. Raises ValueError for a
    threshold that is not positive.
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
