"""Deep-compression autoencoder: fields to latent fields on a coarser grid, and back.

    down  y = halve(conv(x)) + means of groups of (halve(x)),      halve: 2x2 points become 4 channels
    up    y = double(conv(x)) + double(copies of x),               double: its inverse

so that a level loses little at first, and blocks between learn the rest. Blocks of fine levels are two convolutions,
residual; those of coarse levels are attention at a cost linear in the points, of points and of their neighbourhoods,
and a gated MLP with a 3x3 convolution of each channel:

    o_i = sum_j (relu(q_i) relu(k_j)) v_j / sum_j (relu(q_i) relu(k_j))
    m = W (c silu(g)),   (c, g) = conv(silu(U x))

As published, heads are cut across the joint channels of q, k and v.

Chen et al. 2024, arXiv 2410.10733; the blocks: Cai et al. 2023, arXiv 2205.14756, and Xie et al. 2024, arXiv
2410.10629; on weather as the autoencoder of LaDCast (Zhuang & Duraisamy 2025, arXiv 2506.09193), with one difference:
at the rows next to the poles its code mirrors part of each kernel, and the padding here goes over the pole alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.convolution import Convolution, Edges, pole_mirror
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "autoencoding",
    "grid": "any; halved per level, others padded",
    "parity": "LaDCast, 1e-5, without mirrored kernels",
}
PUBLISHED = (  # names in LaDCast's checkpoints, and ours
    (r"(\w+coder)\.(down|up)_blocks\.(\d+)\.conv\.(\w+)", r"\1.body.\3.conv.\4"),
    (r"(\w+coder)\.(down|up)_blocks\.(\d+)\.(conv[12])\.(\w+)", r"\1.body.\3.\4.\5"),
    (r"(\w+coder)\.(down|up)_blocks\.(\d+)\.norm\.(\w+)", r"\1.body.\3.norm.\4"),
    (r"(\w+coder)\.(down|up)_blocks\.(\d+)\.attn\.to_(q|k|v)\.weight", r"\1.body.\3.attention.\4.weight"),
    (
        r"(\w+coder)\.(down|up)_blocks\.(\d+)\.attn\.to_qkv_multiscale\.(\d+)\.proj_in\.weight",
        r"\1.body.\3.attention.scales.\4.into.weight",
    ),
    (
        r"(\w+coder)\.(down|up)_blocks\.(\d+)\.attn\.to_qkv_multiscale\.(\d+)\.proj_out\.weight",
        r"\1.body.\3.attention.scales.\4.out.weight",
    ),
    (r"(\w+coder)\.(down|up)_blocks\.(\d+)\.attn\.to_out\.weight", r"\1.body.\3.attention.out.weight"),
    (r"(\w+coder)\.(down|up)_blocks\.(\d+)\.attn\.norm_out\.(\w+)", r"\1.body.\3.attention.norm.\4"),
    (r"(\w+coder)\.(down|up)_blocks\.(\d+)\.conv_out\.conv_inverted\.(\w+)", r"\1.body.\3.mlp.expand.\4"),
    (r"(\w+coder)\.(down|up)_blocks\.(\d+)\.conv_out\.conv_depth\.(\w+)", r"\1.body.\3.mlp.depth.\4"),
    (r"(\w+coder)\.(down|up)_blocks\.(\d+)\.conv_out\.conv_point\.(\w+)", r"\1.body.\3.mlp.contract.\4"),
    (r"(\w+coder)\.(down|up)_blocks\.(\d+)\.conv_out\.norm\.(\w+)", r"\1.body.\3.mlp.norm.\4"),
    (r"(\w+coder)\.conv_in\.(\w+)", r"\1.into.\2"),
    (r"(\w+coder)\.conv_out\.(\w+)", r"\1.out.\2"),
    (r"decoder\.norm_out\.(\w+)", r"decoder.norm.\1"),
)
KINDS = ("residual", "attention")
SCALE = 5  # rows and columns that the second width of q, k and v sees


class DCAE(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon) through latent fields.

    latents: channels of the latent fields, on a grid `reduction` times coarser. channels, blocks, kinds: width, number
    of blocks each way and their kind, `residual` or `attention`, of each level, finest first. head: channels of an
    attention head. edges: padding, as in UNet. Raises ValueError where widths do not divide as the shortcuts need. A
    grid that `reduction` does not divide is padded and the result cropped.
    """

    def __init__(
        self,
        world: World,
        *,
        latents: int = 84,
        channels: Sequence[int] = (252, 504, 504, 1008),
        blocks: Sequence[int] = (4, 4, 4, 4),
        kinds: Sequence[str] = ("residual", "residual", "attention", "attention"),
        head: int = 32,
        edges: str | None = None,
    ) -> None:
        super().__init__()
        _check(channels, blocks, kinds, latents, head)
        self.latents, self.reduction = latents, 2 ** (len(channels) - 1)
        rows, columns = (-size % self.reduction for size in world.lat_lon.shape)
        if any(2 * size < self.reduction for size in world.lat_lon.shape):
            raise ValueError(f"{len(channels)} levels need {self.reduction // 2} rows or more; got {world.lat_lon!r}.")
        self.borders = rows // 2, rows - rows // 2, columns // 2, columns - columns // 2
        self.rim, self.mirror = Edges(world.lat_lon, edges), pole_mirror(world)
        fine = self.rim.coarser() if any(self.borders) else self.rim
        levels = [*zip(channels, blocks, kinds, [fine, *[self.rim.coarser()] * (len(channels) - 1)], strict=True)]
        stem = Convolution(world.input_channels, channels[0], 3, fine, mirror=self.mirror)
        self.encoder = Encoder(levels, stem, latents, head)
        self.decoder = Decoder(levels, world.output_channels, latents, head)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        return self.decoded(self.encoded(fields), fields.shape[-2:])

    def encoded(self, fields: Tensor) -> Tensor:
        """Latent fields (batch, latent, row, column) of fields (batch, input channel, lat, lon)."""
        return self.encoder(self.rim.pad(fields, *self.borders, mirror=self.mirror))

    def decoded(self, latents: Tensor, shape: Sequence[int]) -> Tensor:
        """Fields (batch, output channel, lat, lon) of latent fields. shape: rows and columns of the grid."""
        north, _, west, _ = self.borders
        return self.decoder(latents)[..., north : north + shape[0], west : west + shape[1]]


class Encoder(nn.Module):
    """Halve the grid level by level, and average the last channels to latent ones as a shortcut."""

    def __init__(self, levels: Sequence[tuple[int, int, str, Edges]], stem: nn.Module, latents: int, head: int) -> None:
        super().__init__()
        body: list[nn.Module] = []
        for number, (width, count, kind, rim) in enumerate(levels):
            if number:
                body.append(Halving(levels[number - 1][0], width, levels[number - 1][3]))
            body += [_block(kind, width, head, rim) for _ in range(count)]
        self.into, self.body = stem, nn.ModuleList(body)
        self.out, self.latents = Convolution(levels[-1][0], latents, 3, levels[-1][3]), latents

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        for part in self.body:
            x = part(x)
        return self.out(x) + x.unflatten(1, (self.latents, -1)).mean(2)


class Decoder(nn.Module):
    """Double the grid level by level, from copies of the latent channels."""

    def __init__(self, levels: Sequence[tuple[int, int, str, Edges]], out: int, latents: int, head: int) -> None:
        super().__init__()
        body: list[nn.Module] = []
        for number, (width, count, kind, rim) in reversed([*enumerate(levels)]):
            if number < len(levels) - 1:
                body.append(Doubling(levels[number + 1][0], width, levels[number + 1][3]))
            body += [_block(kind, width, head, rim) for _ in range(count)]
        self.copies = levels[-1][0] // latents
        self.into, self.body = Convolution(latents, levels[-1][0], 3, levels[-1][3]), nn.ModuleList(body)
        self.norm, self.out = RootMeanSquare(levels[0][0], 1e-7), Convolution(levels[0][0], out, 3, levels[0][3])

    def forward(self, latents: Tensor) -> Tensor:
        x = self.into(latents) + latents.repeat_interleave(self.copies, dim=1)
        for part in self.body:
            x = part(x)
        return self.out(F.relu(self.norm(x)))


class Halving(nn.Module):
    """Halve rows and columns."""

    def __init__(self, into: int, out: int, rim: Edges) -> None:
        super().__init__()
        self.conv, self.out = Convolution(into, out // 4, 3, rim), out

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.pixel_unshuffle(x, 2).unflatten(1, (self.out, -1)).mean(2)
        return F.pixel_unshuffle(self.conv(x), 2) + shortcut


class Doubling(nn.Module):
    """Double rows and columns."""

    def __init__(self, into: int, out: int, rim: Edges) -> None:
        super().__init__()
        self.conv, self.copies = Convolution(into, 4 * out, 3, rim), 4 * out // into

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x) + x.repeat_interleave(self.copies, dim=1), 2)


class ResidualBlock(nn.Module):
    """Add to the input two 3x3 convolutions, normed at the end."""

    def __init__(self, channels: int, rim: Edges) -> None:
        super().__init__()
        self.conv1 = Convolution(channels, channels, 3, rim)
        self.conv2 = Convolution(channels, channels, 3, rim, bias=False)
        self.norm = RootMeanSquare(channels, 1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv2(F.silu(self.conv1(x))))


class AttentionBlock(nn.Module):
    """Apply linear attention and a gated MLP, both residual."""

    def __init__(self, channels: int, head: int, rim: Edges) -> None:
        super().__init__()
        self.attention, self.mlp = LinearAttention(channels, head, rim), GatedMLP(channels, rim)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.attention(x))


class LinearAttention(nn.Module):
    """Let all points attend to all with relu(q) relu(k) as weight; q, k, v of points and of their neighbourhoods."""

    def __init__(self, channels: int, head: int, rim: Edges) -> None:
        super().__init__()
        heads = channels // head
        inner = heads * head
        self.head, self.q, self.k, self.v = head, *(nn.Linear(channels, inner, bias=False) for _ in "qkv")
        self.scales = nn.ModuleList([Neighbourhood(3 * inner, 3 * heads, rim)])
        self.out, self.norm = nn.Linear(2 * inner, channels, bias=False), RootMeanSquare(channels, 1e-5)

    def forward(self, x: Tensor) -> Tensor:
        points = x.movedim(1, -1)
        qkv = torch.cat([self.q(points), self.k(points), self.v(points)], -1).movedim(-1, 1)
        qkv = torch.cat([qkv, *(scale(qkv) for scale in self.scales)], dim=1)
        mixed = self._mixed(*qkv.flatten(2).unflatten(1, (-1, 3 * self.head)).float().chunk(3, dim=2))
        mixed = self.out(mixed.flatten(1, 2).mT).mT.unflatten(2, x.shape[2:])
        return x + self.norm(mixed)

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Averages of v, all (batch, head, channel, point), with the sum of weights as one more channel; float32."""
        with torch.autocast("cuda" if q.is_cuda else "cpu", enabled=False):
            sums = F.pad(v, (0, 0, 0, 1), value=1.0) @ F.relu(k).mT @ F.relu(q)
            return sums[:, :, :-1] / (sums[:, :, -1:] + 1e-15)


class Neighbourhood(nn.Module):
    """Mix neighbouring points of q, k and v, channel by channel, then the channels within each head."""

    def __init__(self, channels: int, groups: int, rim: Edges) -> None:
        super().__init__()
        self.into = Convolution(channels, channels, SCALE, rim, groups=channels, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.into(x))


class GatedMLP(nn.Module):
    """Add to the input a gated MLP of each point, with a 3x3 convolution of each hidden channel."""

    def __init__(self, channels: int, rim: Edges) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, 8 * channels, 1)
        self.depth = Convolution(8 * channels, 8 * channels, 3, rim, groups=8 * channels)
        self.contract = nn.Conv2d(4 * channels, channels, 1, bias=False)
        self.norm = RootMeanSquare(channels, 1e-7)

    def forward(self, x: Tensor) -> Tensor:
        content, gate = self.depth(F.silu(self.expand(x))).chunk(2, dim=1)
        return x + self.norm(self.contract(content * F.silu(gate)))


class RootMeanSquare(nn.Module):
    """Divide (batch, channel, lat, lon) by the root mean square over channels, then scale and shift each channel."""

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        normed = x * (x.float().square().mean(1, keepdim=True) + self.epsilon).rsqrt()
        return normed * self.weight[:, None, None] + self.bias[:, None, None]


def _block(kind: str, width: int, head: int, rim: Edges) -> nn.Module:
    return ResidualBlock(width, rim) if kind == "residual" else AttentionBlock(width, head, rim)


def _check(channels: Sequence[int], blocks: Sequence[int], kinds: Sequence[str], latents: int, head: int) -> None:
    """Raise ValueError unless the levels agree and widths divide as the shortcuts need."""
    if not channels or not len(channels) == len(blocks) == len(kinds) or min(blocks) < 1 or {*kinds} - {*KINDS}:
        raise ValueError(
            "Expected channels, blocks (at least 1) and kinds (residual or attention) of each level; got "
            f"{[*channels]}, {[*blocks]} and {[*kinds]}."
        )
    pairs = [(4 * fine, coarse) for fine, coarse in pairwise(channels)]
    if channels[-1] % latents or any(coarse % 4 or into % coarse for into, coarse in pairs):
        raise ValueError(
            "Expected channels that are multiples of 4, divide four times those of the level before, and the last a "
            f"multiple of the {latents} latents; got {[*channels]}."
        )
    narrow = [width for width, kind in zip(channels, kinds, strict=True) if kind == "attention" and width < head]
    if head < 1 or narrow:
        raise ValueError(f"Expected model.head of at most {min(narrow, default=math.inf)} channels; got {head}.")
