"""FuXi: states of two times embedded together, SwinV2 blocks at half their resolution, and a skip around them.

    x = norm(W [state(t - 1), state(t)] patch);   s = down(x);   fields = W' up([s, blocks(s)])

down: 3x3 convolution of stride 2, up: transposed one, each followed by two residual (3x3 convolution, group norm,
SiLU). Chen et al. 2023, doi 10.1038/s41612-023-00512-1 (arXiv 2306.12873); its own code is not published. Layout and
sizes are those of the independent one in CREDIT (Schreck et al. 2024, arXiv 2411.07814), whose network this repeats,
weights and all, without its spectral norms. The paper's has 4.5 billion parameters (embed 1536, depth 48), writes
both its frames and reads twelve numbers of the clock, which here are forcings; for its cascade of three networks see
emulators.rollout. Forcing and static fields are read once, beside the states.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.patches import Frame, PatchEmbedding, unpatched
from emulators.layers.attention.transformer import drop_path_rates
from emulators.layers.attention.window_attention import CosineAttention
from emulators.layers.attention.windows import WindowBlock, Windows
from emulators.layers.convolution import Convolution, Edges, pole_mirror
from emulators.world import World

ABOUT = {
    "states": "2",
    "step": "timestep",
    "grid": "any; twice the patch, others padded",
    "parity": "CREDIT, 1e-5",
}
PUBLISHED = (  # names in CREDIT's checkpoints, and ours
    (r"cube_embedding\.proj\.(\w+)", r"embedding.\1"),
    (r"cube_embedding\.norm\.(\w+)", r"norm.\1"),
    (r"u_transformer\.(down|up)\.conv\.(\w+)", r"\1.resample.\2"),
    (r"u_transformer\.(down|up)\.b\.(\d+)\.(\w+)", r"\1.body.\2.\3"),
    (r"u_transformer\.layer\.blocks\.(\d+)\.attn\.logit_scale", r"blocks.\1.attention.scale"),
    (r"u_transformer\.layer\.blocks\.(\d+)\.attn\.([qv])_bias", r"blocks.\1.attention.bias_\2"),
    (r"u_transformer\.layer\.blocks\.(\d+)\.attn\.cpb_mlp\.(\d)\.(\w+)", r"blocks.\1.attention.bias_of_distance.\2.\3"),
    (r"u_transformer\.layer\.blocks\.(\d+)\.attn\.qkv\.weight", r"blocks.\1.attention.qkv.weight"),
    (r"u_transformer\.layer\.blocks\.(\d+)\.attn\.proj\.(\w+)", r"blocks.\1.attention.projection.\2"),
    (r"u_transformer\.layer\.blocks\.(\d+)\.norm1\.(\w+)", r"blocks.\1.norm_in.\2"),
    (r"u_transformer\.layer\.blocks\.(\d+)\.norm2\.(\w+)", r"blocks.\1.norm_out.\2"),
    (r"u_transformer\.layer\.blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"blocks.\1.mlp.expand.\2"),
    (r"u_transformer\.layer\.blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"blocks.\1.mlp.contract.\2"),
    (r"fc\.(\w+)", r"head.\1"),
)


class FuXi(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon); published with history 2.

    patch: rows and columns of a token. embed: channels of a token. depth: number of SwinV2 blocks. heads: attention
    heads of each. window: rows and columns of tokens in a window. mlp_ratio: hidden channels of the MLPs as a multiple
    of embed. groups: number of groups of the group norms. margin: further rows and columns that pad the grid on all
    sides. around: whether shifted windows are periodic in longitude. inner_edges: padding of convolutions on tokens,
    published: `flat`. drop_path: rate of dropped residual paths in the last block, growing linearly from 0 in the
    first. fit, edges: see emulators.layers.attention.patches.Frame.
    """

    def __init__(
        self,
        world: World,
        *,
        patch: int = 2,
        embed: int = 96,
        depth: int = 6,
        heads: int = 4,
        window: int = 8,
        mlp_ratio: float = 4.0,
        groups: int = 16,
        margin: int = 0,
        around: bool = True,
        inner_edges: str | None = None,
        drop_path: float = 0.0,
        fit: str = "pad",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        if groups < 1 or embed % groups:
            raise ValueError(f"Expected groups that divide embed; got {groups} and {embed}.")
        self.patch = patch, patch
        self.frame = Frame(world.lat_lon, 2 * patch, 2 * patch, fit, edges, margin=margin)
        self.mirror = pole_mirror(world)
        self.embedding = PatchEmbedding(world.input_channels, embed, self.patch)
        self.norm = nn.LayerNorm(embed)
        rim = Edges(world.lat_lon, inner_edges).coarser()
        self.down, self.up = Down(embed, groups, rim), Up(embed, groups, rim)
        shape = [size // (2 * patch) for size in self.frame.shape]
        sizes = [min(window, size) for size in shape]
        padding = [-size % w for size, w in zip(shape, sizes, strict=True)]
        self.borders = padding[1] // 2, padding[1] - padding[1] // 2, padding[0] // 2, padding[0] - padding[0] // 2
        padded = [size + n for size, n in zip(shape, padding, strict=True)]
        self.blocks = nn.ModuleList()
        for i, rate in enumerate(drop_path_rates(drop_path, depth)):
            windows = Windows(padded, sizes, shifted=i % 2 == 1, cyclic=around and rim.cyclic)
            attention = CosineAttention(embed, heads, windows.window)
            self.blocks.append(WindowBlock(embed, attention, windows, mlp_ratio=mlp_ratio, drop_path=rate))
        self.head = nn.Linear(embed, world.output_channels * patch**2)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        tokens = self.norm(self.embedding(self.frame.inward(fields, self.mirror)))
        short = self.down(tokens.permute(0, 3, 1, 2))
        west, _, north, _ = self.borders
        x = F.pad(short, self.borders).permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x)
        rows, columns = short.shape[-2:]
        x = x[:, north : north + rows, west : west + columns].permute(0, 3, 1, 2)
        x = self.up(torch.cat([short, x], dim=1)).permute(0, 2, 3, 1)
        return self.frame.outward(unpatched(self.head(x), self.patch))


class Down(nn.Module):
    """Halve the resolution by a 3x3 convolution of stride 2, then apply the residual body."""

    def __init__(self, channels: int, groups: int, rim: Edges) -> None:
        super().__init__()
        self.rim = rim
        self.resample = nn.Conv2d(channels, channels, 3, stride=2)
        self.body = _body(channels, groups, rim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.resample(self.rim.pad(x, 1, 0, 1, 0))
        return x + self.body(x)


class Up(nn.Module):
    """Double the resolution by a transposed convolution from twice the channels, then apply the residual body."""

    def __init__(self, channels: int, groups: int, rim: Edges) -> None:
        super().__init__()
        self.resample = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.body = _body(channels, groups, rim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.resample(x)
        return x + self.body(x)


def _body(channels: int, groups: int, rim: Edges) -> nn.Sequential:
    """Return two layers, each a 3x3 convolution, group norm and SiLU."""
    layers = [(Convolution(channels, channels, 3, rim), nn.GroupNorm(groups, channels), nn.SiLU()) for _ in range(2)]
    return nn.Sequential(*(module for layer in layers for module in layer))


def adapted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights; their cubes are (channel, time), our channels (time, channel)."""
    cubes = theirs["embedding.weight"]
    return {**theirs, "embedding.weight": cubes.transpose(1, 2).flatten(1, 2)}
