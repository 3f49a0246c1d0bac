"""Transformer of the nodes of an icosahedral mesh, each of which attends to those within a number of edges of it.

    x <- x + attention(norm(x)),   x <- x + MLP(norm(x)),   at last norm(x)

Nodes are divided into compact blocks of about equal size. All nodes of a block share one list of keys, which holds the
neighbours of any of them and is gathered once, and a mask leaves out what is too far for one: dense products of blocks
in place of a list for each node. As a neighbourhood of h edges has 3 h (h + 1) + 1 nodes and neighbours share most of
theirs, lists are about twice as long as they must be from 16 hops on, and four times for 4 hops. Gradients are sums in
a fixed order, so that results are the same at every run. Sparse transformer of GenCast: Price et al. 2025,
doi 10.1038/s41586-024-08252-9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.transformer import MLP, check_heads
from emulators.layers.conditioned_norms import recomputed
from emulators.layers.message_passing import Graph, Norm
from emulators.meshes.edges import Edges
from emulators.meshes.icosahedra import TriangleMesh, icosahedra

SMALLEST, ALIGNED, WORD = 64, 8, 64  # nodes of a block; keys come in multiples; bits of a word


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """Hold the nodes of each block, (block, query), what they may read, (block, key), and which of it each node does.

    allowed: (block, query, key). Rows that are shorter than others are filled with their last node, which is read
    nowhere; place: where each node stands among the flattened queries, (node,).
    """

    queries: np.ndarray
    keys: np.ndarray
    allowed: np.ndarray
    place: np.ndarray


@lru_cache(maxsize=8)
def neighbourhoods(level: int, hops: int) -> Neighbourhoods:
    """Return the neighbourhoods of the nodes of a mesh level, each in its own. ValueError for less than one hop."""
    if hops < 1:
        raise ValueError(f"Expected hops of at least 1, the edges to the furthest node of a neighbourhood; got {hops}.")
    mesh = icosahedra(level)[-1]
    nodes, neighbours = len(mesh.nodes), adjacent(mesh)
    blocks = compact_blocks(mesh.nodes, math.ceil(nodes / max(SMALLEST, hops * hops // 3)))
    lists = [_block(block, neighbours, hops) for block in blocks]
    width = max(map(len, blocks))
    length = -(-max(len(keys) for keys, _ in lists) // ALIGNED) * ALIGNED
    allowed = np.zeros((len(blocks), width, length), dtype=bool)
    for number, (keys, within) in enumerate(lists):
        allowed[number, : within.shape[0], : len(keys)] = within
        allowed[number, within.shape[0] :, : len(keys)] = within[-1]
    queries, keys = _filled(blocks, width), _filled([keys for keys, _ in lists], length)
    place = np.empty(nodes, dtype=np.int64)
    for number, block in enumerate(blocks):
        place[block] = number * width + np.arange(len(block))
    return Neighbourhoods(queries, keys, allowed, place)


def adjacent(mesh: TriangleMesh) -> np.ndarray:
    """Return the neighbours of each node, (node, 6); in place of the sixth, where there are five, the node itself."""
    edges = mesh.edges
    table = np.repeat(np.arange(len(mesh.nodes))[:, None], 6, axis=1)
    first = np.searchsorted(edges.receivers, np.arange(len(mesh.nodes)))
    table[edges.receivers, np.arange(len(edges)) - first[edges.receivers]] = edges.senders
    return table


def compact_blocks(points: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the points (point, 3) in `count` blocks whose sizes differ by no more than one, each compact.

    They are divided in two along their widest axis, and so on.
    """

    def divided(some: np.ndarray, parts: int) -> list[np.ndarray]:
        if parts == 1:
            return [np.sort(some)]
        axis = points[some].std(axis=0).round(9).argmax()
        ordered = some[np.lexsort((some, points[some, axis].round(9)))]
        cut = len(some) * (parts // 2) // parts
        return divided(ordered[:cut], parts // 2) + divided(ordered[cut:], parts - parts // 2)

    return divided(np.arange(len(points)), count)


def _block(block: np.ndarray, neighbours: np.ndarray, hops: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes within `hops` edges of any node of a block, and of each node, (query, key)."""
    reached, latest = np.zeros(len(neighbours), dtype=bool), block
    reached[block] = True
    for _ in range(hops):
        around = neighbours[latest].reshape(-1)
        latest = np.unique(around[~reached[around]])
        reached[latest] = True
    keys = np.flatnonzero(reached)
    local = np.full(len(neighbours), -1)
    local[keys] = np.arange(len(keys))
    near = local[neighbours[keys]]
    near = np.where(near < 0, np.arange(len(keys))[:, None], near).T.copy()  # less what no node of the block reaches
    number = np.arange(len(block))
    bit = np.uint64(1) << (number % WORD).astype(np.uint64)  # of each node of the block
    words = np.zeros((-(-len(block) // WORD), len(keys)), dtype=np.uint64)  # which of them each key is near to
    words[number // WORD, local[block]] = bit
    for _ in range(hops):
        before = words.copy()
        for column in near:
            words |= before.take(column, axis=1)
    return keys, np.stack([words[n // WORD] & bit[n] != 0 for n in number])


def _filled(rows: list[np.ndarray], length: int) -> np.ndarray:
    return np.stack([np.concatenate([row, np.repeat(row[-1:], length - len(row))]) for row in rows])


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
