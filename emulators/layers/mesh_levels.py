"""Encoder from points to the finest level of a mesh, passes up and down its levels, and decoder back to points.

    nodes, points = encoder(fields);   up: coarse <- fine;   processor;   down: fine <- coarse;   fields = decoder

What is told of places and edges is the same for all cases and embedded once for the batch. Oskarsson et al. 2023, arXiv
2309.17370; names of weights are those of neural-lam 0.7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emulators.layers.mesh_coders import to_points
from emulators.layers.message_passing import Graph, Interaction, Update
from emulators.meshes.levels import DescribedEdges, MeshLevels
from emulators.world import World

CODER = (  # names in neural-lam's checkpoints, and ours
    ("grid_embedder", "coder.embed_points"),
    ("g2m_embedder", "coder.embed_inward"),
    ("m2g_embedder", "coder.embed_outward"),
    (r"g2m_gnn\.edge_mlp", "coder.encoder.edges"),
    (r"g2m_gnn\.aggr_mlp", "coder.encoder.nodes"),
    ("encoding_grid_mlp", "coder.points"),
    (r"m2g_gnn\.edge_mlp", "coder.decoder.edges"),
    (r"m2g_gnn\.aggr_mlp", "coder.decoder.nodes"),
    ("output_map", "coder.out"),
)


def neural_lam_names(
    table: Sequence[tuple[str, str]], coder: Sequence[tuple[str, str]] = CODER
) -> tuple[tuple[str, str], ...]:
    """Return pairs of a pattern of neural-lam's parameter names, and ours before `from_neural_lam` divides them."""
    pairs = []
    for theirs, ours in (*coder, *table):
        groups = theirs.count("(")
        pairs.append((rf"{theirs}\.(\d+)\.(weight|bias)", rf"{ours}.\{groups + 1}.\{groups + 2}"))
    return tuple(pairs)


def from_neural_lam(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of ours: layers by what they do, and the first map of each update divided by its inputs."""
    depths: dict[str, int] = {}
    for name in weights:
        place, number, _ = name.rsplit(".", 2)
        depths[place] = max(depths.get(place, 0), int(number) - int(number) % 2)
    ours = {}
    for name, value in weights.items():
        place, number, kind = name.rsplit(".", 2)
        layer = int(number)
        if layer == 0 and kind == "weight":
            kinds = re.search(r"(?:^|\.)(edges|nodes)(?:\.\d+)?$", place)
            count = {"edges": 3, "nodes": 2}[kinds[1]] if kinds else 1
            for part, share in enumerate(value.chunk(count, dim=1)):
                ours[f"{place}.parts.{part}.weight"] = share.contiguous()
        elif layer == 0:
            ours[f"{place}.parts.0.bias"] = value
        elif layer % 2:
            ours[f"{place}.norm.{kind}"] = value
        else:
            ours[f"{place}.out.{kind}" if layer == depths[place] else f"{place}.hidden.{layer // 2 - 1}.{kind}"] = value
    return ours


def graph_of(described: DescribedEdges) -> Graph:
    """Return the tables of edges and their features."""
    return Graph(described.edges, described.features)


class LevelCoder(nn.Module):
    """Map fields at points to latents of the finest level and of points, and back to fields.

    latent: channels of nodes, points, edges and hidden layers. layers: hidden layers of each update.
    """

    def __init__(self, world: World, mesh: MeshLevels, latent: int, layers: int) -> None:
        super().__init__()
        self.shape = world.grid.shape
        self.inward, self.outward = graph_of(mesh.inward), graph_of(mesh.outward)
        options: Any = {"layers": layers}
        width = mesh.inward.features.shape[-1]
        self.embed_points = Update((world.input_channels,), latent, latent, layers=layers)
        self.embed_inward, self.embed_outward = (Update((width,), latent, latent, layers=layers) for _ in range(2))
        self.encoder, self.decoder = (Interaction(latent, latent, latent, **options) for _ in range(2))
        self.points = Update((latent,), latent, latent, layers=layers)
        self.out = Update((latent,), latent, world.output_channels, layers=layers, norm=None)

    def encoded(self, fields: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return nodes and points (batch, ., latent) of fields (batch, channel, *grid) and embedded nodes (1, ., .)."""
        points = self.embed_points(to_points(fields, len(self.shape)))
        edges = self.embed_inward(self.inward.features)
        return self.encoder.received(self.inward, edges, points, nodes), points + self.points(points)

    def decoded(self, nodes: Tensor, points: Tensor) -> Tensor:
        """Return fields (batch, channel, *grid)."""
        edges = self.embed_outward(self.outward.features)
        points = self.decoder.received(self.outward, edges, nodes, points)
        return self.out(points).transpose(1, 2).unflatten(-1, self.shape)


class Levels(nn.Module):
    """Embed nodes and edges of all levels, and pass messages up them before a processor and down them after it.

    passes: whether it has these.
    """

    def __init__(self, mesh: MeshLevels, latent: int, layers: int, passes: bool = True) -> None:
        super().__init__()

        def graphs(described: Sequence[DescribedEdges]) -> Any:
            return nn.ModuleList(map(graph_of, described))

        def embedders(features: int, count: int) -> Any:
            return nn.ModuleList(Update((features,), latent, latent, layers=layers) for _ in range(count))

        count, width = len(mesh.places), mesh.inward.features.shape[-1]
        self.across, self.upward, self.downward = (graphs(some) for some in (mesh.across, mesh.up, mesh.down))
        self.embed_nodes = embedders(mesh.places[0].shape[-1], count)
        self.embed_across, self.embed_up, self.embed_down = (embedders(width, n) for n in (count, count - 1, count - 1))
        self.up, self.down = (
            nn.ModuleList(Interaction(latent, latent, latent, layers=layers) for _ in range((count - 1) * passes))
            for _ in range(2)
        )
        for number, places in enumerate(mesh.places):
            self.register_buffer(f"places{number}", torch.as_tensor(places)[None], persistent=False)

    def embedded_nodes(self) -> list[Tensor]:
        """Return the embedded nodes of each level, (1, node, latent)."""
        return [embed(self.get_buffer(f"places{number}")) for number, embed in enumerate(self.embed_nodes)]

    def embedded_edges(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Return the embedded edges within levels, up and down, (1, edge, latent)."""
        return tuple(  # type: ignore[return-value]
            [embed(graph.features) for embed, graph in zip(embeds, graphs, strict=True)]
            for embeds, graphs in (
                (self.embed_across, self.across),
                (self.embed_up, self.upward),
                (self.embed_down, self.downward),
            )
        )

    def raised(self, nodes: list[Tensor], up: list[Tensor]) -> None:
        """Let each level read the next finer one, from the finest on; nodes and edges are replaced in their lists."""
        for level, interaction in enumerate(self.up):
            given = up[level], nodes[level], nodes[level + 1]
            up[level], nodes[level + 1] = interaction(self.upward[level], *given)

    def lowered(self, nodes: list[Tensor], down: list[Tensor]) -> Tensor:
        """Let each level read the next coarser one, from the coarsest on; return the finest."""
        for level in range(len(self.down) - 1, -1, -1):
            interaction: Any = self.down[level]
            nodes[level] = interaction.received(self.downward[level], down[level], nodes[level + 1], nodes[level])
        return nodes[0]
