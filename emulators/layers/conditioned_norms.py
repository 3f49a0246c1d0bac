"""Norms whose scale and shift follow from numbers that are told to the whole network, such as a noise level.

    y = (1 + s) norm(x) + b,     (s, b) = W c + d

with W near zero at the start, so that all norms begin as plain ones. As in GenCast, where c tells the noise level
(Price et al. 2025, doi 10.1038/s41586-024-08252-9), and FGN, where c is drawn (Alet et al. 2025, arXiv 2506.10772).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

START = 1e-8  # deviation of the first weights


class ConditionedNorm(nn.LayerNorm):
    """Normalise the channels of (batch, node, channel), then scale and shift them by what was told last.

    features: how many numbers are told. A batch of one is normalised once for all cases.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__(channels, elementwise_affine=False)
        self.linear = nn.Linear(features, 2 * channels)
        nn.init.trunc_normal_(self.linear.weight, std=START, a=-2.0 * START, b=2.0 * START)
        nn.init.zeros_(self.linear.bias)
        self.condition: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.condition is None:
            raise RuntimeError("A ConditionedNorm works after `tell`, which gives it its numbers.")
        normed = super().forward(x)
        scale, shift = self.linear(self.condition)[:, None].to(normed.dtype).chunk(2, -1)
        return torch.addcmul(normed + shift, normed, scale)


class AdaptiveNorm(nn.Module):
    """Normalise the channels of (batch, level, lat, lon, channel), then scale and shift them by W silu(c) + d.

    The condition c has `condition` channels and one value for each case or each token, (batch, level or 1, lat or 1,
    lon or 1, channel). There is no 1 beside the scale: a norm gives zero at first, and a block the identity, as in
    Aurora (Bodnar et al. 2025, doi 10.1038/s41586-025-09005-y).
    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(F.silu(condition)).chunk(2, -1)
        return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), scale)


def recomputed(module: nn.Module, function: Callable[..., Any], *inputs: Any) -> Any:
    """Call a function of a module, whose activations are computed again for the gradient with what norms are told now.

    By then they may have been told what belongs to a later call.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, ConditionedNorm)]
    conditions = [norm.condition for norm in norms]

    def run(*inputs: Any) -> Any:
        for norm, condition in zip(norms, conditions, strict=True):
            norm.condition = condition
        return function(*inputs)

    return checkpoint(run, *inputs, use_reentrant=False)


def tell(network: nn.Module, condition: Tensor) -> None:
    """Give all norms of a network the numbers of this call, (batch, feature)."""
    for module in network.modules():
        if isinstance(module, ConditionedNorm):
            module.condition = condition
