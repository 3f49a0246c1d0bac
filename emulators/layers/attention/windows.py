"""Attention within windows: a box of tokens divided into equal windows, shifted by half a window in every second block.

    x <- x + norm(attention(x)),   x <- x + norm(MLP(x))         `post`, residuals after norms
    x <- x + attention(norm(x)),   x <- x + MLP(norm(x))         `pre`

Shifting rolls the box; where its ends do not meet, as at the poles and at the top of the air, tokens that the roll
brought together do not see each other. Around a globe they do meet. Liu et al. 2021, arXiv 2103.14030; norms after: Liu
et al. 2022, arXiv 2111.09883.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.transformer import MLP, DropPath


class Windows(nn.Module):
    """Partition tokens (batch, *shape, channel) into windows, and join them.

    Windows: (batch, window along longitude, other window, token, channel).

    shape: tokens along each axis, longitude last. window: tokens of a window, limited to `shape`. shifted: shift by
    half a window along every axis with several windows. cyclic: whether longitudes are periodic. spread: the tokens of
    a window are not neighbours but evenly spread over the whole box. padded: how a box that windows do not tile is
    padded by zeros on both sides. `first`: padded, then shifted; the zeros take part in the attention. `last`, as
    published with Aurora: shifted, then padded; the zeros take part in windows that are not shifted only, and tokens
    that a window would separate without padding do not see each other. blocked: (window along longitude or 1, other
    window, 1, token, token), minus infinity where a query may not see a key and 0 elsewhere, or None if all see all.
    Raises ValueError for options that exclude each other.
    """

    blocked: Tensor | None

    def __init__(
        self,
        shape: Sequence[int],
        window: Sequence[int],
        *,
        shifted: bool,
        cyclic: bool,
        spread: bool = False,
        padded: str = "first",
    ) -> None:
        super().__init__()
        if padded not in ("first", "last"):
            raise ValueError(f"Expected windows to be padded 'first' or 'last'; got '{padded}'.")
        self.spread, self.padded = spread, padded
        if len(shape) != len(window) or min(window) < 1:
            raise ValueError(f"Expected a window of {len(shape)} sizes of at least 1; got {tuple(window)}.")
        if shifted and spread:
            raise ValueError("Expected windows that are shifted or spread; got both.")
        self.shape = tuple(shape)
        self.window = tuple(min(w, size) for w, size in zip(window, shape, strict=True))
        padding = [-size % w for size, w in zip(self.shape, self.window, strict=True)]
        self.borders = [(n // 2, n - n // 2) for n in padding]
        self.counts = tuple((size + n) // w for size, n, w in zip(self.shape, padding, self.window, strict=True))
        self.shift = tuple(w // 2 if shifted and n > 1 else 0 for w, n in zip(self.window, self.counts, strict=True))
        self.register_buffer("blocked", self._blocked(cyclic), persistent=False)

    @property
    def tokens(self) -> int:
        """The number of tokens in a window."""
        return math.prod(self.window)

    def partition(self, x: Tensor) -> Tensor:
        """Return (batch, *shape, channel) as (batch, window along longitude, other window, token, channel)."""
        x = self._rolled(self._padded(x), -1) if self.padded == "first" else self._padded(self._rolled(x, -1))
        axes = range(1, 1 + len(self.shape))
        for axis, w in zip(reversed(axes), reversed(self.window), strict=True):
            x = x.unflatten(axis, (w, -1) if self.spread else (-1, w))
        rank = len(self.shape)
        counts, inner = ([1 + k + 2 * i for i in range(rank)] for k in ((1, 0) if self.spread else (0, 1)))
        x = x.permute(0, counts[-1], *counts[:-1], *inner, 1 + 2 * rank)
        return x.reshape(x.shape[0], self.counts[-1], math.prod(self.counts[:-1]), self.tokens, x.shape[-1])

    def join(self, x: Tensor) -> Tensor:
        """Apply the inverse of `partition`."""
        rank = len(self.shape)
        x = x.reshape(x.shape[0], self.counts[-1], *self.counts[:-1], *self.window, x.shape[-1])
        pairs = [(count, 1 + rank + i) for i, count in enumerate([*range(2, rank + 1), 1])]
        x = x.permute(0, *(axis for pair in pairs for axis in (pair[::-1] if self.spread else pair)), 1 + 2 * rank)
        padded = [n * w for n, w in zip(self.counts, self.window, strict=True)]
        x = x.reshape(x.shape[0], *padded, x.shape[-1])
        x = self._rolled(x, 1) if self.padded == "first" else x
        for axis, ((first, _), size) in enumerate(zip(self.borders, self.shape, strict=True), start=1):
            x = x.narrow(axis, first, size)
        return x if self.padded == "first" else self._rolled(x, 1)

    def _padded(self, x: Tensor) -> Tensor:
        if any(sum(border) for border in self.borders):
            x = F.pad(x, (0, 0, *(n for border in reversed(self.borders) for n in border)))
        return x

    def _rolled(self, x: Tensor, sign: int) -> Tensor:
        return x.roll([sign * s for s in self.shift], list(range(1, x.ndim - 1))) if any(self.shift) else x

    def _blocked(self, cyclic: bool) -> Tensor | None:
        """Return the mask of tokens that only the roll brought together: those on either side of the box's end."""
        if not any(self.shift):
            return None
        padded, rank = [n * w for n, w in zip(self.counts, self.window, strict=True)], len(self.shape)
        box = padded if self.padded == "first" else self.shape
        side = np.zeros(box, dtype=np.int64)
        for axis, (s, w, size) in enumerate(zip(self.shift, self.window, box, strict=True)):
            ends = [w] if s and self.padded == "last" and any(self.borders[axis]) else []
            if s and not (cyclic and axis == rank - 1):
                ends.append(s)
            for end in ends:
                along = np.arange(size) >= size - end
                side = 2 * side + along.reshape([-1 if k == axis else 1 for k in range(rank)])
        if self.padded == "last":
            side = np.pad(side, self.borders, constant_values=-1)
        side = side.reshape([n for pair in zip(self.counts, self.window, strict=True) for n in pair])
        order = [2 * (rank - 1), *range(0, 2 * (rank - 1), 2), *range(1, 2 * rank, 2)]
        side = side.transpose(order).reshape(self.counts[-1], -1, self.tokens)
        side = side[:1] if (side == side[:1]).all() else side
        blocked = side[:, :, :, None] != side[:, :, None, :]
        if not blocked.any():
            return None
        return torch.from_numpy(np.where(blocked, -np.inf, 0.0).astype(np.float32)[:, :, None])


def windowed_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None = None) -> Tensor:
    """Compute attention within windows; q, k, v: (batch, window along longitude, other window, head, token, channel).

    bias: added to the logits, (window along longitude or 1, other window or 1, head or 1, token, token), or None.
    Windows that share a bias go with the batch, the others with the heads, so that no bias is repeated in memory.
    """
    batch, along, others, heads, tokens, channels = q.shape
    first = 3
    if bias is not None:
        first = 1 if bias.shape[0] > 1 else 2 if bias.shape[1] > 1 else 3
        bias = bias.expand(-1, others if first < 3 else 1, heads, -1, -1).reshape(1, -1, tokens, tokens).to(q.dtype)
    q, k, v = (x.flatten(first, 3).flatten(0, first - 1) for x in (q, k, v))
    if bias is not None and bias.requires_grad and bias.device.type == "cpu":  # no fused kernel gives its gradient
        logits = (q if scale == 1.0 else q * (scale or channels**-0.5)) @ k.mT
        mixed = (logits + bias).softmax(dim=-1) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    return mixed.reshape(batch, along, others, heads, tokens, channels)


class WindowBlock(nn.Module):
    """Apply window attention and an MLP to (batch, *shape, channel), both residual.

    order: position of the norms, `post` or `pre`. mlp_ratio: hidden channels of the MLP as a multiple of `channels`.
    """

    def __init__(
        self,
        channels: int,
        attention: nn.Module,
        windows: Windows,
        *,
        mlp_ratio: float = 4.0,
        order: str = "post",
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if order not in ("post", "pre"):
            raise ValueError(f"Expected the order of norms to be 'post' or 'pre'; got '{order}'.")
        self.order, self.windows, self.attention = order, windows, attention
        self.norm_in, self.norm_out = norm(channels), norm(channels)
        self.mlp = MLP(channels, int(mlp_ratio * channels))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        """Apply the block; conditions: further arguments of conditional norms."""
        if self.order == "pre":
            x = x + self.drop_path(self.attended(self.norm_in(x, *conditions)))
            return x + self.drop_path(self.mlp(self.norm_out(x, *conditions)))
        x = x + self.drop_path(self.norm_in(self.attended(x), *conditions))
        return x + self.drop_path(self.norm_out(self.mlp(x), *conditions))

    def attended(self, x: Tensor) -> Tensor:
        """Return the attention within windows of (batch, *shape, channel)."""
        return self.windows.join(self.attention(self.windows.partition(x), self.windows.blocked))


class ConditionedBlocks(nn.ModuleList):
    """Apply blocks one after another, all with the same condition."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self:
            x = block(x, condition)
        return x


def refuse_stages(window: Sequence[int], axes: int, **stages: Sequence[int]) -> None:
    """Raise ValueError unless a window has so many axes, and each option of stages as many values as the first."""
    (first, depths), *others = stages.items()
    if not depths or any(len(values) != len(depths) for _, values in others) or len(window) != axes:
        raise ValueError(
            f"Expected as many {' and '.join(name for name, _ in others)} as {first}, at least one, and a window of "
            f"{axes} sizes; got {', '.join(str(list(values)) for values in stages.values())} and {list(window)}."
        )


def split_heads(x: Tensor, heads: int, parts: int = 1) -> Tensor:
    """Split (batch, window, window, token, parts * channel): (parts, batch, window, window, head, token, channel)."""
    return x.unflatten(-1, (parts, heads, -1)).permute(4, 0, 1, 2, 5, 3, 6)


def join_heads(x: Tensor) -> Tensor:
    """Return (batch, window, window, head, token, channel) as (batch, window, window, token, channel)."""
    return x.transpose(3, 4).flatten(4)


def offsets(window: Sequence[int]) -> np.ndarray:
    """Return the distance of every pair of a window's tokens along each axis, (token, token, axis)."""
    places = np.array(list(product(*(range(w) for w in window))))
    return places[:, None] - places[None]
