"""Filters of harmonic coefficients beside the convolution by degree: a matrix for each coefficient, and an MLP.

    diagonal   b_lm = a_lm W_lm                                  l >= m; commutes with rotations about the axis only
    mlp        b_lm = V phi(... phi(a_lm U_1) ...),  phi(z) = z / |z| ReLU(|z| + bias)

U, V and W are complex matrices of channels, stored as pairs of real numbers; those of the MLP are shared by all
coefficients. phi keeps the phase (Arjovsky et al. 2016, arXiv 1511.06464), so that the MLP commutes with rotations
about the planet's axis. After the operators `diagonal` and `non-linear` of Bonev et al. 2023, arXiv 2306.03838.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn


def real_matrix(weight: Tensor) -> Tensor:
    """Complex matrices (..., in, out, 2) as real ones for rows [Re a, Im a]: (..., 2 in, 2 out)."""
    real, imaginary = weight.unbind(-1)
    return torch.cat([torch.cat([real, imaginary], -1), torch.cat([-imaginary, real], -1)], -2)


class DiagonalConvolution(nn.Module):
    """Coefficients (2 * orders, degrees, batch, channel) to the same shape; what stands at l < m becomes 0."""

    order: Tensor
    degree: Tensor

    def __init__(self, degrees: int, orders: int, channels: int) -> None:
        super().__init__()
        pairs = [(m, l) for m in range(orders) for l in range(m, degrees)]
        order, degree = torch.tensor(pairs).T
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("degree", degree, persistent=False)
        part = torch.randn(len(pairs), channels, channels, 2) * math.sqrt(0.5 / channels)
        self.weight = nn.Parameter(part)  # (coefficient, in, out, real and imaginary part), by order, then degree
        self.weight.matrix_axes = (1, 2)  # type: ignore[attr-defined]  # for optimisers of matrices

    def forward(self, coefficients: Tensor) -> Tensor:
        pairs = coefficients.unflatten(0, (-1, 2)).transpose(1, 2)  # (order, degree, part, batch, channel)
        rows = pairs[self.order, self.degree].transpose(1, 2)
        mixed = torch.bmm(rows.flatten(2), real_matrix(self.weight)).unflatten(2, (2, -1)).transpose(1, 2)
        out = torch.zeros_like(pairs, dtype=mixed.dtype).index_put((self.order, self.degree), mixed)
        return out.transpose(1, 2).flatten(0, 1)


class SpectralMLP(nn.Module):
    """Coefficients (2 * orders, degrees, batch, channel) to the same shape, each by itself."""

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        widths = [channels, *[hidden] * layers, channels]
        self.weights = nn.ParameterList(
            torch.randn(into, out, 2) * math.sqrt(0.5 / into) for into, out in pairwise(widths)
        )
        self.biases = nn.ParameterList(torch.zeros(hidden) for _ in range(layers))

    def forward(self, coefficients: Tensor) -> Tensor:
        rows = coefficients.unflatten(0, (-1, 2)).movedim(1, -2).flatten(-2)
        for number, weight in enumerate(self.weights):
            rows = rows @ real_matrix(weight)
            if number < len(self.biases):
                rows = _modulus_relu(rows, self.biases[number])
        return rows.unflatten(-1, (2, -1)).movedim(-2, 1).flatten(0, 1)


def _modulus_relu(rows: Tensor, bias: Tensor, eps: float = 1e-12) -> Tensor:
    """z / |z| ReLU(|z| + bias) on rows [Re z, Im z]; 0 at z = 0."""
    parts = rows.unflatten(-1, (2, -1))
    size = torch.sqrt(parts.square().sum(-2, keepdim=True) + eps)
    return (parts * (torch.relu(size + bias) / size)).flatten(-2)
