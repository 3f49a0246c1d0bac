"""Perceiver resampler: a few latents ask many tokens, whatever their number, and go on with what they hear.

    y <- y + norm(W softmax(Q y (K x)^T / sqrt(d)) V x),    y <- y + norm(MLP(y))

Jaegle et al. 2021, arXiv 2103.03206; norms after, as in Aurora: Bodnar et al. 2025, doi 10.1038/s41586-025-09005-y.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.transformer import MLP, refuse_heads


class CrossAttention(nn.Module):
    """Of latents (place or 1, latent, channel) to tokens (place, token, channel); normed: keys and queries, unsplit."""

    def __init__(self, channels: int, heads: int, normed: bool = False) -> None:
        super().__init__()
        refuse_heads(channels, heads)
        self.heads = heads
        self.query, self.projection = (nn.Linear(channels, channels, bias=False) for _ in range(2))
        self.keys_values = nn.Linear(channels, 2 * channels, bias=False)
        self.norm_query, self.norm_key = (nn.LayerNorm(channels) if normed else nn.Identity() for _ in range(2))

    def forward(self, latents: Tensor, x: Tensor) -> Tensor:
        key, value = self.keys_values(x).chunk(2, -1)
        parts = self.norm_query(self.query(latents)), self.norm_key(key), value
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for part in parts)
        query = query.expand(len(x), -1, -1, -1).to(value.dtype)
        return self.projection(
            F.scaled_dot_product_attention(query, key.to(value.dtype), value).transpose(1, 2).flatten(2)
        )


class Resampling(nn.Module):
    """Attention and MLP, each beside a path of its own and before its norm."""

    def __init__(self, channels: int, heads: int, mlp_ratio: float, normed: bool = False) -> None:
        super().__init__()
        self.attention = CrossAttention(channels, heads, normed)
        self.mlp = MLP(channels, int(mlp_ratio * channels))
        self.norm_in, self.norm_out = nn.LayerNorm(channels), nn.LayerNorm(channels)

    def forward(self, latents: Tensor, x: Tensor) -> Tensor:
        latents = latents + self.norm_in(self.attention(latents, x))
        return latents + self.norm_out(self.mlp(latents))


class Resampler(nn.Module):
    """(latent, channel), the same everywhere, and (place, token, channel) -> (place, latent, channel).

    normed: keys and queries of the first layer are normed.
    """

    def __init__(self, channels: int, heads: int, depth: int, mlp_ratio: float, normed: bool = False) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"Expected at least 1 layer of resampling; got {depth}.")
        self.layers = nn.ModuleList(
            Resampling(channels, heads, mlp_ratio, normed and number == 0) for number in range(depth)
        )

    def forward(self, latents: Tensor, x: Tensor) -> Tensor:
        latents = latents[None]
        for layer in self.layers:
            latents = layer(latents, x)
        return latents
