"""Four tokens to one and one to four, on boxes of tokens (batch, level, lat, lon, channel); levels stay as they are.

    halved = W norm([x(2i, 2j), x(2i, 2j + 1), x(2i + 1, 2j), x(2i + 1, 2j + 1)]),    doubled = W' norm(parts of W x)

Swin: Liu et al. 2021, arXiv 2103.14030; with its inverse: Bi et al. 2023, doi 10.1038/s41586-023-06185-3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Halving(nn.Module):
    """2x2 neighbours to one token of twice the channels; an odd row or column is filled up with zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(4 * channels), nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 2, 4, 3, 5, 6)
        return self.linear(self.norm(x.flatten(4)))


class Doubling(nn.Module):
    """One token to 2x2 of half the channels, cut to `shape`."""

    def __init__(self, channels: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.widen = nn.Linear(2 * channels, 4 * channels, bias=False)
        self.norm, self.mix = nn.LayerNorm(channels), nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(x).unflatten(-1, (2, 2, -1)).permute(0, 1, 2, 4, 3, 5, 6).flatten(4, 5).flatten(2, 3)
        return self.mix(self.norm(x[:, :, : self.shape[0], : self.shape[1]]))
