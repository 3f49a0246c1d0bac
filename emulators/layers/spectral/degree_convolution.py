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

from emulators.layers.pointwise import precision

BLOCKS = 16  # of degrees, each with the orders it has: all but 6 % of the products with l < m are saved


class DegreeConvolution(nn.Module):
    """Coefficients (2 * orders, degrees, batch, channel), as `SphericalHarmonics` lays them out, to the same shape.

    There are no coefficients with l < m: what stands in their place is of no meaning before and after.
    """

    def __init__(self, degrees: int, channels: int) -> None:
        super().__init__()
        part = torch.randn(degrees, channels, 2, channels).mul_(math.sqrt(0.5 / channels))
        self.weight = nn.Parameter(part)  # (degree, in, real and imaginary part, out)
        self.weight.matrix_axes = (1, 3)  # type: ignore[attr-defined]  # for optimisers of matrices

    def forward(self, coefficients: Tensor) -> Tensor:
        return _ProductByDegree.apply(coefficients, self.weight)


class _ProductByDegree(torch.autograd.Function):
    """The product and its transposes in real numbers; [z] is Re z beside Im z, as W is stored:

        [b] = Re a [W] + i (Im a [W]),   Re da = [g] [W]^T,   Im da = [-i g] [W]^T,   [dW] = Re a^T [g] + Im a^T [-i g]

    Nothing of the weights' size, the largest of a network, is ever rearranged. Written out because the blocks land in
    one tensor, which recorded operations would copy once for each.
    """

    @staticmethod
    def forward(ctx, coefficients: Tensor, weight: Tensor) -> Tensor:
        dtype = precision(coefficients)
        matrices = weight.to(dtype).flatten(2)
        mixed = torch.empty_like(coefficients)
        blocks = []
        for part in _blocks(coefficients):
            block = _block(coefficients, *part)
            rows = block.new_empty(block.shape, dtype=dtype).copy_(block)
            product = torch.bmm(rows.flatten(1, 3), matrices[part[1] : part[2]])
            real, imaginary = product.view(*rows.shape[:-1], 2, -1).unbind(2)
            real[..., 0, :].sub_(imaginary[..., 1, :])
            real[..., 1, :].add_(imaginary[..., 0, :])
            mixed[2 * part[0] :, part[1] : part[2]] = 0
            _block(mixed, *part).copy_(real.movedim(-2, 2))
            blocks.append(rows)
        ctx.save_for_backward(matrices, *blocks)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        matrices, *blocks = ctx.saved_tensors
        coefficients = torch.empty_like(gradient)
        weights = torch.empty_like(matrices, dtype=gradient.dtype)
        for part, rows in zip(_blocks(gradient), blocks, strict=True):
            degrees = slice(part[1], part[2])
            coefficients[2 * part[0] :, degrees] = 0
            turned = rows.new_empty(*rows.shape[:-1], 2, rows.shape[-1])  # (degree, order, [g] or [-i g], batch, ...)
            plain, by_i = turned.unbind(2)
            plain.copy_(_block(gradient, *part).transpose(2, 3))
            by_i[..., 0, :], by_i[..., 1, :] = plain[..., 1, :], -plain[..., 0, :]
            incoming = turned.view(*rows.shape[:1], -1, matrices.shape[2])
            _block(coefficients, *part).copy_(torch.bmm(incoming, matrices[degrees].mT).view_as(rows))
            if weights.dtype == rows.dtype:
                torch.bmm(rows.flatten(1, 3).mT, incoming, out=weights[degrees])
            else:
                weights[degrees] = torch.bmm(rows.flatten(1, 3).mT, incoming)
        return coefficients, weights.unflatten(2, (2, -1))


def _blocks(coefficients: Tensor) -> list[tuple[int, int, int]]:
    """(orders, first degree, last degree + 1) of each block: the orders below the block's last degree."""
    rows, degrees = coefficients.shape[:2]
    cuts = sorted({round(k * degrees / BLOCKS) for k in range(BLOCKS + 1)})
    return [(min(end, rows // 2), start, end) for start, end in pairwise(cuts)]


def _block(coefficients: Tensor, orders: int, start: int, end: int) -> Tensor:
    """A block as a view (degree, order, part, batch, channel)."""
    return coefficients[: 2 * orders, start:end].unflatten(0, (orders, 2)).movedim(2, 0)
