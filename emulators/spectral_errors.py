"""What spectral losses are made of: a prediction and its truth by total wavenumber, channel by channel.

With a the coefficients of the prediction, b those of the truth and d = a - b, all in units of the channel's scale,

    P_a(l) = sum_m |a_lm|^2 + epsilon,   P_b(l) likewise,   D(l) = sum_m |d_lm|^2,   sums over all m, m > 0 twice
    amplitude  A = (sqrt(P_a) - sqrt(P_b))^2 = ((D + 2 Re sum_m d conj(b)) / (sqrt(P_a) + sqrt(P_b)))^2
    phase      F = D - A = 2 (sqrt(P_a P_b) - Re sum_m a conj(b) - epsilon) = 2 sqrt(P_a P_b) (1 - C)

so that the mean square error of degree l splits into A and F, and C is the coherence. epsilon, the same under both
roots, stands for one more coefficient that both fields share: the gradients are finite where a field has no power, and
nothing else changes. Since the errors of a short forecast are far smaller than its fields, everything is taken from
the transform of the difference, not from a difference of transforms.
Split: Subich et al. 2025, arXiv 2501.19374, after Murphy 1988, doi 10.1175/1520-0493(1988)116<2417:SSBOTM>2.0.CO;2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from emulators.sphere.spectra import cross_power, power
from emulators.sphere.transform import SphericalHarmonics
from emulators.state import State
from emulators.weights import Channels, at_least_single
from emulators.world import World


class ByDegree(NamedTuple):
    """Spectra of the scaled fields by total wavenumber, each of shape (degree, row), a row a channel of a lead element.

    prediction, truth: P_a and P_b, at least epsilon. excess: P_a - P_b. error: D. amplitude: A. phase: F.
    """

    prediction: Tensor
    truth: Tensor
    excess: Tensor
    error: Tensor
    amplitude: Tensor
    phase: Tensor


class SpectralErrors(nn.Module):
    """Two States of a world's predicted variables -> their spectra by degree, and back to one number a lead element.

    degrees: how many total wavenumbers count, from 0; default: all that the grid resolves. epsilon: see above.
    scale, variable_weights, level_weights: as in `emulators.weights.Channels`.
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
        if not epsilon > 0:
            raise ValueError(f"epsilon is a power above 0, in units of the squared scale; got {epsilon}.")
        self.epsilon = epsilon
        self.channels = Channels(world, scale, variable_weights, level_weights)
        self.harmonics = SphericalHarmonics(world.grid, degrees)

    @property
    def degrees(self) -> int:
        return self.harmonics.degrees

    def forward(self, prediction: State, target: State) -> ByDegree:
        with torch.autocast(prediction.values.device.type, enabled=False):
            error = self.analysis(self.channels.difference(prediction, target))
            sums = Sums.apply(error, self.analysis(at_least_single(target.values)))
            factor = self.factor(sums[0])
            return by_degree(sums[0] * factor, sums[1] * factor, sums[2] * factor, self.epsilon)

    def error(self, prediction: State, target: State) -> Tensor:
        """D alone, (degree, row): what needs no spectrum of the truth."""
        with torch.autocast(prediction.values.device.type, enabled=False):
            squared = power(self.analysis(self.channels.difference(prediction, target)))
            return squared * self.factor(squared)

    def analysis(self, fields: Tensor) -> Tensor:
        """(*lead, channel, lat, lon) -> coefficients (2 * orders, degrees, row)."""
        harmonics = self.harmonics
        if fields.dtype == torch.float64:
            harmonics = SphericalHarmonics(harmonics.grid, self.degrees, dtype=fields.dtype).to(fields.device)
        return harmonics.analysis(fields.flatten(0, -3).permute(2, 1, 0))

    def factor(self, rows: Tensor) -> Tensor:
        """1 / s^2 of each row of (degree, row): to scale sums costs a fraction of scaling fields."""
        inverse = self.channels.inverse_scale.flatten().to(rows.dtype)
        return inverse.square().repeat(rows.shape[-1] // len(inverse))

    def checked(self, lowest: int) -> int:
        """`lowest`, where there is such a degree; else ValueError."""
        if not 0 <= lowest < self.degrees:
            raise ValueError(
                f"lowest is a total wavenumber below {self.degrees}, the degrees that count; got {lowest}."
            )
        return lowest

    def mean(self, rows: Tensor, lead: tuple[int, ...]) -> Tensor:
        """The weighted mean over channels, (row) -> (*lead)."""
        return self.channels.mean(rows.view(*lead, -1))


class Sums(torch.autograd.Function):
    """Coefficients d and b -> sum_m |d|^2, Re sum_m d conj(b), sum_m |b|^2; its gradient in two passes over each."""

    @staticmethod
    def forward(ctx: Any, error: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(error, truth)
        return power(error), cross_power(error, truth), power(truth)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, squared: Tensor, shared: Tensor, own: Tensor) -> tuple[Tensor | None, Tensor | None]:
        error, truth = ctx.saved_tensors
        slopes = (
            _slope(error, 2.0 * squared, truth, shared) if ctx.needs_input_grad[0] else None,
            _slope(truth, 2.0 * own, error, shared) if ctx.needs_input_grad[1] else None,
        )
        return slopes


def _slope(first: Tensor, one: Tensor, second: Tensor, two: Tensor) -> Tensor:
    """first * one + second * two for coefficients, in which m > 0 counts twice and order 0 has no imaginary part."""
    slope = (first * (2.0 * one)).addcmul_(second, 2.0 * two)
    slope[0] *= 0.5
    slope[1] = 0.0
    return slope


def by_degree(error: Tensor, shared: Tensor, truth: Tensor, epsilon: float) -> ByDegree:
    """Spectra from the sums of |d|^2, Re d conj(b) and |b|^2 over the orders, (degree, row) each."""
    excess = error + 2.0 * shared
    ours, theirs = (truth + excess).clamp(min=0.0) + epsilon, truth + epsilon
    amplitude = (excess / (ours.sqrt() + theirs.sqrt())).square()
    return ByDegree(ours, theirs, excess, error, amplitude, error - amplitude)
