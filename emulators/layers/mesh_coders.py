"""Encoder from the points of a grid to the nodes of a mesh and decoder back, one message pass each.

    points  -> all mesh nodes within a share of the longest mesh edge
    nodes   -> the points in whose nearest triangle they are

Nodes and edges are embedded from their places and lengths, which are the same for all cases and embedded once for the
batch. Lam et al. 2023, doi 10.1126/science.adi2336; with a norm that is conditioned on a noise level, GenCast: Price et
al. 2025, doi 10.1038/s41586-024-08252-9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.grid import unit_vectors
from emulators.layers.message_passing import Graph, Interaction, Norm, Update
from emulators.meshes.edges import Edges, edge_features, position_features, within_radius
from emulators.meshes.icosahedra import TriangleMesh, icosahedra, triangle_corners
from emulators.world import World

LENGTHS, PLACES = 4, 3  # features of an edge and of a node
DEEPMIND = (  # names in the checkpoints of GraphCast and GenCast, and ours
    (r"params:grid2mesh_gnn/~_networks_builder/encoder_edges_grid2mesh", "encoder.embed_edges"),
    (r"params:grid2mesh_gnn/~_networks_builder/encoder_nodes_grid_nodes", "encoder.embed_points"),
    (r"params:grid2mesh_gnn/~_networks_builder/encoder_nodes_mesh_nodes", "encoder.embed_nodes"),
    (r"params:grid2mesh_gnn/~_networks_builder/processor_edges_0_grid2mesh", "encoder.interaction.edges"),
    (r"params:grid2mesh_gnn/~_networks_builder/processor_nodes_0_mesh_nodes", "encoder.interaction.nodes"),
    (r"params:grid2mesh_gnn/~_networks_builder/processor_nodes_0_grid_nodes", "encoder.points"),
    (r"params:mesh2grid_gnn/~_networks_builder/encoder_edges_mesh2grid", "decoder.embed_edges"),
    (r"params:mesh2grid_gnn/~_networks_builder/processor_edges_0_mesh2grid", "decoder.interaction.edges"),
    (r"params:mesh2grid_gnn/~_networks_builder/processor_nodes_0_grid_nodes", "decoder.interaction.nodes"),
    (r"params:mesh2grid_gnn/~_networks_builder/processor_nodes_0_mesh_nodes", "decoder.unused"),
    (r"params:mesh2grid_gnn/~_networks_builder/decoder_nodes_grid_nodes", "decoder.out"),
    (r"params:mesh_gnn/~_networks_builder/encoder_edges_mesh", "embed_edges"),
    (r"params:mesh_gnn/~_networks_builder/processor_edges_(\d+)_mesh", r"processor.\1.edges"),
    (r"params:mesh_gnn/~_networks_builder/processor_nodes_(\d+)_mesh_nodes", r"processor.\1.nodes"),
)


def deepmind_names() -> tuple[tuple[str, str], ...]:
    """Return pairs of a pattern of DeepMind's parameter names, and ours before `from_deepmind` divides them."""
    table = []
    for published, ours in DEEPMIND:
        group = r"\2" if "(" in published else r"\1"
        table += [
            (published + r"_mlp/~/linear_0:(w|b)", f"{ours}.first.{group}"),
            (published + r"_mlp/~/linear_1:(w|b)", f"{ours}.out.{group}"),
            (published + r"_layer_norm:scale", f"{ours}.norm.weight"),
            (published + r"_layer_norm:offset", f"{ours}.norm.bias"),
            (published + r"_norm_conditioning/linear:(w|b)", f"{ours}.norm.linear.{group}"),
        ]
    return tuple(table)


def from_deepmind(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of ours: matrices transposed, and the first map of each update divided by its inputs."""
    ours = {}
    for name, value in weights.items():
        place, _, last = name.rpartition(".")
        if last == "b":
            ours[re.sub(r"\.first$", ".parts.0", place) + ".bias"] = value
        elif last == "w" and place.endswith(".first"):
            count = 3 if place.endswith("edges.first") and "embed" not in place else 1
            count = 2 if re.search(r"(interaction|processor\.\d+)\.nodes\.first$", place) else count
            for number, block in enumerate(value.mT.chunk(count, dim=1)):
                ours[f"{place.removesuffix('.first')}.parts.{number}.weight"] = block.contiguous()
        elif last == "w":
            ours[f"{place}.weight"] = value.mT.contiguous()
        else:
            ours[name] = value
    return ours


def grid_points(world: World) -> np.ndarray:
    """Return the points of the World's grid as unit vectors, (point, 3), in the order of its flattened fields."""
    return unit_vectors(*world.grid.points)


def to_points(fields: Tensor, rank: int) -> Tensor:
    """Return fields (batch, channel, *grid) as (batch, point, channel)."""
    return fields.flatten(-rank).transpose(1, 2)


def channel_numbers(world: World, names: Sequence[str]) -> list[int]:
    """Return where the channels of variables stand among those that a network reads; ValueError for an unknown one."""
    numbers: list[int] = []
    first, unknown = 0, set(names)
    for variables in (*[world.prognostic] * world.history, world.forcing, world.static):
        for variable in variables:
            if variable.name in names:
                channels = variables.slice(variable.name)
                numbers += range(first + channels.start, first + channels.stop)
                unknown.discard(variable.name)
        first += variables.size
    if unknown:
        raise ValueError(f"Expected names of variables that the network reads; got {', '.join(sorted(unknown))}.")
    return numbers


class MeshEncoder(nn.Module):
    """Map fields at points (batch, point, channel) to latents of mesh nodes and of points.

    points, mesh: where they are. channels: of the fields. latent: channels of nodes, points, edges and hidden layers.
    reach: radius within which a node receives, as a share of the longest mesh edge. layers: hidden layers of the
    updates. chunks: as of Graph. edge: channels of edges; default, latent. everywhere: channels that are the same at
    all points, which nodes read too; None: nodes have weights for all channels, and read zeros. norm: as of Update.
    reads_receivers, divisor: as of Interaction.
    """

    places: Tensor
    node_places: Tensor

    def __init__(
        self,
        points: np.ndarray,
        mesh: TriangleMesh,
        channels: int,
        latent: int,
        *,
        reach: float = 0.6,
        layers: int = 1,
        chunks: int = 1,
        edge: int | None = None,
        everywhere: Sequence[int] | None = None,
        norm: Norm = nn.LayerNorm,
        reads_receivers: bool = True,
        divisor: float = 1.0,
    ) -> None:
        super().__init__()
        edges = within_radius(points, mesh.nodes, reach * mesh.longest_edge)
        self.graph = Graph(edges, edge_features(edges, points, mesh.nodes), chunks)
        self.register_buffer("places", torch.as_tensor(position_features(points))[None], persistent=False)
        self.register_buffer("node_places", torch.as_tensor(position_features(mesh.nodes))[None], persistent=False)
        options: Any = {"layers": layers, "norm": norm}
        edge, self.everywhere = edge or latent, list(everywhere or ())
        read = channels if everywhere is None else len(everywhere)
        self.embed_points = Update((channels + PLACES,), latent, latent, **options)
        self.embed_nodes = Update((read + PLACES,), latent, latent, **options)
        self.embed_edges = Update((LENGTHS,), edge, edge, **options)
        more: Any = {"message": latent, "reads_receivers": reads_receivers, "divisor": divisor}
        self.interaction = Interaction(edge, latent, latent, **more, **options)
        self.points = Update((latent,), latent, latent, **options)

    def forward(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        points = self._embedded(self.embed_points, fields, self.places)
        uniform = fields[..., self.everywhere].mean(1, keepdim=True) if self.everywhere else None
        nodes = self._embedded(self.embed_nodes, uniform, self.node_places)
        edges = self.embed_edges(self.graph.features)
        return self.interaction.received(self.graph, edges, points, nodes), points + self.points(points)

    def _embedded(self, update: Update, fields: Tensor | None, places: Tensor) -> Tensor:
        """Embed fields and places; None: fields are zero."""
        linear: Any = update.parts[0]
        first = F.linear(places, linear.weight[:, -PLACES:], linear.bias)
        if fields is not None:
            first = first + F.linear(fields, linear.weight[:, :-PLACES])
        return update.finished(first)


class MeshDecoder(nn.Module):
    """Map latents of mesh nodes and of points to fields at points (batch, point, channel).

    Published networks hold an update of mesh nodes here which nothing reads; it is kept, at rest, for their weights.
    edge, norm: as of MeshEncoder.
    """

    def __init__(
        self,
        points: np.ndarray,
        level: int,
        channels: int,
        latent: int,
        *,
        layers: int = 1,
        chunks: int = 1,
        edge: int | None = None,
        norm: Norm = nn.LayerNorm,
    ) -> None:
        super().__init__()
        nodes, corners = icosahedra(level)[-1].nodes, triangle_corners(points, level)
        edges = Edges.of(corners.reshape(-1), np.repeat(np.arange(len(points)), 3), len(nodes), len(points))
        self.graph = Graph(edges, edge_features(edges, nodes, points), chunks)
        options: Any = {"layers": layers, "norm": norm}
        edge = edge or latent
        self.embed_edges = Update((LENGTHS,), edge, edge, **options)
        self.interaction = Interaction(edge, latent, latent, message=latent, **options)
        self.unused = Update((latent,), latent, latent, **options).requires_grad_(False)
        self.out = Update((latent,), latent, channels, layers=layers, norm=None)

    def forward(self, nodes: Tensor, points: Tensor) -> Tensor:
        edges = self.embed_edges(self.graph.features)
        return self.out(self.interaction.received(self.graph, edges, nodes, points))
