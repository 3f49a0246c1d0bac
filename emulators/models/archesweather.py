"""ArchesWeather: windows at each level, attention along the column, and norms moved by month and hour.

    c = MLP(waves(month)) + MLP(waves(hour)),   x = [surface patches; boxes of levels] + W x over the column
    a = attention in windows of ((1 + s1(c)) norm(x) + b1(c)),   x <- x + g1(c) (a + attention along columns of (a + p))
    x <- x + g2(c) (W (gelu(W_g h) * W_x h)),   h = (1 + s2(c)) norm(x) + b2(c);    s, b, g of a stage, zero at first

Four stages as in Pangu-Weather, the last of which reads the first's output; fields by 3x3 convolutions and a shuffle of
channels to points. Couairon et al. 2024, arXiv 2412.12971, whose network this repeats for one known state, weights and
all. As published, windows shift without a mask, across the poles too, the gated MLP has GELU for its gate though named
SwiGLU, the levels of the last layers are dealt out in two halves, and month and hour are those of the known state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.level_columns import LevelColumns
from emulators.layers.attention.patches import BoxEmbedding, Doubling, Frame, Halving, PatchEmbedding
from emulators.layers.attention.transformer import DropPath, check_heads, drop_path_rates
from emulators.layers.attention.window_attention import EarthAttention
from emulators.layers.attention.windows import Windows
from emulators.layers.convolution import pole_mirror
from emulators.world import World, hours_of

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "any; same levels for all variables",
    "parity": "geoarches, 1e-5",
}
PUBLISHED = (  # names in geoarches' checkpoints, and ours
    (r"(?:embedder\.)?(surface|level)_proj\.(\w+)", r"embed_\1.\2"),
    (r"(?:embedder\.)?(surface|level)_deconv\.weight", r"recover_\1.weight"),
    (r"(?:backbone\.)?interaction_layer\.fc1\.(\w+)", r"interaction.\1"),
    (r"(?:backbone\.)?downsample\.(norm|linear)\.(\w+)", r"halving.\1.\2"),
    (r"(?:backbone\.)?upsample\.linear1\.(\w+)", r"doubling.widen.\1"),
    (r"(?:backbone\.)?upsample\.linear2\.(\w+)", r"doubling.mix.\1"),
    (r"(?:backbone\.)?upsample\.norm\.(\w+)", r"doubling.norm.\1"),
    (r"(?:backbone\.)?layer(\d)\.adaLN_modulation\.1\.(\w+)", r"stages.\1.modulation.\2"),
    (r"(?:backbone\.)?layer(\d)\.blocks\.(\d+)\.norm1\.(\w+)", r"stages.\1.blocks.\2.norm_in.\3"),
    (r"(?:backbone\.)?layer(\d)\.blocks\.(\d+)\.norm2\.(\w+)", r"stages.\1.blocks.\2.norm_out.\3"),
    (
        r"(?:backbone\.)?layer(\d)\.blocks\.(\d+)\.attn\.earth_position_bias_table",
        r"stages.\1.blocks.\2.attention.table",
    ),
    (r"(?:backbone\.)?layer(\d)\.blocks\.(\d+)\.attn\.qkv\.(\w+)", r"stages.\1.blocks.\2.attention.qkv.\3"),
    (r"(?:backbone\.)?layer(\d)\.blocks\.(\d+)\.attn\.proj\.(\w+)", r"stages.\1.blocks.\2.attention.projection.\3"),
    (r"(?:backbone\.)?layer(\d)\.blocks\.(\d+)\.axis_pos\.param_0", r"stages.\1.blocks.\2.column.position"),
    (
        r"(?:backbone\.)?layer(\d)\.blocks\.(\d+)\.axis_attn\.axial_attentions\.0\.fn\.to_(q|kv|out)\.(\w+)",
        r"stages.\1.blocks.\2.column.to_\3.\4",
    ),
    (r"(?:backbone\.)?layer(\d)\.blocks\.(\d+)\.mlp\.fc1_g\.(\w+)", r"stages.\1.blocks.\2.mlp.gate.\3"),
    (r"(?:backbone\.)?layer(\d)\.blocks\.(\d+)\.mlp\.fc1_x\.(\w+)", r"stages.\1.blocks.\2.mlp.expand.\3"),
    (r"(?:backbone\.)?layer(\d)\.blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"stages.\1.blocks.\2.mlp.contract.\3"),
    (r"(month|hour)_embedder\.mlp\.(\d)\.(\w+)", r"\1.\2.\3"),
)
WAVES = 256  # numbers that month and hour are embedded in


class ArchesWeather(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon); all levels the same.

    patch: levels, rows and columns of a token, of which the last two agree. embed: channels at full resolution. depths,
    heads: blocks and attention heads of the four stages. column_heads: heads of the attention along the column. window:
    rows and columns of tokens in a window. mlp_ratio: hidden channels of the MLPs as a multiple of their input's, of
    which two thirds are taken. condition: size of c. drop_path: rate of dropped residual paths in the deepest block,
    growing linearly from 0. fit, edges: see emulators.layers.attention.patches.Frame.
    """

    def __init__(
        self,
        world: World,
        *,
        patch: Sequence[int] = (2, 2, 2),
        embed: int = 48,
        depths: Sequence[int] = (2, 6, 6, 2),
        heads: Sequence[int] = (3, 6, 6, 3),
        column_heads: int = 8,
        window: Sequence[int] = (4, 8),
        mlp_ratio: float = 4.0,
        condition: int = 64,
        drop_path: float = 0.0,
        fit: str = "pad",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        if len(patch) != 3 or patch[1] != patch[2] or len(window) != 2 or len(depths) != 4 or len(heads) != 4:
            raise ValueError(
                "Expected a patch of 3 sizes (level, and lat and lon alike), a window of 2, and 4 depths and 4 heads."
            )
        if patch[0] != 2:
            raise ValueError(f"Expected boxes of 2 levels, into halves of which channels are dealt; got {patch[0]}.")
        self.patch, self.hours = tuple(patch), hours_of(world.timestep)
        self.columns = LevelColumns(world)
        self.frame = Frame(world.lat_lon, patch[1], patch[2], fit, edges)
        self.mirror = pole_mirror(world)
        self.more = len(self.columns.levels) % 2  # a level of padding
        layers = 1 + (len(self.columns.levels) + self.more) // 2
        full = (layers, *(size // p for size, p in zip(self.frame.shape, patch[1:], strict=True)))
        half = (layers, *(-(-size // 2) for size in full[1:]))
        self.embed_surface = PatchEmbedding(self.columns.read_single, embed, self.patch[1:])
        self.embed_level = BoxEmbedding(self.columns.read_upper, embed, self.patch)
        self.interaction = nn.Linear(layers * embed, layers * embed)
        self.month, self.hour = (_wave_mlp(condition) for _ in range(2))
        rates = drop_path_rates(drop_path, depths[0] + depths[1])
        outer, inner = rates[: depths[0]], rates[depths[0] :]
        shapes = [(embed, full, outer), (2 * embed, half, inner), (2 * embed, half, inner), (2 * embed, full, outer)]
        self.stages = nn.ModuleDict(
            {
                str(n + 1): Stage(
                    width, shape, window, depths[n], heads[n], column_heads, mlp_ratio, condition, drops, world
                )
                for n, (width, shape, drops) in enumerate(shapes)
            }
        )
        self.halving, self.doubling = Halving(embed), Doubling(embed, full[1:])
        points = patch[1] * patch[2]
        self.recover_surface = nn.Conv2d(2 * embed, self.columns.written_single * points, 3, padding=1, bias=False)
        self.recover_level = nn.Conv2d(embed, self.columns.written_upper * points, 3, padding=1, bias=False)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        columns, single = self.columns.split(self.frame.inward(fields, self.mirror))
        columns = F.pad(columns, (0, 0, 0, 0, 0, self.more))
        x = torch.cat([self.embed_surface(single)[:, None], self.embed_level(columns)], dim=1)
        x = x + self._interaction(x)
        month, hour = month_and_hour(time - round(3600 * self.hours))
        condition = F.silu(self.month(waves(month)) + self.hour(waves(hour)))
        x = first = self.stages["1"](x, condition)
        x = self.stages["3"](self.stages["2"](self.halving(x), condition), condition)
        x = self.stages["4"](torch.cat([self.doubling(x), first], dim=-1), condition)
        return self.frame.outward(self._fields(x.permute(0, 4, 1, 2, 3)))

    def _interaction(self, x: Tensor) -> Tensor:
        """A linear map of all channels of a column."""
        rows = self.interaction(x.movedim(1, 3).flatten(3))
        return rows.unflatten(3, (x.shape[1], -1)).movedim(3, 1)

    def _fields(self, x: Tensor) -> Tensor:
        """Fields of the World from (batch, channel, layer, lat, lon)."""
        single = F.pixel_shuffle(self.recover_surface(x[:, :, 0]), self.patch[1])
        levels = x[:, :, 1:].unflatten(1, (-1, 2)).flatten(2, 3)[:, :, self.more :]
        rows = self.recover_level(levels.movedim(2, 1).flatten(0, 1))
        upper = F.pixel_shuffle(rows, self.patch[1]).unflatten(0, (len(x), -1)).movedim(1, 2)
        return self.columns.join(upper, single)


class Stage(nn.Module):
    """Apply blocks that share the scales, shifts and gates of one linear map of the condition."""

    def __init__(
        self,
        width: int,
        shape: Sequence[int],
        window: Sequence[int],
        depth: int,
        heads: int,
        column_heads: int,
        mlp_ratio: float,
        condition: int,
        drops: Sequence[float],
        world: World,
    ) -> None:
        super().__init__()
        self.modulation = nn.Linear(condition, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.blocks = nn.ModuleList()
        for i in range(depth):
            windows = Windows(shape, (1, *window), shifted=i % 2 == 1, cyclic=world.lat_lon.is_cyclic)
            self.blocks.append(Block(width, heads, column_heads, windows, int(width * mlp_ratio * 2 / 3), drops[i]))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        modulations = self.modulation(condition)[:, None, None, None].chunk(6, -1)
        for block in self.blocks:
            x = block(x, modulations)
        return x


class Block(nn.Module):
    """Apply attention in windows and along the column, then a gated MLP, (batch, layer, lat, lon, channel)."""

    def __init__(
        self, width: int, heads: int, column_heads: int, windows: Windows, hidden: int, drop_path: float
    ) -> None:
        super().__init__()
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.windows, self.attention = windows, EarthAttention(width, heads, windows)
        self.column = ColumnAttention(width, column_heads, windows.shape[0])
        self.mlp, self.drop_path = GatedMLP(width, hidden), DropPath(drop_path)

    def forward(self, x: Tensor, parts: Sequence[Tensor]) -> Tensor:
        shift_in, scale_in, gate_in, shift_out, scale_out, gate_out = parts
        mixed = torch.addcmul(shift_in, self.norm_in(x), 1.0 + scale_in)
        mixed = self.windows.join(self.attention(self.windows.partition(mixed)))
        mixed = mixed + self.drop_path(self.column(mixed))
        x = x + gate_in * self.drop_path(mixed)
        return x + self.drop_path(gate_out * self.mlp(torch.addcmul(shift_out, self.norm_out(x), 1.0 + scale_out)))


class ColumnAttention(nn.Module):
    """Let the layers of a column attend to each other, each with a learned position."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.position = nn.Parameter(torch.randn(1, layers, width))
        self.to_q, self.to_kv = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        columns = x.movedim(1, 3)
        rows = columns.flatten(0, 2) + self.position
        q, k, v = (
            vectors.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for vectors in (self.to_q(rows), *self.to_kv(rows).chunk(2, -1))
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.to_out(mixed).reshape(columns.shape).movedim(3, 1)


class GatedMLP(nn.Module):
    """Apply W (gelu(W_g x) * W_x x)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.expand = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(F.gelu(self.gate(x)) * self.expand(x))


def _wave_mlp(size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(WAVES, size), nn.SiLU(), nn.Linear(size, size))


def waves(number: Tensor) -> Tensor:
    """Return cosines, then sines of numbers (batch,), (batch, 256), with wavelengths from 2 pi to 20,000 pi."""
    half = WAVES // 2
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, device=number.device) / half)
    phase = number[:, None].float() * frequencies
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


def month_and_hour(time: Tensor) -> tuple[Tensor, Tensor]:
    """Return month (1 to 12) and hour (0 to 23) of seconds since 1970 UTC, in the Gregorian calendar.

    The year is counted from March in eras of 400 years, as in Hinnant 2013, Low-Level Date Algorithms.
    """
    days = torch.div(time, 86_400, rounding_mode="floor")
    day = torch.remainder(days + 719_468, 146_097)  # of an era, which begins on 1 March
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    month = (5 * (day - (365 * year + year // 4 - year // 100)) + 2) // 153
    return torch.remainder(month + 2, 12) + 1, torch.remainder(time, 86_400) // 3600


def adapted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights; biases of shifted blocks are one layer off there, as windows shift upwards too.

    They have 8 layers, of the surface and 13 levels.
    """
    ours = dict(theirs)
    for name, table in theirs.items():
        if name.endswith("attention.table") and int(name.split(".")[3]) % 2:
            ours[name] = table.roll(table.shape[1] // 8, 1)
    return ours
