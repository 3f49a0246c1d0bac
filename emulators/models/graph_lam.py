"""Graph-LAM: messages on one mesh over a limited area, whose edges are those of quadtree levels of all sizes at once.

    nodes, points = encoder(fields);   nodes, edges = steps of message passing;   fields = decoder(nodes, points)

Oskarsson et al. 2023, arXiv 2309.17370; around the globe the mesh is icosahedral.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from emulators.layers.mesh_levels import LevelCoder, from_neural_lam, graph_of, neural_lam_names
from emulators.layers.message_passing import Interaction, Update
from emulators.meshes.levels import mesh_levels
from emulators.world import World

ABOUT = {
    "states": "2",
    "step": "3 h",
    "grid": "any; published for limited areas",
    "parity": "neural-lam, 1e-5",
}
PUBLISHED = neural_lam_names(
    (
        ("mesh_embedder", "embed_nodes"),
        ("m2m_embedder", "embed_edges"),
        (r"processor\.module_(\d+)\.edge_mlp", r"processor.\1.edges"),
        (r"processor\.module_(\d+)\.aggr_mlp", r"processor.\1.nodes"),
    )
)
adapted = from_neural_lam


class GraphLAM(nn.Module):
    """Map fields (batch, input channel, *grid) to (batch, output channel, *grid).

    latent: channels of nodes, edges and hidden layers. steps: of message passing on the mesh, each with its own
    weights. layers: hidden layers of each update. levels: of the quadtree whose edges are merged, the finest first;
    None for all. level: of the finest icosahedral mesh, for grids around the globe.
    """

    places: Tensor

    def __init__(
        self,
        world: World,
        *,
        latent: int = 64,
        steps: int = 4,
        layers: int = 1,
        levels: int | None = None,
        level: int = 4,
    ) -> None:
        super().__init__()
        mesh = mesh_levels(world.grid, levels=levels, level=level, merged=True)
        self.coder = LevelCoder(world, mesh, latent, layers)
        self.register_buffer("places", torch.as_tensor(mesh.places[0])[None], persistent=False)
        self.graph = graph_of(mesh.across[0])
        self.embed_nodes = Update((mesh.places[0].shape[-1],), latent, latent, layers=layers)
        self.embed_edges = Update((mesh.across[0].features.shape[-1],), latent, latent, layers=layers)
        self.processor = nn.ModuleList(Interaction(latent, latent, latent, layers=layers) for _ in range(steps))

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        nodes, points = self.coder.encoded(fields, self.embed_nodes(self.places))
        edges = self.embed_edges(self.graph.features)
        steps: list[Any] = list(self.processor)
        for interaction in steps:
            edges, nodes = interaction(self.graph, edges, nodes, nodes)
        return self.coder.decoded(nodes, points)
