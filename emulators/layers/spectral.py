"""Convolution on the sphere: every degree is multiplied by its own complex matrix of channels, shared by all orders.

    b_lm = a_lm W_l,   a, b complex rows over channels, l >= m

By the convolution theorem this is a convolution with filters that are zonal as far as W is real, and that part commutes
with every rotation; the imaginary part of W, i sign(m), commutes with rotations about the planet's axis (Driscoll &
Healy 1994, doi 10.1006/aama.1994.1008; Bonev et al. 2023, arXiv 2306.03838, operator `dhconv`).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

BLOCKS = (
    8  # degrees are taken in so many blocks, each with the orders it has: 44 % of the products with l < m are saved
)


class DegreeConvolution(nn.Module):
    """Coefficients (2 * orders, degrees, batch, channel), as `SphericalHarmonics` lays them out, to the same shape.

    There are no coefficients with l < m: what stands in their place is of no meaning before and after.
    """

    def __init__(self, degrees: int, channels: int) -> None:
        super().__init__()
        part = torch.randn(degrees, channels, channels, 2) * math.sqrt(0.5 / channels)
        self.weight = nn.Parameter(part)  # (degree, in, out, real and imaginary part)
        self.weight.matrix_axes = (1, 2)  # type: ignore[attr-defined]  # for optimisers of matrices

    def forward(self, coefficients: Tensor) -> Tensor:
        return _ProductByDegree.apply(coefficients, self.weight)


class _ProductByDegree(torch.autograd.Function):
    """Real products of the rows [Re a, Im a] with [[Re W, Im W], [-Im W, Re W]]; the backward pass in the same way.

    Written out because the blocks land in one tensor, which recorded operations would copy once for each.
    """

    @staticmethod
    def forward(ctx, coefficients: Tensor, weight: Tensor) -> Tensor:
        device = coefficients.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else coefficients.dtype
        real, imaginary = weight.to(dtype).unbind(-1)
        matrix = torch.cat([torch.cat([real, imaginary], -1), torch.cat([-imaginary, real], -1)], -2)
        mixed = torch.zeros_like(coefficients)
        blocks = []
        for part in _blocks(coefficients):
            blocks.append(_rows(coefficients, *part, dtype))
            _put(torch.bmm(blocks[-1], matrix[part[1] : part[2]]), mixed, *part)
        ctx.save_for_backward(matrix, *blocks)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        matrix, *blocks = ctx.saved_tensors
        coefficients, weights = torch.zeros_like(gradient), torch.empty_like(matrix, dtype=gradient.dtype)
        for part, rows in zip(_blocks(gradient), blocks, strict=True):
            degrees = slice(part[1], part[2])
            incoming = _rows(gradient, *part, matrix.dtype)
            _put(torch.bmm(incoming, matrix[degrees].mT), coefficients, *part)
            weights[degrees] = torch.bmm(rows.mT, incoming)
        n = weights.shape[-1] // 2
        real = weights[:, :n, :n] + weights[:, n:, n:]
        imaginary = weights[:, :n, n:] - weights[:, n:, :n]
        return coefficients, torch.stack([real, imaginary], -1)


def _blocks(coefficients: Tensor) -> list[tuple[int, int, int]]:
    """(orders, first degree, last degree + 1) of each block: the orders below the block's last degree."""
    rows, degrees = coefficients.shape[:2]
    cuts = sorted({round(k * degrees / BLOCKS) for k in range(BLOCKS + 1)})
    return [(min(end, rows // 2), start, end) for start, end in pairwise(cuts)]


def _rows(coefficients: Tensor, orders: int, start: int, end: int, dtype: torch.dtype) -> Tensor:
    """A block as (degree, order and batch, real channels then imaginary channels)."""
    _, _, batch, channels = coefficients.shape
    part = coefficients[: 2 * orders, start:end].unflatten(0, (orders, 2)).permute(2, 0, 3, 1, 4)
    return part.to(dtype).reshape(end - start, orders * batch, 2 * channels)


def _put(rows: Tensor, coefficients: Tensor, orders: int, start: int, end: int) -> None:
    """The inverse of `_rows`, written into `coefficients`."""
    _, _, batch, channels = coefficients.shape
    part = rows.view(end - start, orders, batch, 2, channels).permute(1, 3, 0, 2, 4)
    coefficients[: 2 * orders, start:end].unflatten(0, (orders, 2)).copy_(part)
