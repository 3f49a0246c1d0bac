"""The denoiser of GenCast: from a grid to a mesh, a transformer of its nodes and their neighbours, and back.

    nodes, points = encoder(fields);   nodes = transformer(nodes);   fields = decoder(nodes, points)

All norms are told the noise level, by the cosines and sines of multiples of it and an MLP. With step=denoising the
fields hold the noisy state besides what it is conditioned on. Price et al. 2025, doi 10.1038/s41586-024-08252-9.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from emulators.layers.attention.neighbourhood_attention import MeshTransformer, transformer_names
from emulators.layers.conditioned_norms import ConditionedNorm, tell
from emulators.layers.mesh_coders import (
    MeshDecoder,
    MeshEncoder,
    channel_numbers,
    deepmind_names,
    from_deepmind,
    grid_points,
    to_points,
)
from emulators.layers.noise_levels import LEVEL, LevelEmbedding
from emulators.meshes.icosahedra import icosahedra
from emulators.world import World

ABOUT = {
    "states": "2",
    "step": "12 h",
    "grid": "any",
    "parity": "GenCast's JAX code, 1e-5",
}
TOLD = 16  # numbers by which norms are told the noise level
LEVELS = r"params:fourier_features_mlp/~/mlp/~/linear_"
PUBLISHED = (
    (LEVELS + r"0:(w|b)", r"embedding.expand.\1"),
    (LEVELS + r"1:(w|b)", r"embedding.contract.\1"),
    *deepmind_names(),
    *transformer_names(r"params:mesh_transformer/~\w*/\w+/"),
)
adapted = from_deepmind


class GenCast(nn.Module):
    """Map fields (batch, input channel, *grid) to (batch, output channel, *grid), told the noise level in them.

    level: of the mesh, of 10 * 4^level + 2 nodes. latent: channels of nodes, edges and hidden layers. layers: of the
    transformer. heads: of attention. hidden: channels of the transformer's MLPs; default, four times latent. hops:
    edges to the furthest node that a node attends to. reach: radius within which mesh nodes read grid points, as a
    share of the longest mesh edge. divisor: of the sums of what they read. chunks: portions in which edges are updated,
    and more than one computes the transformer's blocks again for the gradient too.
    """

    conditioning = (LEVEL,)

    def __init__(
        self,
        world: World,
        *,
        level: int = 6,
        latent: int = 512,
        layers: int = 16,
        heads: int = 4,
        hidden: int | None = None,
        hops: int = 32,
        reach: float = 0.6,
        divisor: float = 1.0,
        chunks: int = 1,
    ) -> None:
        super().__init__()
        points, self.shape = grid_points(world), world.grid.shape
        level_channel = channel_numbers(world, [LEVEL]) if LEVEL in world.forcing.names else []  # norms are told it
        self.read = [number for number in range(world.input_channels) if number not in level_channel]
        options: Any = {"chunks": chunks, "norm": partial(ConditionedNorm, features=TOLD)}
        more = {"reach": reach, "divisor": divisor, **options}
        self.embedding = LevelEmbedding(TOLD)
        self.encoder = MeshEncoder(points, icosahedra(level)[-1], len(self.read), latent, **more)
        attending: dict[str, Any] = {
            "layers": layers,
            "heads": heads,
            "hops": hops,
            "hidden": hidden,
            "norm": options["norm"],
        }
        self.transformer = MeshTransformer(level, latent, **attending, recompute=chunks > 1)
        self.decoder = MeshDecoder(points, level, world.output_channels, latent, **options)

    def forward(self, fields: Tensor, time: Tensor, *, noise_level: Tensor | None = None) -> Tensor:
        if noise_level is None:  # as at level 1
            noise_level = fields.new_zeros(len(fields))
        tell(self, self.embedding(noise_level))
        if len(self.read) < fields.shape[1]:
            fields = fields[:, self.read]
        nodes, points = self.encoder(to_points(fields, len(self.shape)))
        return self.decoder(self.transformer(nodes), points).transpose(1, 2).unflatten(-1, self.shape)
