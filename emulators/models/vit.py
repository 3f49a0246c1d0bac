"""Vision transformer: every patch of the grid is a token that attends to all others.

    x = W patch + b + position;   x <- x + attention(norm(x)),  x <- x + MLP(norm(x));   fields = MLP(norm(x))

Dosovitskiy et al. 2021, arXiv 2010.11929; on weather as in ClimateLearn (Nguyen et al. 2023, arXiv 2307.01909), whose
network this repeats, weights and all.
"""

from __future__ import annotations

from torch import Tensor, nn

from emulators.layers.attention.patches import Frame, PatchEmbedding, unpatched
from emulators.layers.attention.transformer import TransformerBlock, drop_path_rates, initialise_linear
from emulators.layers.attention.wave_embedding import plane_waves
from emulators.layers.convolution import pole_mirror
from emulators.layers.sample_draws import dropout
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "any; patches of 2, others padded",
    "parity": "ClimateLearn, 1e-5",
}
PUBLISHED = (  # names in ClimateLearn's checkpoints, and ours
    (r"patch_embed\.proj\.(weight|bias)", r"embedding.\1"),
    (r"pos_embed", r"position"),
    (r"blocks\.(\d+)\.norm1\.(\w+)", r"blocks.\1.norm_in.\2"),
    (r"blocks\.(\d+)\.norm2\.(\w+)", r"blocks.\1.norm_out.\2"),
    (r"blocks\.(\d+)\.attn\.qkv\.(\w+)", r"blocks.\1.attention.qkv.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"blocks.\1.attention.projection.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"blocks.\1.mlp.expand.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"blocks.\1.mlp.contract.\2"),
    (r"(norm\.\w+|head\.\d+\.\w+)", r"\1"),
)


class ViT(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon).

    patch: rows and columns of a token. embed: channels of a token. depth: number of blocks. heads: attention heads of
    each. mlp_ratio: hidden channels of the MLPs as a multiple of embed. qk_norm: root-mean-square norms of each head's
    queries and keys. decoder_depth: number of hidden layers of the head. dropout: rate in embedding, attention and
    MLPs. drop_path: rate of dropped residual paths in the last block, growing linearly from 0 in the first. positions:
    `fixed` sines and cosines, or `learned` from them. fit, edges: see emulators.layers.attention.patches.Frame.
    """

    position: Tensor

    def __init__(
        self,
        world: World,
        *,
        patch: int = 2,
        embed: int = 128,
        depth: int = 8,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        decoder_depth: int = 2,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        positions: str = "fixed",
        fit: str = "pad",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        if positions not in ("fixed", "learned"):
            raise ValueError(f"Expected positions to be 'fixed' or 'learned'; got '{positions}'.")
        self.patch, self.dropout = (patch, patch), dropout
        self.frame = Frame(world.lat_lon, patch, patch, fit, edges)
        self.mirror = pole_mirror(world)
        self.embedding = PatchEmbedding(world.input_channels, embed, self.patch)
        position = plane_waves([size // patch for size in self.frame.shape], embed).flatten(0, 1)[None]
        if positions == "learned":
            self.position = nn.Parameter(position)
        else:
            self.register_buffer("position", position, persistent=False)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                embed, heads, mlp_ratio, dropout=dropout, weight_dropout=dropout, normed=qk_norm, drop_path=rate
            )
            for rate in drop_path_rates(drop_path, depth)
        )
        self.norm = nn.LayerNorm(embed)
        hidden = [layer for _ in range(decoder_depth) for layer in (nn.Linear(embed, embed), nn.GELU())]
        self.head = nn.Sequential(*hidden, nn.Linear(embed, world.output_channels * patch**2))
        initialise_linear(self)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        tokens = self.embedding(self.frame.inward(fields, self.mirror))
        rows, columns = tokens.shape[1:3]
        x = dropout(tokens.flatten(1, 2) + self.position, self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return self.frame.outward(unpatched(self.head(self.norm(x)).unflatten(1, (rows, columns)), self.patch))
