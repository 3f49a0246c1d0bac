"""WXFormer: convolutions of several sizes halve the grid four times, with attention near and far; sub-pixels double it.

    x_s = blocks(conv_k(x_{s-1}) for each kernel k, side by side),     x_0 the fields, s = 1 ... 4
    y = x_4;   y <- [double(y), x_s], s = 3, 2, 1;   fields = double(y)

A block attends within windows, then among tokens that lie evenly spread over the whole grid, each time before an MLP; a
small network gives the bias of a pair from its distance. Cross-scale embedding, near and far: CrossFormer, Wang et al.
2021, arXiv 2108.00154; padding over the poles, U-shape, weather: CREDIT, Schreck et al. 2024, arXiv 2411.07814, whose
network this repeats, weights and all, spectral norms included. Doubling is by sub-pixels that start equal to one
another (Aitken et al. 2017, arXiv 1707.02937), as CREDIT has it now; checkpoints from before do not fit.

A spectral norm divides a weight V by its largest singular value, with one iteration for each pass in training:

    W = V / s,     s = u . V v,     v <- V^T u / |V^T u|,   u <- V v / |V v|

(Miyato et al. 2018, arXiv 1802.05957; PyTorch's own takes minutes for large networks on the meta device).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from emulators.grid import LatLonGrid
from emulators.layers.attention.patches import Frame
from emulators.layers.attention.transformer import check_heads
from emulators.layers.attention.window_attention import relative_pairs
from emulators.layers.attention.windows import WindowBlock, Windows, join_heads, split_heads, windowed_attention
from emulators.layers.convolution import Convolution, Edges, pole_mirror
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "any; windows at all four scales, others padded",
    "parity": "CREDIT, 1e-5",
}


_BLOCK = r"layers\.(\d)\.1\.layers\.(\d+)\."


PUBLISHED = (  # names in CREDIT's checkpoints, and ours
    (r"layers\.(\d)\.0\.convs\.(\d+)\.(?:1\.)?(\w+)", r"stages.\1.scales.\2.\3"),
    *(
        pair
        for number, reach in ((0, "near"), (2, "far"))
        for pair in (
            (rf"{_BLOCK}{number}\.norm\.(\w)", rf"stages.\1.blocks.\2.{reach}.norm_in.\3"),
            (rf"{_BLOCK}{number}\.to_qkv\.(\w+)", rf"stages.\1.blocks.\2.{reach}.attention.qkv.\3"),
            (rf"{_BLOCK}{number}\.to_out\.(\w+)", rf"stages.\1.blocks.\2.{reach}.attention.projection.\3"),
            (
                rf"{_BLOCK}{number}\.dpb\.layers\.(\d+)\.(\w+)",
                rf"stages.\1.blocks.\2.{reach}.attention.bias_of_distance.\3.\4",
            ),
            (rf"{_BLOCK}{number + 1}\.layers\.0\.(\w)", rf"stages.\1.blocks.\2.{reach}.norm_out.\3"),
            (rf"{_BLOCK}{number + 1}\.layers\.1\.(\w+)", rf"stages.\1.blocks.\2.{reach}.mlp.expand.\3"),
            (rf"{_BLOCK}{number + 1}\.layers\.4\.(\w+)", rf"stages.\1.blocks.\2.{reach}.mlp.contract.\3"),
        )
    ),
    (r"up_block([123])\.conv\.(\w+)", r"up.\1.widen.\2"),
    (r"up_block([123])\.sharp\.(\w+)", r"up.\1.sharpen.\2"),
    (r"up_block([123])\.b\.(\d+)\.(\w+)", r"up.\1.body.\2.\3"),
    (r"up_block4\.0\.(\w+)", r"widen.\1"),
    (r"up_block4\.2\.(\w+)", r"head.\1"),
    (r"cube_embedding\.(.+)", r"unused.\1"),
)


class WXFormer(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon).

    channels, depth: width and number of blocks of the four stages, each of half the resolution of the one before.
    kernels: sizes of the convolutions of each stage; the smallest gives half of its channels, the next a quarter, and
    so on. near: rows and columns of a window, at each stage. far: the same for tokens spread over the grid.
    head_channels: channels of an attention head. groups: number of groups of the decoder's group norms. margin: further
    rows and columns that pad the grid on all sides. inner_edges: padding of convolutions, published: `flat`; null:
    `flat` if columns are padded, `replicate` if only rows are, else by the grid. distances: `true`, or `published`,
    which reads most of them from the wrong row of a table. spectral_norm: divide every matrix by its largest singular
    value. fit, edges: see emulators.layers.attention.patches.Frame.
    """

    def __init__(
        self,
        world: World,
        *,
        channels: Sequence[int] = (32, 64, 128, 256),
        depth: Sequence[int] = (2, 2, 2, 2),
        kernels: Sequence[Sequence[int]] = ((4, 8), (2, 4), (2, 4), (2, 4)),
        near: Sequence[int] = (4, 4, 4, 2),
        far: Sequence[int] = (4, 2, 2, 1),
        head_channels: int = 32,
        groups: int = 32,
        margin: int = 0,
        inner_edges: str | None = None,
        distances: str = "true",
        spectral_norm: bool = False,
        fit: str = "pad",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        per_stage = {"channels": channels, "depth": depth, "kernels": kernels, "near": near, "far": far}
        if invalid := [name for name, values in per_stage.items() if len(values) != 4]:
            raise ValueError(f"Expected one value for each of 4 stages; got another number of {', '.join(invalid)}.")
        strides = [2, 4, 8, 16]
        tile = math.lcm(*(s * math.lcm(n, f) for s, n, f in zip(strides, near, far, strict=True)))
        self.frame = Frame(world.lat_lon, tile, tile, fit, edges, margin=margin)
        self.mirror = pole_mirror(world)
        rim = inner_rim(world.lat_lon, self.frame, inner_edges)
        self.stages = nn.ModuleList()
        for s, into in enumerate([world.input_channels, *channels[:-1]]):
            shape = [size // strides[s] for size in self.frame.shape]
            blocks = (
                _block(channels[s], head_channels, shape, near[s], far[s], distances, rim.cyclic)
                for _ in range(depth[s])
            )
            self.stages.append(Stage(into, channels[s], kernels[s], rim, blocks))
        first, second, third, last = channels
        widths = {"1": (last, third), "2": (2 * third, second), "3": (2 * second, first)}
        self.up = nn.ModuleDict({name: Doubling(*pair, groups, rim) for name, pair in widths.items()})
        self.widen = subpixels(2 * first, world.output_channels, rim)
        self.head = Convolution(world.output_channels, world.output_channels, 3, rim)
        if spectral_norm:
            norm_spectrally(self)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        x = self.frame.inward(fields, self.mirror)
        seen = []
        for stage in self.stages:
            x = stage(x)
            seen.append(x)
        for doubling, skipped in zip(self.up.values(), reversed(seen[:-1]), strict=True):
            x = torch.cat([doubling(x), skipped], dim=1)
        return self.frame.outward(self.head(F.pixel_shuffle(self.widen(x), 2)))


def inner_rim(grid: LatLonGrid, frame: Frame, kind: str | None) -> Edges:
    """Return the padding of convolutions inside; longitudes are periodic only if the frame has not padded them."""
    north, south, west, east = frame.borders
    if kind is None and (west or east):
        kind = "flat"
    elif kind is None and (north or south):
        kind = "replicate"
    return Edges(grid, kind).coarser()


def _block(
    channels: int, head_channels: int, shape: Sequence[int], near: int, far: int, distances: str, cyclic: bool
) -> nn.Sequential:
    """Return attention near and far, each before an MLP."""
    check_heads(channels, channels // head_channels)
    halves: OrderedDict[str, nn.Module] = OrderedDict()
    for name, size in (("near", near), ("far", far)):
        windows = Windows(shape, (size, size), shifted=False, cyclic=cyclic, spread=name == "far")
        attention = DistanceAttention(channels, channels // head_channels, windows.window, distances)
        halves[name] = WindowBlock(channels, attention, windows, order="pre")
    return nn.Sequential(halves)


class DistanceAttention(nn.Module):
    """Apply attention within windows with a bias by distance from a network of three layers, the same for all heads.

    distances: `true`, or `published`: rows of the table of distances are taken to be two entries longer than they are.
    """

    distances: Tensor
    pairs: Tensor

    def __init__(self, channels: int, heads: int, window: Sequence[int], distances: str = "true") -> None:
        super().__init__()
        if distances not in ("true", "published"):
            raise ValueError(f"Expected distances to be 'true' or 'published'; got '{distances}'.")
        self.heads = heads
        self.qkv, self.projection = nn.Linear(channels, 3 * channels, bias=False), nn.Linear(channels, channels)
        width = channels // 4
        hidden = [(nn.Linear(n, width), nn.LayerNorm(width), nn.ReLU()) for n in (2, width, width)]
        self.bias_of_distance = nn.Sequential(*(module for layer in hidden for module in layer), nn.Linear(width, 1))
        size, pairs = relative_pairs(window)
        reach = np.array(window) - (1 if distances == "true" else 0)
        table = np.stack(np.unravel_index(np.arange(size), tuple(2 * reach + 1)), -1) - reach
        self.register_buffer("distances", torch.from_numpy(table.astype(np.float32)), persistent=False)
        self.register_buffer("pairs", pairs, persistent=False)

    def forward(self, x: Tensor, blocked: Tensor | None = None) -> Tensor:
        q, k, v = split_heads(self.qkv(x), self.heads, 3)
        bias = self.bias_of_distance(self.distances)[self.pairs, 0][None, None, None]
        bias = bias if blocked is None else bias + blocked
        return self.projection(join_heads(windowed_attention(q, k, v, bias)))


class Stage(nn.Module):
    """Halve the resolution by convolutions of several sizes side by side, then apply the blocks; channels first."""

    def __init__(
        self, into: int, channels: int, kernels: Sequence[int], rim: Edges, blocks: Iterable[nn.Module]
    ) -> None:
        super().__init__()
        if not kernels or min(kernels) < 2:
            raise ValueError(f"Expected kernels of at least 2 rows and columns; got {tuple(kernels)}.")
        shares = [channels >> k for k in range(1, len(kernels))]
        shares.append(channels - sum(shares))
        self.scales = nn.ModuleList(
            Halving(into, share, kernel, rim) for kernel, share in zip(sorted(kernels), shares, strict=True)
        )
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([scale(x) for scale in self.scales], dim=1)
        return self.blocks(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Halving(nn.Conv2d):
    """Convolve with stride 2, padded equally on both sides or by one point less before."""

    def __init__(self, into: int, out: int, kernel: int, rim: Edges) -> None:
        super().__init__(into, out, kernel, stride=2)
        self.rim, self.border = rim, ((kernel - 2) // 2, (kernel - 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.rim.pad(x, *self.border, *self.border))


class Doubling(nn.Module):
    """Double the resolution by sub-pixels, sharpen, then apply the residual body of convolutions."""

    def __init__(self, channels: int, out: int, groups: int, rim: Edges) -> None:
        super().__init__()
        if groups < 1 or out % groups:
            raise ValueError(f"Expected groups that divide the {out} channels of each scale; got {groups}.")
        self.widen, self.sharpen = subpixels(channels, out, rim), Convolution(out, out, 3, rim)
        nn.init.xavier_normal_(self.sharpen.weight)
        nn.init.zeros_(cast(Tensor, self.sharpen.bias))
        layers = [(Convolution(out, out, 3, rim), nn.GroupNorm(groups, out), nn.SiLU()) for _ in range(2)]
        self.body = nn.Sequential(*(module for layer in layers for module in layer))

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_shuffle(self.widen(x), 2)
        x = x + self.sharpen(x)
        return x + self.body(x)


def subpixels(channels: int, out: int, rim: Edges) -> Convolution:
    """Return a 3x3 convolution to 2x2 sub-pixels of `out` channels, which start equal to one another."""
    widen = Convolution(channels, 4 * out, 3, rim)
    with torch.no_grad():
        kernel = nn.init.kaiming_normal_(torch.empty_like(widen.weight[:out]))
        widen.weight.copy_(kernel.repeat_interleave(4, dim=0))
    nn.init.zeros_(cast(Tensor, widen.bias))
    return widen


def adapted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights: pointwise maps as matrices, norms as vectors, spectral norms by our names."""
    last = {"g": "weight", "b": "bias", "weight_orig": "parametrizations.weight.original"}
    last |= {f"weight_{vector}": f"parametrizations.weight.0.{vector}" for vector in "uv"}
    ours = {}
    for name, value in theirs.items():
        stem, _, kind = name.rpartition(".")
        if ".blocks." in name and value.ndim == 4:
            value = value.flatten() if ".norm_" in name else value[:, :, 0, 0]
        if not stem.startswith("unused"):
            ours[f"{stem}.{last.get(kind, kind)}"] = value
    return ours


FIRST = 15  # iterations at the start, as PyTorch has them


class SpectralNorm(nn.Module):
    """Divide a weight by its largest singular value; rows of a convolution are its output channels."""

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        for name, size in zip("uv", weight.flatten(1).shape, strict=True):
            self.register_buffer(name, torch.randn(size))
        if not weight.is_meta:
            for _ in range(FIRST):
                self.iterate(weight.flatten(1))

    @torch.no_grad()
    def iterate(self, matrix: Tensor) -> None:
        self.v.copy_(F.normalize(matrix.T @ self.u, dim=0))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast("cuda" if weight.is_cuda else "cpu", enabled=False):
            matrix = weight.flatten(1)
            if self.training:
                self.iterate(matrix)
            # Copies, as later passes change the vectors before this one's gradient is taken.
            return weight / torch.dot(self.u.clone(), matrix @ self.v.clone())


def norm_spectrally(network: nn.Module) -> None:
    """Give all linear maps and convolutions of a network this norm."""
    for module in [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]:
        parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight), unsafe=True)
