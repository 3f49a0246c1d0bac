"""Swin transformer without levels: window attention on the tokens of one grid, nothing else; made to be scaled up.

    x = W patch + P place;    blocks in windows, every second shifted by half of one;    fields = W' x

Defaults: root-mean-square norms before attention and MLP and on queries and keys, place on the unit sphere as channels,
as in the study of scaling laws arXiv 2603.25687, whose network this repeats for one known state, weights and all. With
attention=cosine, order=post, norm=layer the blocks are those of SwinV2 (Liu et al. 2022, arXiv 2111.09883) that
Willard et al. 2024, arXiv 2404.19630, found enough for weather. Windows close around the globe, not over the poles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from emulators.grid import LatLonGrid
from emulators.layers.attention.patches import Frame, PatchEmbedding, unpatched
from emulators.layers.attention.transformer import drop_path_rates, initialise_linear
from emulators.layers.attention.window_attention import CosineAttention, WindowAttention
from emulators.layers.attention.windows import WindowBlock, Windows
from emulators.layers.convolution import pole_mirror
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "any; patches, others padded",
    "parity": "neural-scaling-weather, 1e-5",
}
NORMS = {"rms": nn.RMSNorm, "layer": nn.LayerNorm}
PUBLISHED = (  # names in the published code, and ours
    (r"patch_embed\.proj\.conv\.(\w+)", r"embedding.\1"),
    (r"pos_embed\.proj\.conv\.(\w+)", r"place.\1"),
    (r"blocks\.(\d+)\.norm1\.norm\.weight", r"blocks.\1.norm_in.weight"),
    (r"blocks\.(\d+)\.norm2\.norm\.weight", r"blocks.\1.norm_out.weight"),
    (r"blocks\.(\d+)\.attn\.([qkv])\.weight", r"blocks.\1.attention.\2.weight"),
    (r"blocks\.(\d+)\.attn\.bias([qkv])\.bias", r"blocks.\1.attention.\2.bias"),
    (r"blocks\.(\d+)\.attn\.q_norm\.norm\.weight", r"blocks.\1.attention.norms.0.weight"),
    (r"blocks\.(\d+)\.attn\.k_norm\.norm\.weight", r"blocks.\1.attention.norms.1.weight"),
    (r"blocks\.(\d+)\.attn\.proj\.weight", r"blocks.\1.attention.projection.weight"),
    (r"blocks\.(\d+)\.attn\.biasproj\.bias", r"blocks.\1.attention.projection.bias"),
    (r"blocks\.(\d+)\.mlp\.fc1\.weight", r"blocks.\1.mlp.expand.weight"),
    (r"blocks\.(\d+)\.mlp\.bias1\.bias", r"blocks.\1.mlp.expand.bias"),
    (r"blocks\.(\d+)\.mlp\.fc2\.weight", r"blocks.\1.mlp.contract.weight"),
    (r"blocks\.(\d+)\.mlp\.bias2\.bias", r"blocks.\1.mlp.contract.bias"),
    (r"head\.weight", r"head.weight"),
)


class Swin(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon).

    patch: rows and columns of a token. window: rows and columns of tokens in a window. embed: channels of a token.
    depth: number of blocks. heads: attention heads of each. mlp_ratio: hidden channels of the MLPs as a multiple of
    embed. qk_norm: norms of queries and keys in plain attention. attention: `plain` or `cosine`. order: position of the
    norms, `pre` or `post`. norm: `rms` or `layer`. drop_path: rate of dropped residual paths in the last block, growing
    linearly from 0 in the first. fit, edges: see emulators.layers.attention.patches.Frame.
    """

    points: Tensor

    def __init__(
        self,
        world: World,
        *,
        patch: int = 2,
        window: Sequence[int] = (4, 8),
        embed: int = 96,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        qk_norm: bool = True,
        attention: str = "plain",
        order: str = "pre",
        norm: str = "rms",
        drop_path: float = 0.0,
        fit: str = "pad",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        if attention not in ("plain", "cosine") or norm not in NORMS:
            raise ValueError(
                "Expected attention to be 'plain' or 'cosine' and norm to be 'rms' or 'layer'; "
                f"got '{attention}' and '{norm}'."
            )
        self.patch = patch, patch
        self.frame = Frame(world.lat_lon, patch, patch, fit, edges)
        self.mirror = pole_mirror(world)
        self.embedding = PatchEmbedding(world.input_channels, embed, self.patch)
        self.place = PatchEmbedding(3, embed, self.patch)
        points = self.frame.inward(torch.from_numpy(unit_sphere(world.lat_lon)).float()[None])
        self.register_buffer("points", points, persistent=False)
        shape = [size // patch for size in self.frame.shape]
        self.blocks = nn.ModuleList()
        for i, rate in enumerate(drop_path_rates(drop_path, depth)):
            windows = Windows(shape, window, shifted=i % 2 == 1, cyclic=world.lat_lon.is_cyclic)
            kind = (
                WindowAttention(embed, heads, normed=qk_norm)
                if attention == "plain"
                else CosineAttention(embed, heads, windows.window)
            )
            self.blocks.append(
                WindowBlock(embed, kind, windows, mlp_ratio=mlp_ratio, order=order, norm=NORMS[norm], drop_path=rate)
            )
        self.head = nn.Linear(embed, world.output_channels * patch**2, bias=False)
        initialise_linear(self)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        x = self.embedding(self.frame.inward(fields, self.mirror)) + self.place(self.points)
        for block in self.blocks:
            x = block(x)
        return self.frame.outward(unpatched(self.head(x), self.patch))


def unit_sphere(grid: LatLonGrid) -> np.ndarray:
    """Return x, y, z of the grid's points on the unit sphere, (3, lat, lon)."""
    latitude, longitude = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)[None]
    return np.stack(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.broadcast_to(np.sin(latitude), grid.shape),
        ]
    )


def adapted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights with queries, keys and values as one map, without the position in time."""
    ours = {name: value for name, value in theirs.items() if ".attention.q." not in name}
    for name in [name for name in theirs if ".attention.q." in name]:
        tensors = [theirs[name.replace(".q.", f".{letter}.")] for letter in "qkv"]
        ours[name.replace(".q.", ".qkv.")] = torch.cat(tensors)
        for letter in "kv":
            del ours[name.replace(".q.", f".{letter}.")]
    return {**ours, "place.weight": theirs["place.weight"][:, :3]}
