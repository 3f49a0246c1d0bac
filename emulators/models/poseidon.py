"""Poseidon's scOT: a U-shape of SwinV2 blocks in which the lead time sets scale and shift of every norm.

    norm(x, t) = (w t + a) (x - mean) / deviation + v t + b,     t = hours ahead / horizon
    s_k = blocks_k(x_k),   x_k+1 = halve(s_k + x_k),   y_k = blocks'_k(double(y_k+1) + skip_k(s_k)),   fields = K W y_0

Deviations over channels, norms after attention and MLP, skip: ConvNeXt blocks, K: a 5x5 convolution. Herde et al. 2024,
arXiv 2405.19101, whose network this repeats, weights and all, for any number of rows and columns; SwinV2: Liu et al.
2022, arXiv 2111.09883; ConvNeXt: Liu et al. 2022, arXiv 2201.03545. Shifted windows and convolutions are periodic in
longitude, and norms start as plain ones, a = 1, where the original starts near zero. It is trained from every known
state to every later one (objective=all_to_all).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.patches import Frame, PatchEmbedding
from emulators.layers.attention.transformer import MLP, drop_path_rates, initialise_linear
from emulators.layers.attention.window_attention import CosineAttention
from emulators.layers.attention.windows import WindowBlock, Windows
from emulators.layers.convolution import Convolution, Edges, pole_mirror
from emulators.world import World, hours_of

ABOUT = {
    "states": "1",
    "step": "any, an input",
    "grid": "any; patches halved per stage, others padded",
    "parity": "Poseidon, 1e-5",
}
_BLOCK, _OURS = r"(en|de)coder\.layers\.(\d+)\.blocks\.(\d+)\.", r"\1coder.\2.\3."
PUBLISHED = (  # names in Poseidon's checkpoints, and ours
    (r"embeddings\.patch_embeddings\.projection\.(\w+)", r"embedding.\1"),
    (r"embeddings\.norm\.(weight|bias)\.(\w+)", r"norm.\1.\2"),
    (_BLOCK + r"attention\.self\.logit_scale", _OURS + "attention.scale"),
    (
        _BLOCK + r"attention\.self\.continuous_position_bias_mlp\.(\d)\.(\w+)",
        _OURS + r"attention.bias_of_distance.\4.\5",
    ),
    (_BLOCK + r"attention\.self\.(query|value)\.bias", _OURS + r"attention.bias_\4"),
    (_BLOCK + r"attention\.self\.(query|key|value)\.weight", _OURS + r"attention.\4.weight"),
    (_BLOCK + r"attention\.output\.dense\.(\w+)", _OURS + r"attention.projection.\4"),
    (_BLOCK + r"intermediate\.dense\.(\w+)", _OURS + r"mlp.expand.\4"),
    (_BLOCK + r"output\.dense\.(\w+)", _OURS + r"mlp.contract.\4"),
    (_BLOCK + r"layernorm_before\.(weight|bias)\.(\w+)", _OURS + r"norm_in.\4.\5"),
    (_BLOCK + r"layernorm_after\.(weight|bias)\.(\w+)", _OURS + r"norm_out.\4.\5"),
    (r"encoder\.layers\.(\d+)\.downsample\.reduction\.weight", r"halvings.\1.linear.weight"),
    (r"encoder\.layers\.(\d+)\.downsample\.norm\.(weight|bias)\.(\w+)", r"halvings.\1.norm.\2.\3"),
    (r"decoder\.layers\.(\d+)\.upsample\.upsample\.weight", r"doublings.\1.widen.weight"),
    (r"decoder\.layers\.(\d+)\.upsample\.mixup\.weight", r"doublings.\1.mix.weight"),
    (r"decoder\.layers\.(\d+)\.upsample\.norm\.(weight|bias)\.(\w+)", r"doublings.\1.norm.\2.\3"),
    (r"residual_blocks\.(\d+)\.(\d+)\.dwconv\.(\w+)", r"skips.\1.\2.convolution.\3"),
    (r"residual_blocks\.(\d+)\.(\d+)\.norm\.(weight|bias)\.(\w+)", r"skips.\1.\2.norm.\3.\4"),
    (r"residual_blocks\.(\d+)\.(\d+)\.pwconv1\.(\w+)", r"skips.\1.\2.mlp.expand.\3"),
    (r"residual_blocks\.(\d+)\.(\d+)\.pwconv2\.(\w+)", r"skips.\1.\2.mlp.contract.\3"),
    (r"residual_blocks\.(\d+)\.(\d+)\.weight", r"skips.\1.\2.gate"),
    (r"patch_recovery\.projection\.(\w+)", r"recovery.\1"),
    (r"patch_recovery\.mixup\.weight", r"mixing.weight"),
)


def _refuse_sizes(depths: Sequence[int], heads: Sequence[int], skips: Sequence[int], horizon: float) -> None:
    """Raise ValueError where the stages or the horizon do not fit."""
    if not depths or {len(heads), len(skips)} != {len(depths)} or min(depths) < 1:
        raise ValueError(
            "Expected depths of at least 1, and as many heads and skips as stages; "
            f"got {list(depths)}, {list(heads)} and {list(skips)}."
        )
    if horizon <= 0:
        raise ValueError(f"Expected a horizon of some hours; got {horizon}.")


class Poseidon(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon), `interval` hours later.

    patch: rows and columns of a token. embed: channels of the first stage, doubled at each further one. depths, heads,
    skips: blocks, attention heads and ConvNeXt blocks in the skip of each stage, finest first. window: rows and columns
    of tokens in a window. mlp_ratio: hidden channels of the MLPs as a multiple of their input's. horizon: hours that
    the network reads as 1. around: whether shifted windows are periodic in longitude. inner_edges: padding of
    convolutions on tokens, published: `flat`. drop_path: rate of dropped residual paths in the last block, growing
    linearly from 0 in the first. fit, edges: see emulators.layers.attention.patches.Frame.
    """

    conditioning = ("interval",)

    def __init__(
        self,
        world: World,
        *,
        patch: int = 2,
        embed: int = 24,
        depths: Sequence[int] = (2, 2, 2),
        heads: Sequence[int] = (2, 4, 8),
        skips: Sequence[int] = (1, 1, 0),
        window: Sequence[int] = (4, 8),
        mlp_ratio: float = 4.0,
        horizon: float = 24.0,
        around: bool = True,
        inner_edges: str | None = None,
        drop_path: float = 0.0,
        fit: str = "pad",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        stages = len(depths)
        _refuse_sizes(depths, heads, skips, horizon)
        self.hours, self.horizon = hours_of(world.timestep), horizon
        size = patch * 2 ** (stages - 1)
        self.frame = Frame(world.lat_lon, size, size, fit, edges)
        self.mirror = pole_mirror(world)
        self.embedding, self.norm = PatchEmbedding(world.input_channels, embed, (patch, patch)), TimedNorm(embed)
        rim = Edges(world.lat_lon, inner_edges)
        widths = [embed * 2**k for k in range(stages)]
        shapes = [[rows // (patch * 2**k) for rows in self.frame.shape] for k in range(stages)]
        drops = iter(drop_path_rates(drop_path, 2 * sum(depths)))

        def stage(k: int, shifts: Sequence[int]) -> Blocks:
            blocks = Blocks()
            for shifted in shifts:
                windows = Windows(shapes[k], window, shifted=shifted % 2 == 1, cyclic=around and rim.cyclic)
                attention = CosineAttention(widths[k], heads[k], windows.window)
                blocks.append(
                    WindowBlock(
                        widths[k], attention, windows, mlp_ratio=mlp_ratio, norm=TimedNorm, drop_path=next(drops)
                    )
                )
            return blocks

        coarser = rim.coarser()
        self.encoder = nn.ModuleList(stage(k, range(depths[k])) for k in range(stages))
        self.halvings = nn.ModuleList(Halving(width) for width in widths[:-1])
        self.skips = nn.ModuleList(
            Blocks(ConvNext(width, coarser) for _ in range(count)) for width, count in zip(widths, skips, strict=True)
        )
        self.decoder = nn.ModuleList(stage(k, range(depths[k])[::-1]) for k in reversed(range(stages)))
        self.doublings = nn.ModuleList(Doubling(width) for width in reversed(widths[:-1]))
        self.recovery = nn.ConvTranspose2d(embed, world.output_channels, patch, stride=patch)
        fine = Edges(world.lat_lon, edges)
        fine = fine if self.frame.shape == world.lat_lon.shape else fine.coarser()
        self.mixing = Convolution(world.output_channels, world.output_channels, 5, fine, bias=False)
        initialise_linear(self)
        for module in self.modules():
            if isinstance(module, TimedNorm):
                nn.init.ones_(module.weight.bias)

    def forward(self, fields: Tensor, time: Tensor, *, interval: Tensor | None = None) -> Tensor:
        """Return the fields `interval` hours later, (batch,); None for the World's timestep."""
        hours = fields.new_full((len(fields),), self.hours) if interval is None else interval.to(fields.dtype)
        condition = (hours / self.horizon)[:, None, None, None]
        x = self.norm(self.embedding(self.frame.inward(fields, self.mirror)), condition)
        finer = []
        for k, (stage, skip) in enumerate(zip(self.encoder, self.skips, strict=True)):
            encoded = stage(x, condition)
            finer.append(skip(encoded, condition))
            if k < len(self.halvings):
                x = self.halvings[k](encoded + x, condition)
        x = self.decoder[0](finer.pop(), condition)
        for double, stage in zip(self.doublings, self.decoder[1:], strict=True):
            x = stage(double(x, condition) + finer.pop(), condition)
        return self.frame.outward(self.mixing(self.recovery(x.permute(0, 3, 1, 2))))


class TimedNorm(nn.Module):
    """Apply layer norm to (batch, lat, lon, channel), with scale and shift linear in a number, (batch, 1, 1, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Linear(1, channels), nn.Linear(1, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return torch.addcmul(self.bias(condition), F.layer_norm(x, x.shape[-1:]), self.weight(condition))


class Blocks(nn.ModuleList):
    """Apply blocks one after another, all with the same condition."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self:
            x = block(x, condition)
        return x


class ConvNext(nn.Module):
    """Add to the input a 7x7 convolution of each channel, norm and MLP, through a learned gate for each channel."""

    def __init__(self, channels: int, rim: Edges) -> None:
        super().__init__()
        self.convolution = Convolution(channels, channels, 7, rim, groups=channels)
        self.norm, self.mlp = TimedNorm(channels), MLP(channels, 4 * channels)
        self.gate = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.gate * self.mlp(self.norm(h, condition))


class Halving(nn.Module):
    """Merge 2x2 neighbours, columns first, into one token of twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4 * channels, 2 * channels, bias=False), TimedNorm(2 * channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2, 5)  # batch, lat, lon, q, p, channel
        return self.norm(self.linear(x.flatten(3)), condition)


class Doubling(nn.Module):
    """Split one token into 2x2 of half the channels, `channels`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.widen = nn.Linear(2 * channels, 4 * channels, bias=False)
        self.norm, self.mix = TimedNorm(channels), nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.widen(x).unflatten(-1, (2, 2, -1)).permute(0, 1, 3, 2, 4, 5)
        return self.mix(self.norm(x.flatten(3, 4).flatten(1, 2), condition))


def adapted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights with queries, keys and values as one map."""
    ours = {}
    for name, value in theirs.items():
        if name.endswith("query.weight"):
            tensors = [theirs[name.replace("query", kind)] for kind in ("query", "key", "value")]
            ours[name.replace("query", "qkv")] = torch.cat(tensors)
        elif not name.endswith(("key.weight", "value.weight")):
            ours[name.replace("bias_query", "bias_q").replace("bias_value", "bias_v")] = value
    return ours
