"""Parts of a transformer: attention of all tokens to all, a multilayer perceptron, residual paths dropped at random.

    x <- x + attention(norm(x)),   x <- x + MLP(norm(x)),   attention = softmax(q k^T / sqrt(d)) v

Vaswani et al. 2017, arXiv 1706.03762; norms first: Xiong et al. 2020, arXiv 2002.04745; dropped paths: Huang et al.
2016, arXiv 1603.09382. With q and k of each head divided by their root mean square, logits lie within sqrt(d) times the
gains, so that they do not grow with the weights: Dehghani et al. 2023, arXiv 2302.05442 (by layer norms); Wortsman et
al. 2023, arXiv 2309.14322.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.sample_draws import dropout, uniform


class MLP(nn.Module):
    """Apply an MLP with one hidden layer and GELU, exact or, with `tanh`, approximated. dropout: after both maps."""

    def __init__(self, channels: int, hidden: int, *, tanh: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.expand, self.contract = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.approximation, self.dropout = "tanh" if tanh else "none", dropout

    def forward(self, x: Tensor) -> Tensor:
        hidden = dropout(F.gelu(self.expand(x), approximate=self.approximation), self.dropout, self.training)
        return dropout(self.contract(hidden), self.dropout, self.training)


class QKNorms(nn.ModuleList):
    """Divide queries and keys of `size` channels, (..., size), by their root mean square, times a gain a channel."""

    def __init__(self, size: int) -> None:
        super().__init__(nn.RMSNorm(size) for _ in range(2))

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        of_query, of_key = self
        return of_query(q).to(q.dtype), of_key(k).to(k.dtype)


class Attention(nn.Module):
    """Let all tokens attend to all: (batch, token, channel) to the same shape.

    bias: whether its two linear maps have one. dropout: that of the result; weight_dropout: that of the attention
    weights. normed: see QKNorms, of each head.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        normed: bool = False,
    ) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.heads, self.dropout, self.weight_dropout = heads, dropout, weight_dropout
        self.qkv, self.projection = (nn.Linear(channels, n * channels, bias=bias) for n in (3, 1))
        self.norms = QKNorms(channels // heads) if normed else None

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.norms is not None:
            q, k = self.norms(q, k)
        mixed = self._mixed(q, k, v)
        return dropout(self.projection(mixed.transpose(1, 2).flatten(2)), self.dropout, self.training)

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not self.weight_dropout or not self.training:
            return F.scaled_dot_product_attention(q, k, v)
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        return dropout(weights, self.weight_dropout, self.training) @ v


class DropPath(nn.Module):
    """Drop a residual branch of a case with probability `rate` in training, and scale the others to compensate."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"Expected drop_path in [0, 1); got {rate}.")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.rate or not self.training:
            return x
        mask = uniform((x.shape[0], *[1] * (x.ndim - 1)), x.device) >= self.rate
        return x * (mask.to(x.dtype) / (1.0 - self.rate))


class TransformerBlock(nn.Module):
    """Apply attention and an MLP to tokens (batch, token, channel), both residual, each after a norm.

    mlp_ratio: hidden channels of the MLP as a multiple of `channels`. bias, dropout, weight_dropout, normed: see
    Attention; dropout also in the MLP. drop_path: see DropPath.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        mlp_ratio: float = 4.0,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        normed: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm_in, self.norm_out = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = Attention(
            channels, heads, bias=bias, dropout=dropout, weight_dropout=weight_dropout, normed=normed
        )
        self.mlp = MLP(channels, int(mlp_ratio * channels), dropout=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm_in(x)))
        return x + self.drop_path(self.mlp(self.norm_out(x)))


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Return rates of dropped paths that grow linearly from 0 at the first block to `last` at the last."""
    return [last * i / max(1, depth - 1) for i in range(depth)]


def drop_path_stages(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Return the rates of `drop_path_rates` stage by stage. depths: number of blocks of each stage."""
    each = iter(drop_path_rates(last, sum(depths)))
    return [[next(each) for _ in range(depth)] for depth in depths]


def check_heads(channels: int, heads: int) -> None:
    """Raise ValueError unless `heads` divides the channels."""
    if heads < 1 or channels % heads:
        raise ValueError(f"Expected a number of heads that divides the {channels} channels; got {heads}.")


def initialise_linear(network: nn.Module) -> None:
    """Initialise all linear maps with truncated normal weights of deviation 0.02 and no bias."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
