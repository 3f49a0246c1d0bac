"""Optimisers: from a module to the torch optimiser that descends it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class AdamW:
    """Adam with decoupled weight decay, on matrices and kernels only (Loshchilov & Hutter 2019, arXiv 1711.05101)."""

    def __init__(
        self, *, lr: float = 1e-3, betas: Sequence[float] = (0.9, 0.95), weight_decay: float = 0.1, eps: float = 1e-8
    ) -> None:
        if lr <= 0:
            raise ValueError(f"optimizer.lr must be positive; got {lr}.")
        self.lr, self.betas, self.weight_decay, self.eps = lr, tuple(betas), weight_decay, eps

    def __call__(self, module: nn.Module) -> torch.optim.Optimizer:
        parameters = [p for p in module.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=self.lr, betas=(self.betas[0], self.betas[1]), eps=self.eps, fused=True)
