"""Pangu-Weather: a transformer on columns of air, in windows of level, latitude and longitude with a bias by place.

    x = [surface patches; boxes of levels],   y = B4(double(B3(B2(halve(B1(x)))))),   out = [y; B1(x)]

Attention has a bias for every pair of places in a window and every window by level and latitude. Bi et al. 2023,
doi 10.1038/s41586-023-06185-3 (arXiv 2211.02556); norms after attention and MLP, as in the published pseudocode.
Parity is with NVIDIA's PhysicsNeMo (norms first, longitudes not periodic), weights and all; the published weights are
ONNX graphs, one network for each interval.

Left open by the paper: positions of the padding (an odd level goes after the last one, as in PhysicsNeMo); whether a
shifted window sees across the end of the longitudes (`around`: yes). Forcing and static fields of any number are
treated as surface fields.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.level_columns import LevelColumns
from emulators.layers.attention.patches import BoxEmbedding, Doubling, Frame, Halving, PatchEmbedding
from emulators.layers.attention.transformer import drop_path_rates, initialise_linear
from emulators.layers.attention.window_attention import EarthAttention
from emulators.layers.attention.windows import WindowBlock, Windows
from emulators.layers.convolution import pole_mirror
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "any; same levels for all variables",
    "parity": "PhysicsNeMo, 1e-5",
}
PUBLISHED = (  # names in PhysicsNeMo's checkpoints, and ours
    (r"patchembed2d\.proj\.(\w+)", r"embed_surface.\1"),
    (r"patchembed3d\.proj\.(\w+)", r"embed_levels.\1"),
    (r"layer(\d)\.blocks\.(\d+)\.norm1\.(\w+)", r"stages.\1.\2.norm_in.\3"),
    (r"layer(\d)\.blocks\.(\d+)\.norm2\.(\w+)", r"stages.\1.\2.norm_out.\3"),
    (r"layer(\d)\.blocks\.(\d+)\.attn\.earth_position_bias_table", r"stages.\1.\2.attention.table"),
    (r"layer(\d)\.blocks\.(\d+)\.attn\.qkv\.(\w+)", r"stages.\1.\2.attention.qkv.\3"),
    (r"layer(\d)\.blocks\.(\d+)\.attn\.proj\.(\w+)", r"stages.\1.\2.attention.projection.\3"),
    (r"layer(\d)\.blocks\.(\d+)\.mlp\.(?:fc1|layers\.0)\.(\w+)", r"stages.\1.\2.mlp.expand.\3"),
    (r"layer(\d)\.blocks\.(\d+)\.mlp\.(?:fc2|layers\.2)\.(\w+)", r"stages.\1.\2.mlp.contract.\3"),
    (r"downsample\.(?:downsample\.)?(norm|linear)\.(\w+)", r"halving.\1.\2"),
    (r"upsample\.(?:upsample\.)?linear1\.(\w+)", r"doubling.widen.\1"),
    (r"upsample\.(?:upsample\.)?linear2\.(\w+)", r"doubling.mix.\1"),
    (r"upsample\.(?:upsample\.)?norm\.(\w+)", r"doubling.norm.\1"),
    (r"patchrecovery2d\.conv\.(\w+)", r"surface.\1"),
    (r"patchrecovery3d\.conv\.(\w+)", r"upper.\1"),
)


class Pangu(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon); all levels the same.

    patch: levels, rows and columns of a token. embed: channels at full resolution. depths, heads: blocks and attention
    heads of the four stages. window: levels, rows and columns of tokens in a window. mlp_ratio: hidden channels of the
    MLPs as a multiple of their input's. qk_norm: root-mean-square norms of each head's queries and keys. order:
    position of the norms, `post` or `pre`. bias: `earth` or `relative`, see
    emulators.layers.attention.window_attention. around: whether shifted windows are periodic in longitude. drop_path:
    rate of dropped residual paths in the deepest block, growing linearly from 0. fit, edges: see
    emulators.layers.attention.patches.Frame.
    """

    def __init__(
        self,
        world: World,
        *,
        patch: Sequence[int] = (2, 2, 2),
        embed: int = 48,
        depths: Sequence[int] = (2, 6, 6, 2),
        heads: Sequence[int] = (3, 6, 6, 3),
        window: Sequence[int] = (2, 4, 8),
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        order: str = "post",
        bias: str = "earth",
        around: bool = True,
        drop_path: float = 0.0,
        fit: str = "pad",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        if len(patch) != 3 or len(window) != 3 or len(depths) != 4 or len(heads) != 4:
            raise ValueError("Expected patch and window of 3 sizes (level, lat, lon), and 4 depths and 4 heads.")
        self.patch = tuple(patch)
        self.columns = LevelColumns(world)
        self.frame = Frame(world.lat_lon, patch[1], patch[2], fit, edges)
        self.mirror = pole_mirror(world)
        self.more = -len(self.columns.levels) % patch[0]  # levels of padding
        layers = 1 + (len(self.columns.levels) + self.more) // patch[0]
        full = (layers, *(size // p for size, p in zip(self.frame.shape, patch[1:], strict=True)))
        half = (layers, *(-(-size // 2) for size in full[1:]))
        self.embed_surface = PatchEmbedding(self.columns.read_single, embed, self.patch[1:])
        self.embed_levels = BoxEmbedding(self.columns.read_upper, embed, self.patch)
        cyclic = around and world.lat_lon.is_cyclic
        drops = drop_path_rates(drop_path, max(depths[0] + depths[1], depths[2] + depths[3]))
        starts = (0, depths[0], depths[0], 0)
        self.stages = nn.ModuleDict(
            {
                str(n + 1): nn.Sequential(
                    *(
                        _block(width, heads[n], shape, window, i % 2 == 1, cyclic, bias, qk_norm, order, mlp_ratio, p)
                        for i, p in enumerate(drops[starts[n] : starts[n] + depths[n]])
                    )
                )
                for n, (width, shape) in enumerate([(embed, full), (2 * embed, half), (2 * embed, half), (embed, full)])
            }
        )
        self.halving, self.doubling = Halving(embed), Doubling(embed, full[1:])
        self.surface = Recovery(2 * embed, self.columns.written_single, self.patch[1:])
        self.upper = Recovery(2 * embed, self.columns.written_upper, self.patch)
        initialise_linear(self)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        columns, single = self.columns.split(self.frame.inward(fields, self.mirror))
        columns = F.pad(columns, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        x = torch.cat([self.embed_surface(single)[:, None], self.embed_levels(columns)], dim=1)
        x = first = self.stages["1"](x)
        x = self.stages["3"](self.stages["2"](self.halving(x)))
        x = torch.cat([self.stages["4"](self.doubling(x)), first], dim=-1)
        upper = self.upper(x[:, 1:]).narrow(2, self.more // 2, len(self.columns.levels))
        return self.frame.outward(self.columns.join(upper, self.surface(x[:, 0])))


class Recovery(nn.Module):
    """Map tokens (batch, *place, width) linearly to fields (batch, channel, *place times patch)."""

    def __init__(self, width: int, channels: int, patch: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(width, channels, *patch))
        self.weight.map_axes = (0,), tuple(range(1, self.weight.ndim))  # type: ignore[attr-defined]  # for rates by width
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        patch = self.weight.shape[2:]
        rank = len(patch)
        cells = (x @ self.weight.flatten(1)).unflatten(-1, self.weight.shape[1:])  # batch, *place, channel, *patch
        cells = cells.permute(0, 1 + rank, *(axis for i in range(rank) for axis in (1 + i, 2 + rank + i)))
        for axis in range(2, 2 + rank):
            cells = cells.flatten(axis, axis + 1)
        return cells + self.bias.reshape(-1, *[1] * rank)


def _block(
    width: int,
    heads: int,
    shape: Sequence[int],
    window: Sequence[int],
    shifted: bool,
    cyclic: bool,
    bias: str,
    qk_norm: bool,
    order: str,
    mlp_ratio: float,
    drop_path: float,
) -> WindowBlock:
    windows = Windows(shape, window, shifted=shifted, cyclic=cyclic)
    attention = EarthAttention(width, heads, windows, bias, normed=qk_norm)
    return WindowBlock(width, attention, windows, mlp_ratio=mlp_ratio, order=order, drop_path=drop_path)
