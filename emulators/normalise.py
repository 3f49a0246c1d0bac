"""Normalisation: z-scores by channel, and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(x - mean) / std over the channel axis of (*lead, channel, *grid) tensors.

    mean, std: shape (channel,). rank: number of grid dimensions. The numbers live in the World, not in the state dict.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: np.ndarray, std: np.ndarray, rank: int = 2) -> None:
        super().__init__()
        if not (np.asarray(std) > 0).all():
            raise ValueError("Standard deviations must be positive; leave constant channels out or scale them by 1.")
        for name, values in (("mean", mean), ("std", std)):
            tensor = torch.as_tensor(np.asarray(values, dtype=np.float32)).reshape(-1, *[1] * rank)
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        """Back to physical units."""
        return values * self.std + self.mean
