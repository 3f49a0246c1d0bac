"""Stormer: variables gathered at each place, then a transformer whose norms are scaled and shifted by the interval.

    c = W hours / 10 + b
    x <- x + g1(c) attention((1 + s1(c)) norm(x) + b1(c)),    x <- x + g2(c) MLP((1 + s2(c)) norm(x) + b2(c))

s, b, g: linear in SiLU(c) and zero at the start, so that blocks start as identities and the output as zero. The output
is the change over the interval in units of its own standard deviation, which the Step knows. Nguyen et al. 2024, arXiv
2312.03876, whose network this repeats, weights and all; after Peebles & Xie 2023, arXiv 2212.09748. Its training draws
intervals at random (objective=random_intervals), its forecast averages over sequences of intervals (forecast.path).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.learned_queries import VariableAggregation, VariableTokens
from emulators.layers.attention.patches import Frame, unpatched
from emulators.layers.attention.transformer import MLP, Attention, initialise_linear
from emulators.layers.attention.wave_embedding import plane_waves
from emulators.layers.convolution import pole_mirror
from emulators.world import World, hours_of

ABOUT = {
    "states": "1",
    "step": "any, an input",
    "grid": "any; patches, others padded",
    "parity": "Stormer, 1e-5",
}
PUBLISHED = (  # names in Stormer's checkpoints, and ours
    (r"(?:net\.)?embedding\.token_embeds\.(\d+)\.proj\.(\w+)", r"tokens.\1.\2"),
    (r"(?:net\.)?embedding\.channel_embed", r"tokens.identity"),
    (r"(?:net\.)?embedding\.channel_query", r"gathering.query"),
    (r"(?:net\.)?embedding\.channel_agg\.in_proj_(\w+)", r"gathering.\1"),
    (r"(?:net\.)?embedding\.channel_agg\.out_proj\.(\w+)", r"gathering.projection.\1"),
    (r"(?:net\.)?embedding\.pos_embed", r"position"),
    (r"(?:net\.)?embed_norm_layer\.(\w+)", r"norm.\1"),
    (r"(?:net\.)?t_embedder\.mlp\.(\w+)", r"interval.\1"),
    (r"(?:net\.)?blocks\.(\d+)\.attn\.qkv\.(\w+)", r"blocks.\1.attention.qkv.\2"),
    (r"(?:net\.)?blocks\.(\d+)\.attn\.proj\.(\w+)", r"blocks.\1.attention.projection.\2"),
    (r"(?:net\.)?blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"blocks.\1.mlp.expand.\2"),
    (r"(?:net\.)?blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"blocks.\1.mlp.contract.\2"),
    (r"(?:net\.)?blocks\.(\d+)\.adaLN_modulation\.1\.(\w+)", r"blocks.\1.modulation.\2"),
    (r"(?:net\.)?head\.adaLN_modulation\.1\.(\w+)", r"modulation.\1"),
    (r"(?:net\.)?head\.linear\.(\w+)", r"head.\1"),
)
HOURS = 10.0  # the unit of intervals
EPS = 1e-6  # of the norms in blocks


class Stormer(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon), `interval` hours later.

    patch: rows and columns of a token. embed: channels of a token. depth: number of blocks. heads: attention heads of
    the blocks and of the gathering. mlp_ratio: hidden channels of the MLPs as a multiple of embed. qk_norm:
    root-mean-square norms of each head's queries and keys. fit, edges: see emulators.layers.attention.patches.Frame.
    """

    conditioning = ("interval",)

    def __init__(
        self,
        world: World,
        *,
        patch: int = 2,
        embed: int = 128,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        fit: str = "pad",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        self.patch, self.hours = (patch, patch), hours_of(world.timestep)
        self.frame = Frame(world.lat_lon, patch, patch, fit, edges)
        self.mirror = pole_mirror(world)
        self.shape = tuple(size // patch for size in self.frame.shape)
        self.tokens = VariableTokens(world.input_channels, embed, patch)
        self.position = nn.Parameter(plane_waves(self.shape, embed).flatten(0, 1)[None])
        self.gathering = VariableAggregation(embed, heads)
        self.norm = nn.LayerNorm(embed)
        self.interval = nn.Linear(1, embed)
        self.blocks = nn.ModuleList(Block(embed, heads, mlp_ratio, qk_norm) for _ in range(depth))
        self.modulation = nn.Linear(embed, 2 * embed)
        self.head = nn.Linear(embed, world.output_channels * patch**2)
        initialise_linear(self)
        for name, parameter in self.named_parameters():
            if "modulation" in name or name.startswith("head"):
                nn.init.zeros_(parameter)

    def forward(self, fields: Tensor, time: Tensor, *, interval: Tensor | None = None) -> Tensor:
        """Return the fields `interval` hours later, (batch,); None for the World's timestep."""
        hours = fields.new_full((len(fields),), self.hours) if interval is None else interval.to(fields.dtype)
        condition = F.silu(self.interval(hours[:, None, None] / HOURS))
        tokens = self.tokens(self.frame.inward(fields, self.mirror)) + self.position.unsqueeze(2)
        x = self.norm(self.gathering(tokens))
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(condition).chunk(2, -1)
        x = self.head(torch.addcmul(shift, x, 1.0 + scale))
        return self.frame.outward(unpatched(x.unflatten(1, self.shape), self.patch))


class Block(nn.Module):
    """Apply attention and an MLP, both residual; the condition scales and shifts norms and gates outputs."""

    def __init__(self, channels: int, heads: int, mlp_ratio: float, qk_norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=EPS, elementwise_affine=False)
        self.attention = Attention(channels, heads, normed=qk_norm)
        self.mlp = MLP(channels, int(mlp_ratio * channels), tanh=True)
        self.modulation = nn.Linear(channels, 6 * channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift_in, scale_in, gate_in, shift_out, scale_out, gate_out = self.modulation(condition).chunk(6, -1)
        x = x + gate_in * self.attention(torch.addcmul(shift_in, self.norm(x), 1.0 + scale_in))
        return x + gate_out * self.mlp(torch.addcmul(shift_out, self.norm(x), 1.0 + scale_out))


def adapted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights with one tensor for the maps of all variables."""
    ours = {name: value for name, value in theirs.items() if not name.startswith("tokens.")}
    count = sum(name.startswith("tokens.") and name.endswith(".weight") for name in theirs)
    for kind in ("weight", "bias"):
        ours[f"tokens.{kind}"] = torch.stack([theirs[f"tokens.{k}.{kind}"] for k in range(count)])
    ours["tokens.weight"] = ours["tokens.weight"].squeeze(2)  # of a single channel each
    ours["tokens.identity"] = theirs["tokens.identity"][0]
    ours["gathering.query"] = theirs["gathering.query"].flatten()
    return ours
