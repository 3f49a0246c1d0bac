"""Weights divided by their largest singular value.

    W = V / s,     s = u . V v,     v <- V^T u / |V^T u|,   u <- V v / |V v|     at each pass in training

Miyato et al. 2018, arXiv 1802.05957. PyTorch's own takes minutes for large networks on the meta device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

FIRST = 15  # iterations at the start, as PyTorch has them


class SpectralNorm(nn.Module):
    """The map from V to W; rows of a convolution are its output channels."""

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        for name, size in zip("uv", weight.flatten(1).shape, strict=True):
            self.register_buffer(name, torch.randn(size))
        if not weight.is_meta:
            for _ in range(FIRST):
                self.iterate(weight.flatten(1))

    @torch.no_grad()
    def iterate(self, matrix: Tensor) -> None:
        self.v.copy_(F.normalize(matrix.T @ self.u, dim=0))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast("cuda" if weight.is_cuda else "cpu", enabled=False):
            matrix = weight.flatten(1)
            if self.training:
                self.iterate(matrix)
            # Copies, as later passes change the vectors before this one's gradient is taken.
            return weight / torch.dot(self.u.clone(), matrix @ self.v.clone())


def norm_spectrally(network: nn.Module) -> None:
    """Give all linear maps and convolutions of a network this norm."""
    for module in [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]:
        parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight), unsafe=True)
