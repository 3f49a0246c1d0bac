"""GraphCast: messages on a multi-mesh, whose edges are those of icosahedral meshes of all resolutions at once.

    nodes, points = encoder(fields);   nodes, edges = steps of message passing;   fields = decoder(nodes, points)

Lam et al. 2023, doi 10.1126/science.adi2336.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from emulators.layers.mesh_coders import (
    LENGTHS,
    MeshDecoder,
    MeshEncoder,
    deepmind_names,
    from_deepmind,
    grid_points,
    to_points,
)
from emulators.layers.message_passing import Graph, Interaction, Update
from emulators.meshes.edges import edge_features
from emulators.meshes.icosahedra import edges_of, icosahedra
from emulators.world import World

ABOUT = {
    "states": "2",
    "step": "6 h",
    "grid": "any",
    "parity": "GraphCast's JAX code, 1e-5",
}
PUBLISHED = deepmind_names()
adapted = from_deepmind


class GraphCast(nn.Module):
    """Map fields (batch, input channel, *grid) to (batch, output channel, *grid).

    level: of the finest mesh, of 10 * 4^level + 2 nodes. latent: channels of nodes, edges and hidden layers. steps: of
    message passing on the mesh, each with its own weights. layers: hidden layers of each update. reach: radius within
    which mesh nodes read grid points, as a share of the longest edge of the finest mesh. chunks: portions in which
    edges are updated, whose hidden layers are computed again for the gradient to save memory; 1, all at once.
    """

    def __init__(
        self,
        world: World,
        *,
        level: int = 6,
        latent: int = 512,
        steps: int = 16,
        layers: int = 1,
        reach: float = 0.6,
        chunks: int = 1,
    ) -> None:
        super().__init__()
        self.shape, points, meshes = world.grid.shape, grid_points(world), icosahedra(level)
        options: Any = {"layers": layers, "chunks": chunks}
        self.encoder = MeshEncoder(points, meshes[-1], world.input_channels, latent, reach=reach, **options)
        edges, nodes = edges_of(meshes), meshes[-1].nodes
        self.graph = Graph(edges, edge_features(edges, nodes, nodes), chunks)
        self.embed_edges = Update((LENGTHS,), latent, latent, layers=layers)
        self.processor = nn.ModuleList(Interaction(latent, latent, latent, layers=layers) for _ in range(steps))
        self.decoder = MeshDecoder(points, level, world.output_channels, latent, **options)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        nodes, points = self.encoder(to_points(fields, len(self.shape)))
        edges = self.embed_edges(self.graph.features)
        steps: list[Any] = list(self.processor)
        last = steps.pop()
        for interaction in steps:
            edges, nodes = interaction(self.graph, edges, nodes, nodes)
        nodes = last.received(self.graph, edges, nodes, nodes)
        return self.decoder(nodes, points).transpose(1, 2).unflatten(-1, self.shape)
