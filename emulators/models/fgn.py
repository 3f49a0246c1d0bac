"""FGN (WeatherNext 2): a graph network to a mesh, a transformer of its nodes and their neighbours, and one back.

    nodes, points = encoder(fields);   nodes = transformer(nodes);   fields = decoder(nodes, points)

All norms are told one vector of noise, the same at all points, so that a member of an ensemble is a function drawn at
random, coherent over the globe; noise=vector draws it. Alet et al. 2025, arXiv 2506.10772.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from emulators.layers.attention.neighbourhood_attention import MeshTransformer, transformer_names
from emulators.layers.conditioned_norms import ConditionedNorm, tell
from emulators.layers.mesh_coders import (
    MeshDecoder,
    MeshEncoder,
    channel_numbers,
    from_deepmind,
    grid_points,
    to_points,
)
from emulators.meshes.icosahedra import icosahedra
from emulators.world import World

ABOUT = {
    "states": "2",
    "step": "6 h",
    "grid": "any",
    "parity": "WeatherNext 2's JAX code, 1e-5",
}
ROOT = "params:multimodality_forward/"
EMBEDDINGS = (
    ("grid_encoder", "encoder.embed_points"),
    ("mesh_encoder", "encoder.embed_nodes"),
    ("grid_to_mesh_gnn/edge_encoder", "encoder.embed_edges"),
    ("mesh_to_grid_gnn/edge_encoder", "decoder.embed_edges"),
)
UPDATES = (
    ("grid_to_mesh_gnn/deep_gnn/processor_edges_0_points_to_mesh_nodes", "encoder.interaction.edges"),
    ("grid_to_mesh_gnn/deep_gnn/processor_nodes_0_mesh_nodes", "encoder.interaction.nodes"),
    ("grid_to_mesh_gnn/deep_gnn/processor_nodes_0_point_nodes", "encoder.points"),
    ("mesh_to_grid_gnn/deep_gnn/processor_edges_0_mesh_to_points_nodes", "decoder.interaction.edges"),
    ("mesh_to_grid_gnn/deep_gnn/processor_nodes_0_point_nodes", "decoder.interaction.nodes"),
    ("mesh_to_grid_gnn/deep_gnn/processor_nodes_0_mesh_nodes", "decoder.unused"),
    ("grid_decoder/shared_dense", "decoder.out"),
)


def _published() -> tuple[tuple[str, str], ...]:
    table = [(ROOT + r"global_norm_conditioning_encoder/split_input_matmul:w_.+", "noise_in_norms.noise.embedding.w")]
    layers = [(f"{theirs}/shared_dense", ours) for theirs, ours in EMBEDDINGS]
    for theirs, ours in (*layers, *UPDATES):
        table += [
            (ROOT + theirs + r"/mlp/linear_0:(w|b)", rf"{ours}.first.\1"),
            (ROOT + theirs + r"/mlp/linear_1:(w|b)", rf"{ours}.out.\1"),
            (ROOT + theirs + r"/normalization/linear_norm_conditioning/linear:(w|b)", rf"{ours}.norm.linear.\1"),
        ]
    table += [(ROOT + theirs + r"/split_input_matmul:w_(.+)", rf"{ours}|in|\1") for theirs, ours in EMBEDDINGS]
    table.append((ROOT + r"grid_decoder/split_output_linear:(w|b)_(.+)", r"decoder.out|\1|\2"))
    for ours, theirs in (("encoder", "grid_to_mesh_gnn"), ("decoder", "mesh_to_grid_gnn")):
        for part, name in enumerate(("edge", "sender", "receiver")):
            place = rf"{ROOT}{theirs}/deep_gnn/processor_edges_0_{name}_\w+_to_\w+_nodes:w"
            table.append((place, f"{ours}.interaction.edges.parts.{part}.w"))
    return (*table, *transformer_names(ROOT + r"mesh_transformer/\w+/"))


PUBLISHED = _published()


def adapted(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict: the weights of single variables together, sorted by their names, those of places last."""
    whole: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, value in weights.items():
        place, *kind = name.split("|")
        if kind:
            parts.setdefault((place, kind[0]), {})[kind[1]] = value
        else:
            whole[name] = value
    for (at, which), named in parts.items():
        variables = [named[name] for name in sorted(named) if not name.startswith("spatial_")]
        if which == "in":
            rows = next(value for name, value in named.items() if name.startswith("spatial_"))
            variables.append(rows[[0, 2, 1]] if len(rows) == 3 else rows)  # sines and cosine of longitude change places
            whole[f"{at}.parts.0.w"] = torch.cat(variables)
        else:
            whole[f"{at}.out.{which}"] = torch.cat(variables, dim=-1)
    return from_deepmind(whole)


class FGN(nn.Module):
    """Map fields (batch, input channel, *grid) and a vector of noise to (batch, output channel, *grid).

    level: of the mesh, of 10 * 4^level + 2 nodes. latent: channels of nodes and hidden layers. edge: channels of edges.
    layers: of the transformer. heads: of attention. hidden: channels of the transformer's MLPs; default, four times
    latent. hops: edges to the furthest node that a node attends to. reach: radius within which mesh nodes read grid
    points, as a share of the longest mesh edge. divisor: of the sums of what they read. everywhere: variables with one
    value for the globe, which mesh nodes are told too. noise: numbers of the vector. chunks: portions in which edges
    are updated, and more than one computes the transformer's blocks again for the gradient too.
    """

    conditioning = ("noise_vector",)

    def __init__(
        self,
        world: World,
        *,
        level: int = 6,
        latent: int = 768,
        edge: int = 32,
        layers: int = 24,
        heads: int = 6,
        hidden: int | None = None,
        hops: int = 32,
        reach: float = 0.6,
        divisor: float = 4.0,
        everywhere: Sequence[str] = (),
        noise: int = 32,
        chunks: int = 1,
    ) -> None:
        super().__init__()
        points, self.shape, self.noise = grid_points(world), world.grid.shape, noise
        options: Any = {"chunks": chunks, "edge": edge, "norm": partial(ConditionedNorm, features=noise)}
        more = {"reach": reach, "divisor": divisor, "reads_receivers": False, **options}
        uniform = channel_numbers(world, everywhere)
        mesh = icosahedra(level)[-1]
        self.encoder = MeshEncoder(points, mesh, world.input_channels, latent, everywhere=uniform, **more)
        attending: dict[str, Any] = {
            "layers": layers,
            "heads": heads,
            "hops": hops,
            "hidden": hidden,
            "norm": options["norm"],
        }
        self.transformer = MeshTransformer(level, latent, **attending, recompute=chunks > 1)
        self.decoder = MeshDecoder(points, level, world.output_channels, latent, **options)

    def forward(self, fields: Tensor, time: Tensor, *, noise_vector: Tensor | None = None) -> Tensor:
        if noise_vector is None:
            noise_vector = fields.new_zeros(len(fields), self.noise)
        if noise_vector.shape[1] != self.noise:
            raise ValueError(
                f"Expected {self.noise} numbers of noise, by model.noise; got {noise_vector.shape[1]}. "
                f"Set noise.channels={self.noise} (of noise.embedding=mlp, noise.hidden={self.noise})."
            )
        tell(self, noise_vector)
        nodes, points = self.encoder(to_points(fields, len(self.shape)))
        return self.decoder(self.transformer(nodes), points).transpose(1, 2).unflatten(-1, self.shape)
