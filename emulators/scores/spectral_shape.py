"""Shape of spectra: how a forecast's power is spread over the smallest scales, compared with the truth's.

With T and P the power of truth and forecast at the last tenth of the wavenumbers, each divided by its sum there,

    spectral divergence = sum T log(T / P)        spectral residual = sqrt(mean of (P - T)^2)

Both are 0 where the shapes agree, whatever the amount of power. Nathaniel et al. 2024, arXiv 2402.00712, whose own
spectra (`image_power`) are those of the plain image of latitude and longitude, of fields averaged over initial times.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FIRST = 0.9  # share of the wavenumbers that are passed over
LEAST = 1e-9  # ratio of shares below which the logarithm is taken of this


def spectral_divergence(forecast: Tensor, truth: Tensor, first: float = FIRST) -> Tensor:
    """The spectral divergence of power by wavenumber, (wavenumber, ...) each -> (...); NaN without power there."""
    predicted, true = _shares(forecast, first), _shares(truth, first)
    return (true * (true / predicted).clamp(min=LEAST).log()).sum(dim=0)


def spectral_residual(forecast: Tensor, truth: Tensor, first: float = FIRST) -> Tensor:
    """The spectral residual of power by wavenumber, (wavenumber, ...) each -> (...); NaN without power there."""
    return (_shares(forecast, first) - _shares(truth, first)).square().mean(dim=0).sqrt()


def _shares(power: Tensor, first: float) -> Tensor:
    kept = power[int(first * len(power)) :]
    return kept / kept.sum(dim=0)


def image_power(fields: Tensor) -> Tensor:
    """Mean power of the two-dimensional Fourier transform by wavenumber, (..., lat, lon) -> (wavenumber, ...).

    Wavenumbers are the distance from the origin, in waves an image, in bins of nearly 1 from 0.5 to the corner of the
    plane; converging meridians and the step from pole to pole are passed over, as in ChaosBench.
    """
    rows, columns = fields.shape[-2:]
    whole = torch.fft.fft2(fields).abs().square().flatten(-2)
    along, across = (torch.fft.fftfreq(n, 1.0 / n, dtype=torch.float64) for n in (rows, columns))
    distance = torch.hypot(along[:, None], across).flatten()
    corner = float(distance.max())
    edges = torch.linspace(0.5, corner, math.ceil(corner - 0.5) + 1, dtype=torch.float64)
    place = torch.bucketize(distance, edges[:-1], right=True)  # 0: the mean of the field
    sums = whole.new_zeros((len(edges), *whole.shape[:-1])).index_add_(0, place, whole.movedim(-1, 0))
    counts = torch.bincount(place, minlength=len(edges)).to(whole)
    return (sums / counts.view(-1, *(1,) * (whole.ndim - 1)))[1:]
