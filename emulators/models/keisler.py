"""Keisler's graph network: messages on one icosahedral mesh between an encoder from points and a decoder to them.

    node = f(sum of f(point, edge));   nodes, edges = rounds of message passing;   field = f(sum of f(node, edge))

Each point tells the mesh node nearest to it, and hears the seven nearest: that node and its neighbours. Keisler 2022,
arXiv 2202.07575, whose code was not published: what the paper leaves open is chosen here.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.mesh_coders import LENGTHS, grid_points, to_points
from emulators.layers.message_passing import Graph, Interaction, Update
from emulators.meshes.edges import edge_features, nearest
from emulators.meshes.icosahedra import icosahedra
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "6 h",
    "grid": "any",
    "parity": "none; no code was published",
}
HEARD = 7  # a node and its neighbours


class Keisler(nn.Module):
    """Map fields (batch, input channel, *grid) to (batch, output channel, *grid).

    level: of the mesh, of 10 * 4^level + 2 nodes. latent: channels of nodes, edges and hidden layers. steps: rounds of
    message passing, each with its own weights. layers: hidden layers of each update.
    """

    def __init__(self, world: World, *, level: int = 5, latent: int = 256, steps: int = 9, layers: int = 2) -> None:
        super().__init__()
        self.shape, points, mesh = world.grid.shape, grid_points(world), icosahedra(level)[-1]
        nodes = mesh.nodes
        inward = nearest(nodes, points, 1).reversed
        outward = nearest(nodes, points, min(HEARD, len(nodes)))
        options: Any = {"layers": layers, "activation": F.relu}
        self.inward = Graph(inward, edge_features(inward, points, nodes, mesh.longest_edge))
        self.across = Graph(mesh.edges, edge_features(mesh.edges, nodes, nodes))
        self.outward = Graph(outward, edge_features(outward, nodes, points, mesh.longest_edge))
        self.embed_points = Update((world.input_channels,), latent, latent, **options)
        self.embed_inward, self.embed_across, self.embed_outward = (
            Update((LENGTHS,), latent, latent, **options) for _ in range(3)
        )
        self.told, self.heard = (Update((latent, latent), latent, latent, **options) for _ in range(2))
        self.nodes = Update((latent,), latent, latent, **options)
        self.processor = nn.ModuleList(Interaction(latent, latent, latent, **options) for _ in range(steps))
        self.out = Update((latent,), latent, world.output_channels, norm=None, **options)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        points = self.embed_points(to_points(fields, len(self.shape)))
        nodes = self.nodes(_sums(self.inward, self.told, self.embed_inward, points))
        edges = self.embed_across(self.across.features)
        steps: list[Any] = list(self.processor)
        for interaction in steps:
            edges, nodes = interaction(self.across, edges, nodes, nodes)
        heard = _sums(self.outward, self.heard, self.embed_outward, nodes)
        return self.out(heard).transpose(1, 2).unflatten(-1, self.shape)


def _sums(graph: Graph, message: Update, embed: Update, senders: Tensor) -> Tensor:
    """Return what each receiver hears from its senders along edges."""
    of_edges, of_senders = message.parts
    first = of_edges(embed(graph.features)) + graph.sent(of_senders(senders))
    return graph.summed(message.finished(first))
