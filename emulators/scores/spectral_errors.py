"""Errors of a prediction by total wavenumber, channel by channel: the parts of spectral losses.

With a the coefficients of the prediction, b those of the truth and d = a - b, all in units of the channel's scale,

    P_a(l) = sum_m |a_lm|^2 + epsilon,   P_b(l) likewise,   D(l) = sum_m |d_lm|^2,   sums over all m, m > 0 twice
    excess     E = P_a - P_b = Re sum_m d conj(a + b)
    amplitude  A = (sqrt(P_a) - sqrt(P_b))^2 = (E / (sqrt(P_a) + sqrt(P_b)))^2
    coherence  C = (Re sum_m a conj(b) + epsilon) / sqrt(P_a P_b),   1 - C = (D - A) / (2 sqrt(P_a P_b))

so that the mean square error of degree l splits into A and the error of phase, 2 sqrt(P_a P_b) (1 - C). epsilon, the
same under both roots, stands for one more coefficient that both fields share: the gradients are finite where a field
has no power, and nothing else changes. The errors of a short forecast are far smaller than its fields, and the power of
either field may be far smaller than the other's: so d comes from the transform of the difference, not from a difference
of transforms, P_a and E have sums of their own, and 1 - C comes from D - A where errors are small, from C elsewhere.
Split: Subich et al. 2025, arXiv 2501.19374, after Murphy 1988, doi 10.1175/1520-0493(1988)116<2417:SSBOTM>2.0.CO;2.

Shape of spectra: how a forecast's power is spread over the smallest scales, compared with the truth's.

With T and P the power of truth and forecast at the last tenth of the wavenumbers, each divided by its sum there,

    spectral divergence = sum T log(T / P)        spectral residual = sqrt(mean of (P - T)^2)

Both are 0 where the shapes agree, whatever the amount of power. Nathaniel et al. 2024, arXiv 2402.00712, whose own
spectra (`image_power`) are those of the plain image of latitude and longitude, of fields averaged over initial times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from emulators.scores.channel_weights import ChannelWeights, at_least_single
from emulators.sphere.spectra import cross_power, power
from emulators.sphere.transform import SphericalHarmonics
from emulators.state import State
from emulators.world import World


class ByDegree(NamedTuple):
    """Hold spectra of the scaled fields by total wavenumber, each of shape (degree, *lead, channel).

    prediction, truth: P_a and P_b, at least epsilon. excess: E. error: D. amplitude: A. lost: 1 - C.
    """

    prediction: Tensor
    truth: Tensor
    excess: Tensor
    error: Tensor
    amplitude: Tensor
    lost: Tensor


class SpectralErrors(nn.Module):
    """Compute spectra by degree of two States of the predicted variables, and means of these over channels.

    A truth without the first axes of its prediction, such as that of members, is the truth of all along them.
    degrees: how many total wavenumbers count, from 0; default: all that the grid resolves. epsilon: see above.
    scale, variable_weights, level_weights: as in `emulators.scores.channel_weights.ChannelWeights`.
    Transforms and sums run in single precision or better whatever autocast says.
    """

    def __init__(
        self,
        world: World,
        degrees: int | None = None,
        epsilon: float = 1e-8,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__()
        if not 0 < epsilon < math.inf:
            raise ValueError(
                f"Expected epsilon, a power in units of the squared scale, finite and above 0; got {epsilon}."
            )
        self.epsilon = epsilon
        self.channels = ChannelWeights(world, scale, variable_weights, level_weights)
        self.harmonics = SphericalHarmonics(world.lat_lon, checked_degrees(degrees))

    @property
    def degrees(self) -> int:
        return self.harmonics.degrees

    def forward(self, prediction: State, target: State) -> ByDegree:
        with torch.autocast(prediction.values.device.type, enabled=False):
            error = self.analysis(self.channels.difference(prediction, target))
            truth = self.analysis(at_least_single(target.values))
            newer = [1] * (error.ndim - truth.ndim)  # axes that the truth lacks
            truth = truth.view(*truth.shape[:2], *newer, *truth.shape[2:]).expand_as(error)
            factor = self.factor(prediction, error.dtype)
            return by_degree(SpectralSums(*(rows * factor for rows in Sums.apply(error, truth))), self.epsilon)

    def error(self, prediction: State, target: State) -> Tensor:
        """D alone, (degree, *lead, channel): what needs no spectrum of the truth."""
        with torch.autocast(prediction.values.device.type, enabled=False):
            squared = power(self.analysis(self.channels.difference(prediction, target)))
            return squared * self.factor(prediction, squared.dtype)

    def analysis(self, fields: Tensor) -> Tensor:
        """(*lead, channel, lat, lon) -> coefficients (2 * orders, degree, *lead, channel)."""
        harmonics = self.harmonics
        if fields.dtype == torch.float64:
            harmonics = SphericalHarmonics(harmonics.grid, self.degrees, dtype=fields.dtype).to(fields.device)
        return harmonics.analysis(fields.flatten(0, -3).permute(2, 1, 0)).unflatten(-1, fields.shape[:-2])

    def factor(self, prediction: State, dtype: torch.dtype) -> Tensor:
        """1 / s^2 of each channel for a prediction: to scale sums costs a fraction of scaling fields."""
        return self.channels.inverse_scale(prediction).flatten().to(dtype).square()

    def checked(self, lowest: int) -> int:
        """`lowest`, where there is such a degree; else ValueError."""
        if not (isinstance(lowest, int) and 0 <= lowest < self.degrees):
            raise ValueError(
                f"Expected lowest, the first total wavenumber that counts, from 0 to {self.degrees - 1}; got {lowest}."
            )
        return lowest

    def mean(self, values: Tensor) -> Tensor:
        """The weighted mean over channels, (*lead, channel) -> (*lead)."""
        return self.channels.mean(values)


def checked_degrees(degrees: int | None, least: int = 1) -> int | None:
    """`degrees`, a number of total wavenumbers from `least`, or None for all; else ValueError."""
    if degrees is not None and not (isinstance(degrees, int) and degrees >= least):
        raise ValueError(
            f"Expected degrees, how many total wavenumbers count, a whole number from {least}, "
            f"or null for all that the grid resolves; got {degrees}."
        )
    return degrees


class SpectralSums(NamedTuple):
    """Hold |d|^2, |a|^2, |b|^2, |a|^2 - |b|^2 and Re a conj(b), summed over the orders, (degree, ...) each."""

    error: Tensor
    prediction: Tensor
    truth: Tensor
    excess: Tensor
    shared: Tensor


class Sums(torch.autograd.Function):
    """Compute `SpectralSums` from coefficients d and b, with gradients that hold where one is far below the others."""

    @staticmethod
    def forward(ctx: Any, error: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(error, truth)
        squared, cross, truth_power = power(error), cross_power(error, truth), power(truth)
        return squared, power(error + truth), truth_power, squared + 2.0 * cross, truth_power + cross

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, Tensor | None]:
        error, truth = ctx.saved_tensors
        squared, ours, theirs, excess, shared = slopes
        return (
            _slope(error, truth, 2.0 * (ours + excess), 2.0 * squared, shared) if ctx.needs_input_grad[0] else None,
            _slope(error, truth, 2.0 * ours + shared, 2.0 * excess, 2.0 * theirs + shared)
            if ctx.needs_input_grad[1]
            else None,
        )


def _slope(error: Tensor, truth: Tensor, of_sum: Tensor, of_error: Tensor, of_truth: Tensor) -> Tensor:
    """a * of_sum + d * of_error + b * of_truth, in which m > 0 counts twice and order 0 has no imaginary part."""
    slope = (error + truth).mul_(2.0 * of_sum).addcmul_(error, 2.0 * of_error).addcmul_(truth, 2.0 * of_truth)
    slope[0] *= 0.5
    slope[1] = 0.0
    return slope


def by_degree(sums: SpectralSums, epsilon: float) -> ByDegree:
    """Spectra from sums over the orders, in units of the squared scale."""
    forecast, truth = sums.prediction + epsilon, sums.truth + epsilon
    roots = forecast.sqrt(), truth.sqrt()
    amplitude = (sums.excess / (roots[0] + roots[1])).square()
    product = roots[0] * roots[1]
    lost = torch.where(
        sums.error < product, 0.5 * (sums.error - amplitude) / product, 1.0 - (sums.shared + epsilon) / product
    )
    return ByDegree(forecast, truth, sums.excess, sums.error, amplitude, lost)


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
    tail = power[int(first * len(power)) :]
    return tail / tail.sum(dim=0)


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
