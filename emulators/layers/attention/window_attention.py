"""Kinds of attention within windows: by products, by cosines with a continuous bias, or with a bias by place on Earth.

    plain    softmax(q k^T / sqrt(d))                       q and k after a root-mean-square norm if `normed`
    cosine   softmax(exp(s) cos(q, k) + 16 sigmoid(f(d)))   f a small network of log-spaced distances d, s < log 100
    earth    softmax(q k^T / sqrt(d) + B[pair, window])     B for each row of windows, shared along longitude alone

Plain: Liu et al. 2021, arXiv 2103.14030, norms of q and k Henry et al. 2020, arXiv 2010.04245; cosine: Liu et al. 2022,
arXiv 2111.09883; earth: Bi et al. 2023, doi 10.1038/s41586-023-06185-3. Tokens have the layout of `Windows.partition`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.transformer import QKNorms, check_heads
from emulators.layers.attention.windows import Windows, join_heads, offsets, split_heads, windowed_attention


class WindowAttention(nn.Module):
    """Apply plain attention within windows. normed: see QKNorms, of each head."""

    def __init__(self, channels: int, heads: int, *, bias: bool = True, normed: bool = False) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.heads = heads
        self.qkv, self.projection = nn.Linear(channels, 3 * channels, bias=bias), nn.Linear(channels, channels)
        self.norms = QKNorms(channels // heads) if normed else None

    def forward(self, x: Tensor, blocked: Tensor | None = None) -> Tensor:
        q, k, v = split_heads(self.qkv(x), self.heads, 3)
        if self.norms is not None:
            q, k = self.norms(q, k)
        return self.projection(join_heads(windowed_attention(q, k, v, blocked)))


class CosineAttention(nn.Module):
    """Apply SwinV2's attention: cosines times a learned number for each head, and a bias by distance.

    Queries and values have a bias, keys have none.
    """

    distances: Tensor
    pairs: Tensor

    def __init__(self, channels: int, heads: int, window: Sequence[int]) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.heads = heads
        self.qkv, self.projection = nn.Linear(channels, 3 * channels, bias=False), nn.Linear(channels, channels)
        self.bias_q, self.bias_v = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))
        self.scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))
        self.bias_of_distance = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))
        distances, pairs = log_distances(window)
        self.register_buffer("distances", distances, persistent=False)
        self.register_buffer("pairs", pairs, persistent=False)

    def forward(self, x: Tensor, blocked: Tensor | None = None) -> Tensor:
        bias = torch.cat([self.bias_q, torch.zeros_like(self.bias_q), self.bias_v])
        q, k, v = split_heads(F.linear(x, self.qkv.weight, bias), self.heads, 3)
        strength = self.scale.clamp(max=math.log(100.0)).exp().to(q.dtype)
        near = 16.0 * torch.sigmoid(self.bias_of_distance(self.distances))[self.pairs].permute(2, 0, 1)
        bias = near[None, None] if blocked is None else near + blocked
        q, k = (
            x * (size / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=1e-12))
            for x, size in ((q, strength), (k, 1.0))
        )
        return self.projection(join_heads(windowed_attention(q, k, v, bias, scale=1.0)))


def log_distances(window: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the log-spaced distances in two dimensions, sign(d) log2(1 + 8 |d|) / 3 with d as a share of the largest.

    Returns (distance, axis), and the row of it for every pair (token, token).
    """
    rows, columns = window
    table = np.stack(np.meshgrid(np.arange(1 - rows, rows), np.arange(1 - columns, columns), indexing="ij"), -1)
    shares = 8.0 * table / np.maximum(np.array([rows, columns]) - 1, 1)
    logs = np.sign(shares) * np.log2(np.abs(shares) + 1.0) / np.log2(8.0)
    indices = offsets(window) + np.array([rows - 1, columns - 1])
    return torch.from_numpy(logs.reshape(-1, 2).astype(np.float32)), torch.from_numpy(
        indices[..., 0] * (2 * columns - 1) + indices[..., 1]
    )


class EarthAttention(nn.Module):
    """Apply Pangu's attention: with a bias for every pair of places in a window of levels, rows and columns.

    kind: `earth`, a table for each window by level and latitude, indexed by both levels, both rows and the distance
    along longitude; or `relative`, one table for all windows, of distances alone (To et al. 2024, doi
    10.5194/gmd-17-8873-2024). normed: see QKNorms, of each head.
    """

    pairs: Tensor

    def __init__(
        self, channels: int, heads: int, windows: Windows, kind: str = "earth", *, normed: bool = False
    ) -> None:
        super().__init__()
        check_heads(channels, heads)
        if kind not in ("earth", "relative"):
            raise ValueError(f"Expected bias to be 'earth' or 'relative'; got '{kind}'.")
        self.heads = heads
        self.qkv, self.projection = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.norms = QKNorms(channels // heads) if normed else None
        size, pairs = (earth_pairs if kind == "earth" else relative_pairs)(windows.window)
        of_windows = math.prod(windows.counts[:-1]) if kind == "earth" else 1
        self.table = nn.Parameter(torch.empty(size, of_windows, heads))
        self.table.grid_axes = {1: windows.counts[:-1]} if kind == "earth" else {}  # type: ignore[attr-defined]
        nn.init.trunc_normal_(self.table, std=0.02)
        self.register_buffer("pairs", pairs, persistent=False)

    def forward(self, x: Tensor, blocked: Tensor | None = None) -> Tensor:
        q, k, v = split_heads(self.qkv(x), self.heads, 3)
        if self.norms is not None:
            q, k = self.norms(q, k)
        bias = self.table[self.pairs].permute(2, 3, 0, 1)[None]  # 1, window, head, token, token
        bias = bias if blocked is None else bias + blocked
        return self.projection(join_heads(windowed_attention(q, k, v, bias)))


def earth_pairs(window: Sequence[int]) -> tuple[int, Tensor]:
    """Return the size of an earth-specific table and each pair's entry: (level, row) of key and query, distance."""
    levels, rows, columns = window
    places = np.stack(np.unravel_index(np.arange(levels * rows * columns), (levels, rows, columns)), -1)
    query, key = places[:, None], places[None]
    level = query[..., 0] + levels * key[..., 0]
    row = query[..., 1] + rows * key[..., 1]
    along = query[..., 2] - key[..., 2] + columns - 1
    size = levels**2 * rows**2 * (2 * columns - 1)
    return size, torch.from_numpy((level * rows**2 + row) * (2 * columns - 1) + along)


def relative_pairs(window: Sequence[int]) -> tuple[int, Tensor]:
    """Return the size of a table of distances along every axis, and the entry of each pair."""
    reach = [2 * w - 1 for w in window]
    indices = offsets(window) + np.array(window) - 1
    return math.prod(reach), torch.from_numpy(np.ravel_multi_index(np.moveaxis(indices, -1, 0), reach))
