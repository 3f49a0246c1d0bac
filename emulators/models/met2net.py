"""Met2Net: an encoder and a decoder for every variable, between them attention of variables to one another.

    z_v = encoder_v(x_v)  frame by frame,     z <- W z
    z <- norm(z + attention over v(z)),   z <- norm(2 z + block(z)),     frames_v = decoder_v(W' z_v)

Attention compares whole latent fields, each head with its share of their channels; the block is that of
emulators.layers.attention.large_kernel; encoders are 3x3 convolutions, every second of which halves the resolution,
each with group norm and SiLU. Li et al. 2025, arXiv 2507.17189, whose network this repeats, weights and all, on top of
SimVP (Gao et al. 2022, arXiv 2206.05099). It writes as many frames as it reads; here the first is the output, `frames`
gives all. Forcing and static fields, which it does not have, are variables that are encoded alike, the same in every
frame, and not decoded; a diagnostic variable is decoded from the mean over all of them. It is trained in two stages by
emulators.objectives.two_stage; the momentum copies in its checkpoints are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.large_kernel import PUBLISHED as BLOCK
from emulators.layers.attention.large_kernel import LargeKernelBlock
from emulators.layers.attention.patches import Frame
from emulators.layers.attention.transformer import check_heads
from emulators.layers.convolution import Edges, PoleMirror, pole_mirror
from emulators.world import World

ABOUT = {
    "states": "any, 12",
    "step": "timestep",
    "grid": "any; halved per level, others padded",
    "parity": "Met2Net, 1e-5",
}
LAYER, OURS = r"hid_q\.layers\.(\d+)\.", r"translator.layers.\1."
PUBLISHED = (  # names in Met2Net's checkpoints, and ours
    (r"((?:enc|dec|hid)_k.*)", r"unused.\1"),  # momentum copies
    (LAYER + r"(ff\.ff1\.attn\.spatial_gating_unit\.fc.*)", r"unused.\1.\2"),
    (r"enc_q_list\.(\d+)\.enc\.(\d+)\.conv\.(conv|norm)\.(\w+)", r"\1.encoder.\2.\3.\4"),
    (r"dec_q_list\.(\d+)\.dec\.(\d+)\.conv\.(conv|norm)\.(?:0\.)?(\w+)", r"\1.decoder.\2.\3.\4"),
    (r"dec_q_list\.(\d+)\.readout\.(\w+)", r"\1.readout.\2"),
    (r"hid_q\.conv1\.(\w+)", r"translator.into.\1"),
    (r"hid_q\.conv2\.(\w+)", r"translator.out.\1"),
    (LAYER + r"norm_1\.(\w+)", OURS + r"norm_attention.\2"),
    (LAYER + r"norm_2\.(\w+)", OURS + r"norm_block.\2"),
    (LAYER + r"attn_1\.([qkv])_Conv\.0\.(\w+)", OURS + r"attention.\2.conv.\3"),
    (LAYER + r"attn_1\.([qkv])_Conv\.1\.(\w+)", OURS + r"attention.\2.norm.\3"),
    (LAYER + r"attn_1\.v_post_f\.0\.(\w+)", OURS + r"attention.projection.conv.\2"),
    (LAYER + r"attn_1\.v_post_f\.1\.(\w+)", OURS + r"attention.projection.norm.\2"),
    *((LAYER + r"ff\.ff1\." + theirs, OURS + r"block." + ours.replace(r"\1", r"\2")) for theirs, ours in BLOCK),
)


class Met2Net(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon); published with history 12.

    hidden: channels of a variable's frame. levels: halvings of the resolution, two convolutions each. embed, depth,
    heads: channels, number and attention heads of the layers between encoders and decoders. mlp_ratio, reach: see
    emulators.layers.attention.large_kernel. drop_path: rate of dropped residual paths in their blocks. inner_edges:
    padding of convolutions, published: `flat`. fit, edges: see emulators.layers.attention.patches.Frame.
    """

    def __init__(
        self,
        world: World,
        *,
        hidden: int = 16,
        levels: int = 1,
        embed: int = 64,
        depth: int = 4,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        reach: int = 21,
        drop_path: float = 0.0,
        inner_edges: str | None = None,
        fit: str = "pad",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        check_heads(embed, heads)
        if hidden < 2 or hidden % 2 or levels < 1 or depth < 1:
            raise ValueError(
                f"Expected an even number of hidden channels and at least 1 level and 1 layer; got {hidden}, {levels} "
                f"and {depth}."
            )
        self.states, self.carried, self.hidden = world.history, world.prognostic.size, hidden
        self.frame = Frame(world.lat_lon, 2**levels, 2**levels, fit, edges)
        self.mirror = pole_mirror(world)
        rim = Edges(world.lat_lon, inner_edges)
        is_whole = self.frame.shape == world.lat_lon.shape
        fine, coarse = (rim if is_whole else rim.coarser()), rim.coarser()
        read = world.input_channels - (world.history - 1) * self.carried
        self.encoder = nn.ModuleList()
        for k in range(2 * levels):
            mirror = self.mirror if is_whole and not k else None  # a frame has turned what lies beyond the poles
            into, sides = hidden if k else 1, fine if k < 2 else coarse
            self.encoder.append(Layer(read, into, hidden, sides, "down" if k % 2 else "", mirror))
        layers = (
            VariableLayer(
                heads, LargeKernelBlock(embed, coarse, mlp_ratio=mlp_ratio, reach=reach, drop_path=drop_path), embed
            )
            for _ in range(depth)
        )
        self.translator = Translator(world, world.history * hidden, embed, layers)
        written = world.output_channels
        self.decoder = nn.ModuleList(
            Layer(written, hidden, hidden, coarse if k < 2 * levels - 1 else fine, "" if k % 2 else "up")
            for k in range(2 * levels)
        )
        self.readout = nn.Conv2d(written * hidden, written, 1, groups=written)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        return self.frame.outward(self.decoded(self.translator(self.encoded(fields))[:, :, : self.hidden]))

    def frames(self, fields: Tensor) -> Tensor:
        """Return as many states ahead as are known, (batch, time, output channel, lat, lon)."""
        return self.decoded_frames(self.translator(self.encoded(fields)))

    def decoded_frames(self, latent: Tensor) -> Tensor:
        """Return the fields (batch, time, output channel, lat, lon) of the translator's output."""
        latent = latent.unflatten(2, (self.states, self.hidden)).transpose(1, 2)
        return self.frame.outward(self.decoded(latent.flatten(0, 1))).unflatten(0, (-1, self.states))

    def encoded(self, fields: Tensor) -> Tensor:
        """Return latent fields (batch, variable, time * hidden, lat, lon) of prognostic and prescribed channels."""
        past = fields[:, : self.states * self.carried].unflatten(1, (self.states, self.carried))
        fixed = fields[:, self.states * self.carried :, None].transpose(1, 2).expand(-1, self.states, -1, -1, -1)
        x = self.frame.inward(torch.cat([past, fixed], 2).flatten(0, 1), self.mirror)
        for layer in self.encoder:
            x = layer(x)
        x = x.unflatten(1, (-1, self.hidden)).unflatten(0, (-1, self.states))
        return x.transpose(1, 2).flatten(2, 3)

    def decoded(self, latent: Tensor) -> Tensor:
        """Return the fields (n, output channel, lat, lon) of latent ones (n, output channel, hidden, lat, lon)."""
        x = latent.flatten(1, 2)
        for layer in self.decoder:
            x = layer(x)
        return self.readout(x)


class Translator(nn.Module):
    """Map latent fields (batch, variable, channels, lat, lon) to those of the frames ahead, if predicted."""

    def __init__(self, world: World, channels: int, embed: int, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.carried, self.diagnostic = world.prognostic.size, world.diagnostic.size
        self.into = nn.Conv2d(channels, embed, 1)
        self.layers = nn.ModuleList(layers)
        self.out = nn.Conv2d(embed, channels, 1)

    def forward(self, latent: Tensor) -> Tensor:
        batch = len(latent)
        x = self.into(latent.flatten(0, 1)).unflatten(0, (batch, -1))
        for layer in self.layers:
            x = layer(x)
        means = [x.mean(1, keepdim=True)] * self.diagnostic
        x = torch.cat([x[:, : self.carried], *means], 1)
        return self.out(x.flatten(0, 1)).unflatten(0, (batch, -1))


class Layer(nn.Module):
    """Apply a 3x3 convolution to each of `groups` variables, group norm and SiLU; resample: `down`, `up` or neither."""

    def __init__(
        self, groups: int, into: int, out: int, rim: Edges, resample: str, mirror: PoleMirror | None = None
    ) -> None:
        super().__init__()
        self.rim, self.resample, self.mirror = rim, resample, mirror
        size, stride = (4 * out if resample == "up" else out), (2 if resample == "down" else 1)
        self.conv = nn.Conv2d(groups * into, groups * size, 3, stride=stride, groups=groups)
        self.norm = nn.GroupNorm(2 * groups, groups * out)

    def forward(self, x: Tensor) -> Tensor:
        after = 0 if self.resample == "down" else 1
        x = self.conv(self.rim.pad(x, 1, after, 1, after, mirror=self.mirror))
        return F.silu(self.norm(F.pixel_shuffle(x, 2) if self.resample == "up" else x))


class VariableLayer(nn.Module):
    """Apply attention of variables to one another, then the block to each of them, with norms after both."""

    def __init__(self, heads: int, block: LargeKernelBlock, channels: int) -> None:
        super().__init__()
        self.attention, self.block = VariableAttention(channels, heads), block
        self.norm_attention, self.norm_block = nn.GroupNorm(1, channels), nn.GroupNorm(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch = len(x)
        x = self.norm_attention((x + self.attention(x)).flatten(0, 1))
        return self.norm_block(2.0 * x + self.block(x)).unflatten(0, (batch, -1))


class VariableAttention(nn.Module):
    """Let variables (batch, variable, channel, lat, lon) attend to one another by their latent fields."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.projection = (NormedMap(channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        q, k, v = (
            layer(rows).unflatten(1, (self.heads, -1)).unflatten(0, x.shape[:2]).transpose(1, 2).flatten(3)
            for layer in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows.shape)
        return F.silu(self.projection(mixed)).unflatten(0, x.shape[:2])


class NormedMap(nn.Module):
    """Apply a linear map of channels and a norm over channels and points."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.GroupNorm(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def adapted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights without copies, the weights of all variables joined as for a grouped convolution."""
    ours: dict[str, Tensor] = {}
    rows: dict[str, dict[int, Tensor]] = {}
    for name, value in theirs.items():
        if match := re.fullmatch(r"(\d+)\.(.*)", name):
            rows.setdefault(match[2], {})[int(match[1])] = value
        elif not name.startswith("unused."):
            ours[name] = value
    return ours | {name: torch.cat([row[k] for k in sorted(row)]) for name, row in rows.items()}
