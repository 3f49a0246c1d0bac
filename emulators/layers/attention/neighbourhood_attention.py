"""Transformer of the nodes of an icosahedral mesh, each of which attends to those within a number of edges of it.

    x <- x + attention(norm(x)),   x <- x + MLP(norm(x)),   at last norm(x)

Keys and values of a block of nodes are gathered once for all of them, and a mask leaves out what is too far for one:
dense products of blocks in place of a list for each node. Their gradients are sums in a fixed order, so that results
are the same at every run. Sparse transformer of GenCast: Price et al. 2025, doi 10.1038/s41586-024-08252-9.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.transformer import MLP, check_heads
from emulators.layers.conditioned_norms import recomputed
from emulators.layers.message_passing import Graph, Norm
from emulators.meshes.edges import Edges
from emulators.meshes.neighbourhoods import neighbourhoods


class Neighbours(nn.Module):
    """Hold which nodes of a mesh level attend to which, those within `hops` edges, and compute the attention."""

    allowed: Tensor
    place: Tensor

    def __init__(self, level: int, hops: int) -> None:
        super().__init__()
        near = neighbourhoods(level, hops)
        self.blocks, nodes = len(near.queries), len(near.place)
        self.queries, self.keys = (_gathers(rows, nodes) for rows in (near.queries, near.keys))
        self.register_buffer("allowed", torch.as_tensor(near.allowed)[:, None], persistent=False)
        self.register_buffer("place", torch.as_tensor(near.place), persistent=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """Return what each node reads, (batch, node, channel), as q, k and v are."""
        queries = self._by_block(self.queries.sent(q), heads)
        keys, values = (
            self._by_block(self.keys.sent(torch.cat([k, v], dim=-1)), 2 * heads)
            .unflatten(1, (len(q), 2, heads))
            .unbind(2)
        )
        read = F.scaled_dot_product_attention(queries, keys.flatten(1, 2), values.flatten(1, 2), self.allowed)
        rows = read.unflatten(1, (len(q), heads)).permute(1, 0, 3, 2, 4).flatten(3).flatten(1, 2)
        return rows.index_select(1, self.place)

    def _by_block(self, rows: Tensor, heads: int) -> Tensor:
        """Return (batch, block x row, head x channel) as (block, batch x head, row, channel)."""
        return rows.unflatten(1, (self.blocks, -1)).unflatten(-1, (heads, -1)).permute(1, 0, 3, 2, 4).flatten(1, 2)


def _gathers(rows: np.ndarray, nodes: int) -> Graph:
    """Return a graph in which each place of (block, row) receives from its node."""
    return Graph(Edges(rows.reshape(-1), np.arange(rows.size), nodes, rows.size))


class NeighbourhoodAttention(nn.Module):
    """Let nodes (batch, node, channel) attend to their neighbours."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.projection = nn.Linear(channels, channels)

    def forward(self, x: Tensor, neighbours: Neighbours) -> Tensor:
        return self.projection(neighbours(self.q(x), self.k(x), self.v(x), self.heads))


class MeshBlock(nn.Module):
    """Apply attention to neighbours and an MLP, both residual, each after a norm; hidden: channels of the MLP."""

    def __init__(self, channels: int, heads: int, hidden: int, norm: Norm) -> None:
        super().__init__()
        self.norm_in, self.norm_out = norm(channels), norm(channels)
        self.attention, self.mlp = NeighbourhoodAttention(channels, heads), MLP(channels, hidden, tanh=True)

    def forward(self, x: Tensor, neighbours: Neighbours) -> Tensor:
        x = x + self.attention(self.norm_in(x), neighbours)
        return x + self.mlp(self.norm_out(x))


class MeshTransformer(nn.Module):
    """Transform the nodes (batch, node, channel) of a mesh level.

    hops: edges to the furthest node that a node attends to. hidden: channels of the MLPs; default, four times as many
    as of the nodes. norm: makes the norms. recompute: whether blocks are computed again for the gradient, to save
    memory.
    """

    def __init__(
        self,
        level: int,
        channels: int,
        *,
        layers: int,
        heads: int,
        hops: int,
        hidden: int | None = None,
        norm: Norm = nn.LayerNorm,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.neighbours, self.recompute = Neighbours(level, hops), recompute
        hidden = 4 * channels if hidden is None else hidden
        self.blocks = nn.ModuleList(MeshBlock(channels, heads, hidden, norm) for _ in range(layers))
        self.norm = norm(channels)
        for block in self.blocks:
            _initialise(block, layers)

    def forward(self, nodes: Tensor) -> Tensor:
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                nodes = recomputed(block, block, nodes, self.neighbours)
            else:
                nodes = block(nodes, self.neighbours)
        return self.norm(nodes)


def transformer_names(prefix: str) -> tuple[tuple[str, str], ...]:
    """Return pairs of a pattern of DeepMind's parameter names and ours, of a MeshTransformer called `transformer`.

    prefix: pattern of what comes before, without groups.
    """
    block, ours = prefix + r"block_0?(\d+)/", r"transformer.blocks.\1."
    return (
        (block + r"block_\d+_norm_conditioning/linear:(w|b)", ours + r"norm_in.linear.\2"),
        (block + r"block_\d+_norm_conditioning_1/linear:(w|b)", ours + r"norm_out.linear.\2"),
        (block + r"mha_proj_(q|k|v):w", ours + r"attention.\2.w"),
        (block + r"mha_final:(w|b)", ours + r"attention.projection.\2"),
        (block + r"ffw_up:(w|b)", ours + r"mlp.expand.\2"),
        (block + r"ffw_down:(w|b)", ours + r"mlp.contract.\2"),
        (prefix + r"\w+_final_norm_conditioning/linear:(w|b)", r"transformer.norm.linear.\1"),
    )


def _initialise(block: nn.Module, layers: int) -> None:
    """Draw the first weights as GenCast does; the last map of each branch is zero, so that blocks begin as nothing."""
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear) and name.startswith(("attention", "mlp")):
            if name.endswith(("projection", "contract")):
                nn.init.zeros_(module.weight)
            else:
                std = math.sqrt(2.0 / layers / module.in_features)
                nn.init.trunc_normal_(module.weight, std=std, a=-2.0 * std, b=2.0 * std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
