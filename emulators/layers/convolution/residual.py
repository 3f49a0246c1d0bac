"""A pair of convolutions beside an identity, norms after activations.

    x <- x + drop(norm(act(conv(drop(norm(act(conv(x)))))))),     act(x) = x for x > 0, 0.3 x elsewhere

He et al. 2016, arXiv 1512.03385; as in ClimateLearn (Nguyen et al. 2023, arXiv 2307.01909).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.convolution.padding import Convolution, Edges

SLOPE = 0.3  # of the activation below zero


class ResidualPair(nn.Module):
    """Twice a 3x3 convolution, the activation, a norm over the batch, and dropout; beside the identity."""

    def __init__(self, channels: int, dropout: float, rim: Edges) -> None:
        super().__init__()
        self.first, self.second = (Convolution(channels, channels, 3, rim) for _ in range(2))
        self.norm_first, self.norm_second = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for convolution, norm in ((self.first, self.norm_first), (self.second, self.norm_second)):
            h = F.dropout(norm(F.leaky_relu(convolution(h), SLOPE)), self.dropout, self.training)
        return h + x
