"""CRPS of the harmonic coefficients of an ensemble, as a loss: every scale is to spread as the truth does.

    L = sqrt(N / 4 pi) mean over coefficients of  ( E|a - b| - c/2 E|a - a'| ),    |a| the modulus of a complex number

over the N coefficients a of a member and b of the truth, both signs of m; or, `degree`, with the norm over all orders
of a degree in place of the modulus, and L degrees in place of N: the energy score of each degree. White errors are
worth as much as in the CRPS of points. As in the loss of ACE's ensembles (0.9 of crps and 0.1 of this) and the
spectral CRPS of anemoi; c as in `emulators.scores.ensemble`.

Points that do not count, or where the truth is missing, are left out of both terms: members and truth are the same
there, errors 0, and the rest is divided by sqrt(f), f the share of the area that counts, so that white errors over it
are still worth as much as in the CRPS. Coefficients are those of masked errors: a coast mixes degrees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from emulators.scores.counted_points import CountedPoints
from emulators.scores.ensemble import Kind, kernel_score, root, spread_weight
from emulators.scores.spectral_errors import SpectralErrors
from emulators.sphere.spectra import power
from emulators.state import State
from emulators.world import World


class SpectralCRPS(nn.Module):
    """Compute the spectral CRPS of each case: an ensemble (member, batch, ...) and its truth (batch, ...).

    by: `coefficient` or `degree`. degrees: number of total wavenumbers, from 0; default: all that the grid resolves.
    kind, alpha, points, scale, variable_weights, level_weights: as in `emulators.losses.crps.CRPS`.
    """

    multiplicity: Tensor

    def __init__(
        self,
        world: World,
        *,
        by: Literal["coefficient", "degree"] = "coefficient",
        degrees: int | None = None,
        kind: Kind = "almost_fair",
        alpha: float = 0.95,
        points: Mapping[str, str] | None = None,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__()
        if by not in ("coefficient", "degree"):
            raise ValueError(f"Expected by to be 'coefficient' or 'degree'; got '{by}'.")
        spread_weight(kind, 2, alpha)  # raises ValueError for an unknown kind
        self.by, self.kind, self.alpha = by, kind, alpha
        self.points = CountedPoints(world, points, scale, variable_weights, level_weights)
        self.spectra = SpectralErrors(world, degrees)
        l, m = torch.arange(self.spectra.degrees), torch.arange(self.spectra.harmonics.orders)[:, None]
        count = torch.where(m == 0, 1.0, 2.0) * (l >= m)  # signs of m, (order, degree)
        self.register_buffer("multiplicity", count, persistent=False)

    def forward(self, prediction: State, target: State) -> Tensor:
        with torch.autocast(prediction.values.device.type, enabled=False):  # sums in single precision
            error, counted = self.points.errors(prediction, target)
            if counted is not None:
                share = counted.to(error.dtype).flatten(-2) @ self.points.area.to(error.dtype)
                error = error * share.clamp(min=1e-12).rsqrt()[..., None, None]
            numbers = self.spectra.analysis(error)
            if len(prediction.lead) == len(target.lead):
                return self._size(numbers)
            rows = -3 - len(target.lead)  # the axis of orders from the end, as members may stand before it
            return kernel_score(
                numbers.movedim(2, 0), lambda n: self._size(n.movedim((rows, rows + 1), (0, 1))), self.kind, self.alpha
            )

    def _size(self, numbers: Tensor) -> Tensor:
        """Return the mean size of coefficients, (2 * orders, degree, *lead, channel) -> (*lead)."""
        lead, numbers = numbers.shape[2:], numbers.flatten(2)
        if self.by == "degree":
            sizes = root(power(numbers)).mean(0) * math.sqrt(self.spectra.degrees / (4.0 * math.pi))
        else:
            count = self.multiplicity.to(numbers.dtype)
            sizes = _SumOfModuli.apply(numbers, count) / (4.0 * math.pi * count.sum()).sqrt()
        return (sizes.view(lead) * self.points.weights.to(sizes.dtype)).sum(-1)


class _SumOfModuli(torch.autograd.Function):
    """Sum the moduli of coefficients, (2 * orders, degree, n), times their counts, (order, degree), to (n).

    By hand because its parts, in autograd, take as long as the transform. The gradient is 0 where a modulus is.
    """

    @staticmethod
    def forward(ctx: Any, numbers: Tensor, count: Tensor) -> Tensor:
        real, imaginary = numbers.unflatten(0, (-1, 2)).unbind(1)
        moduli = torch.hypot(real, imaginary)
        moduli[0] = real[0].abs()  # order 0 has no imaginary part
        ctx.save_for_backward(numbers, moduli, count)
        return count.flatten() @ moduli.flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        numbers, moduli, count = ctx.saved_tensors
        directions = numbers.unflatten(0, (-1, 2)) / moduli.clamp(min=torch.finfo(moduli.dtype).tiny).unsqueeze(1)
        slopes = directions * (count[..., None] * slope).unsqueeze(1)
        slopes[0, 1] = 0.0
        return slopes.flatten(0, 1), None
