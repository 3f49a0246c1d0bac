"""Convolution on the sphere: every degree is multiplied by its own complex matrix of channels, shared by all orders.

    b_lm = a_lm W_l,   a, b complex rows over channels

By the convolution theorem this is a convolution with filters that are zonal as far as W is real, and that part commutes
with every rotation; the imaginary part of W, i sign(m), commutes with rotations about the planet's axis (Driscoll &
Healy 1994, doi 10.1006/aama.1994.1008; Bonev et al. 2023, arXiv 2306.03838, operator `dhconv`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class DegreeConvolution(nn.Module):
    """Coefficients (2 * orders, degrees, batch, channel), as `SphericalHarmonics` lays them out, to the same shape."""

    def __init__(self, degrees: int, channels: int) -> None:
        super().__init__()
        part = torch.randn(degrees, channels, channels, 2) * math.sqrt(0.5 / channels)
        self.weight = nn.Parameter(part)  # (degree, in, out, real and imaginary part)

    def forward(self, coefficients: Tensor) -> Tensor:
        rows, degrees, batch, channels = coefficients.shape
        orders = rows // 2
        # Real parts then imaginary parts in a row, times [[Re W, Im W], [-Im W, Re W]]: one real product a degree.
        pairs = coefficients.view(orders, 2, degrees, batch, channels).permute(2, 0, 3, 1, 4)
        pairs = pairs.reshape(degrees, orders * batch, 2 * channels)
        real, imaginary = self.weight.unbind(-1)
        matrix = torch.cat([torch.cat([real, imaginary], -1), torch.cat([-imaginary, real], -1)], -2)
        mixed = torch.bmm(pairs, matrix).view(degrees, orders, batch, 2, channels)
        return mixed.permute(1, 3, 0, 2, 4).reshape(rows, degrees, batch, channels)
