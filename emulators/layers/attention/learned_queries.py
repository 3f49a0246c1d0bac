"""Attention with learned queries: many tokens gathered into few.

Perceiver resampler, a few latents y that attend to any number of tokens x:

    y <- y + norm(W softmax(Q y (K x)^T / sqrt(d)) V x),    y <- y + norm(MLP(y))

(Jaegle et al. 2021, arXiv 2103.03206; norms after, as in Aurora: Bodnar et al. 2025, doi 10.1038/s41586-025-09005-y).
Variable aggregation, the variables of a patch as one token:

    x_v = W_v patch_v + b_v + e_v,     y = W_o sum_v softmax_v(q . K x_v / sqrt(d)) V x_v      head by head

As the query is the same everywhere, it is taken through K first, and V after the sum: exact, and the cost of K and V no
longer grows with the number of variables. ClimaX: Nguyen et al. 2023, arXiv 2301.10343.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.transformer import MLP, check_heads
from emulators.layers.attention.wave_embedding import sine_waves


class CrossAttention(nn.Module):
    """Attend from latents (place or 1, latent, channel) to tokens (place, token, channel).

    normed: layer norm on queries and keys before the split into heads.
    """

    def __init__(self, channels: int, heads: int, normed: bool = False) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.heads = heads
        self.query, self.projection = (nn.Linear(channels, channels, bias=False) for _ in range(2))
        self.keys_values = nn.Linear(channels, 2 * channels, bias=False)
        self.norm_query, self.norm_key = (nn.LayerNorm(channels) if normed else nn.Identity() for _ in range(2))

    def forward(self, latents: Tensor, x: Tensor) -> Tensor:
        key, value = self.keys_values(x).chunk(2, -1)
        qkv = self.norm_query(self.query(latents)), self.norm_key(key), value
        query, key, value = (vectors.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for vectors in qkv)
        query = query.expand(len(x), -1, -1, -1).to(value.dtype)
        return self.projection(
            F.scaled_dot_product_attention(query, key.to(value.dtype), value).transpose(1, 2).flatten(2)
        )


class Resampling(nn.Module):
    """Apply cross-attention and an MLP to the latents, both residual, norms last."""

    def __init__(self, channels: int, heads: int, mlp_ratio: float, normed: bool = False) -> None:
        super().__init__()
        self.attention = CrossAttention(channels, heads, normed)
        self.mlp = MLP(channels, int(mlp_ratio * channels))
        self.norm_in, self.norm_out = nn.LayerNorm(channels), nn.LayerNorm(channels)

    def forward(self, latents: Tensor, x: Tensor) -> Tensor:
        latents = latents + self.norm_in(self.attention(latents, x))
        return latents + self.norm_out(self.mlp(latents))


class Resampler(nn.Module):
    """Gather tokens (place, token, channel) into latents (latent, channel): (place, latent, channel).

    The latents are the same at every place. depth: number of layers. normed: layer norm on queries and keys of the
    first layer. Raises ValueError for a depth of 0.
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


class VariableTokens(nn.Module):
    """Embed each variable by its own map: (batch, variable, lat, lon) -> tokens (batch, place, variable, width)."""

    def __init__(self, variables: int, width: int, patch: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(variables, width, patch, patch), std=0.02))
        self.weight.map_axes = (2, 3), (1,)  # type: ignore[attr-defined]  # for rates by width
        self.bias = nn.Parameter(torch.zeros(variables, width))
        self.identity = nn.Parameter(torch.tensor(sine_waves(np.arange(variables), width), dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        patch = self.weight.shape[-1]
        cells = x.unflatten(-1, (-1, patch)).unflatten(-3, (-1, patch)).permute(0, 2, 4, 1, 3, 5)
        cells = cells.flatten(4).flatten(1, 2)  # batch, place, variable, p * q
        return torch.einsum("blvp,vdp->blvd", cells, self.weight.flatten(2)) + (self.bias + self.identity)


class VariableAggregation(nn.Module):
    """Gather variables with one learned query: (batch, place, variable, width) -> (batch, place, width).

    weight, bias: of queries, keys and values, in this order. The bias of the keys has no effect; published weights have
    it.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(width))
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, width)))
        self.weight.map_axes = (1,), (0,)  # type: ignore[attr-defined]  # for rates by width
        self.bias = nn.Parameter(torch.zeros(3 * width))
        self.projection = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        to_query, to_key, to_value = self.weight.unflatten(0, (3, self.heads, -1))
        of_query, _, of_value = self.bias.unflatten(0, (3, self.heads, -1))
        query = torch.einsum("hdw,w->hd", to_query, self.query) + of_query
        logits = x @ torch.einsum("hdw,hd->wh", to_key, query * query.shape[-1] ** -0.5)
        gathered = logits.softmax(dim=-2).to(x.dtype).mT @ x  # batch, place, head, width
        values = torch.einsum("blhw,hdw->blhd", gathered, to_value) + of_value
        return self.projection(values.flatten(2))
