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


CLIFF, CLIFF_FROM = 30.0, 4  # fall of power that ends a spectrum, and the first degree at which it may
NOISE = 1e-5  # share of the truth's variance in one degree from which excess power is called noise


@dataclass(frozen=True)
class EffectiveResolution:
    """Hold the effective resolution of forecasts, int64 degrees and float64 numbers of one shape.

    degree: the last degree resolved. wavelength: 2 pi radius / degree (m), infinite if none is resolved. coherent: the
    last degree up to which forecast and truth are coherent, -1 where that is not known. last: the last degree of the
    truth. noise: excess power as a share of the truth's variance. noise_degree: the first degree with it, 0 if there is
    none. convention: the definitions, in words.
    """

    degree: Tensor
    wavelength: Tensor
    coherent: Tensor
    last: Tensor
    noise: Tensor
    noise_degree: Tensor
    convention: str


def effective_resolution(
    forecast: Tensor,
    truth: Tensor,
    threshold: float = 0.5,
    radius: float = EARTH_RADIUS,
    *,
    coherence: Tensor | None = None,
    last: Tensor | None = None,
) -> EffectiveResolution:
    """Return the last degree up to which the power of a forecast is near the truth's at every degree.

    Near is from `threshold` to 1 / threshold of it: more is noise and resolves nothing. No degree beyond the truth's
    last is resolved. forecast, truth, coherence: by degree, (degrees, ...), the mean before l = 1 not counted; average
    power over dates and members, not fields. last: of the truth, default that of `last_degree`. Wavelengths are whole
    ones; half of it is the size of one crest. Raises ValueError for a threshold that is no share.
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(
            f"Expected a threshold above 0 and at most 1, as a share of the truth's power; got {threshold}."
        )
    last = last_degree(truth) if last is None else last
    inside = _degrees(truth) <= last
    degree = _reached((forecast >= threshold * truth) & (threshold * forecast <= truth) & inside)
    excess = (forecast - truth / threshold).clamp(min=0.0)[1:] / truth[1:].sum(dim=0)
    noisy = excess > NOISE
    noise_degree = torch.where(noisy.any(dim=0), noisy.to(torch.int64).argmax(dim=0) + 1, 0)
    wavelength = 2.0 * torch.pi * radius / degree.to(torch.float64)
    convention = (
        f"wavelength 2 pi a / l of the last degree l, none beyond the truth's last, with {threshold:g} power(truth) <= "
        f"power(forecast) <= {1 / threshold:g} power(truth) at 1..l, a = {radius:g} m; coherent: the last degree with "
        f"coherence >= {threshold:g} at 1..l; noise: power above {1 / threshold:g} power(truth), as a share of the "
        "truth's variance"
    )
    return EffectiveResolution(
        degree,
        wavelength,
        torch.full_like(degree, -1) if coherence is None else _reached((coherence >= threshold) & inside),
        last,
        torch.where(noisy, excess, 0.0).sum(dim=0),
        noise_degree,
        convention,
    )


def last_degree(truth: Tensor) -> Tensor:
    """Return the degree at which the power of data ends, (...), from power by degree, (degrees, ...).

    It is the first (of at least 4) beyond which no degree has 1/30 of its power, as where a spectral model is
    truncated; else the last degree there is.
    """
    beyond = truth.flip(0).cummax(dim=0).values.flip(0)[1:]  # the largest power at higher degrees
    cliff = (beyond < truth[:-1] / CLIFF) & (_degrees(truth)[:-1] >= CLIFF_FROM)
    return torch.where(cliff.any(dim=0), cliff.to(torch.int64).argmax(dim=0), len(truth) - 1)


def _degrees(like: Tensor) -> Tensor:
    return torch.arange(len(like)).view(-1, *[1] * (like.ndim - 1))


def _reached(holds: Tensor) -> Tensor:
    """The last degree up to which something holds at every degree from 1 on; holds: (degrees, ...)."""
    return holds[1:].to(torch.int64).cumprod(dim=0).sum(dim=0)
