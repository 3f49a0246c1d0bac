"""ClimaX: a token for every variable, gathered at each place, then a vision transformer with the lead time as input.

    x = gathered(x_v) + position + W hours / 100;    blocks;    fields = MLP(norm(x))

Nguyen et al. 2023, arXiv 2301.10343, whose network this repeats, weights and all. It reads any variables and writes
those that the World predicts, where the original writes all of its variables and selects.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emulators.layers.attention.learned_queries import VariableAggregation, VariableTokens
from emulators.layers.attention.patches import Frame, unpatched
from emulators.layers.attention.transformer import TransformerBlock, drop_path_rates, initialise_linear
from emulators.layers.attention.wave_embedding import plane_waves
from emulators.layers.convolution import pole_mirror
from emulators.layers.sample_draws import dropout
from emulators.world import World, hours_of

ABOUT = {
    "states": "1",
    "step": "any, an input",
    "grid": "any; patches, others padded",
    "parity": "ClimaX, 1e-5",
}
PUBLISHED = (  # names in ClimaX's checkpoints, and ours
    (r"(?:net\.)?token_embeds\.(\d+)\.proj\.(\w+)", r"tokens.\1.\2"),
    (r"(?:net\.)?var_embed", r"tokens.identity"),
    (r"(?:net\.)?var_query", r"gathering.query"),
    (r"(?:net\.)?var_agg\.in_proj_(\w+)", r"gathering.\1"),
    (r"(?:net\.)?var_agg\.out_proj\.(\w+)", r"gathering.projection.\1"),
    (r"(?:net\.)?pos_embed", r"position"),
    (r"(?:net\.)?lead_time_embed\.(\w+)", r"lead.\1"),
    (r"(?:net\.)?blocks\.(\d+)\.norm1\.(\w+)", r"blocks.\1.norm_in.\2"),
    (r"(?:net\.)?blocks\.(\d+)\.norm2\.(\w+)", r"blocks.\1.norm_out.\2"),
    (r"(?:net\.)?blocks\.(\d+)\.attn\.qkv\.(\w+)", r"blocks.\1.attention.qkv.\2"),
    (r"(?:net\.)?blocks\.(\d+)\.attn\.proj\.(\w+)", r"blocks.\1.attention.projection.\2"),
    (r"(?:net\.)?blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"blocks.\1.mlp.expand.\2"),
    (r"(?:net\.)?blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"blocks.\1.mlp.contract.\2"),
    (r"(?:net\.)?(norm\.\w+|head\.\d+\.\w+)", r"\1"),
)
HOURS = 100.0  # the unit of lead times


class ClimaX(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon), `interval` hours later.

    patch: rows and columns of a token. embed: channels of a token. depth: number of blocks. heads: attention heads of
    the blocks and of the gathering. mlp_ratio: hidden channels of the MLPs as a multiple of embed. qk_norm:
    root-mean-square norms of each head's queries and keys. decoder_depth: number of hidden layers of the head. dropout:
    rate in tokens, attention output and MLPs. drop_path: rate of dropped residual paths in the last block, growing
    linearly from 0 in the first. fit, edges: see emulators.layers.attention.patches.Frame.
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
        decoder_depth: int = 2,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        fit: str = "pad",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        self.patch, self.dropout, self.hours = (patch, patch), dropout, hours_of(world.timestep)
        self.frame = Frame(world.lat_lon, patch, patch, fit, edges)
        self.mirror = pole_mirror(world)
        self.shape = tuple(size // patch for size in self.frame.shape)
        self.tokens = VariableTokens(world.input_channels, embed, patch)
        self.gathering = VariableAggregation(embed, heads)
        self.position = nn.Parameter(plane_waves(self.shape, embed).flatten(0, 1)[None])
        self.lead = nn.Linear(1, embed)
        self.blocks = nn.ModuleList(
            TransformerBlock(embed, heads, mlp_ratio, dropout=dropout, normed=qk_norm, drop_path=rate)
            for rate in drop_path_rates(drop_path, depth)
        )
        self.norm = nn.LayerNorm(embed)
        hidden = [layer for _ in range(decoder_depth) for layer in (nn.Linear(embed, embed), nn.GELU())]
        self.head = nn.Sequential(*hidden, nn.Linear(embed, world.output_channels * patch**2))
        initialise_linear(self)

    def forward(self, fields: Tensor, time: Tensor, *, interval: Tensor | None = None) -> Tensor:
        """Return the fields `interval` hours later, (batch,); None for the World's timestep."""
        hours = fields.new_full((len(fields),), self.hours) if interval is None else interval.to(fields.dtype)
        x = self.gathering(self.tokens(self.frame.inward(fields, self.mirror))) + self.position
        x = dropout(x + self.lead(hours[:, None, None] / HOURS), self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return self.frame.outward(unpatched(self.head(self.norm(x)).unflatten(1, self.shape), self.patch))


def adapted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights with one tensor for the maps of all variables."""
    ours = {name: value for name, value in theirs.items() if not name.startswith("tokens.")}
    for kind in ("weight", "bias"):
        numbers = range(sum(name.startswith("tokens.") and name.endswith(f".{kind}") for name in theirs))
        ours[f"tokens.{kind}"] = torch.stack([theirs[f"tokens.{k}.{kind}"] for k in numbers])
    ours["tokens.weight"] = ours["tokens.weight"].squeeze(2)  # of a single channel each
    ours["tokens.identity"] = theirs["tokens.identity"][0]
    ours["gathering.query"] = theirs["gathering.query"].flatten()
    return ours
