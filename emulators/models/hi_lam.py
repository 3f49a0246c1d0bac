"""Hi-LAM: messages on a mesh in levels over a limited area, which sweep down and up between large and small scales.

    up once;   (down sweep, up sweep) x steps;   down once

A sweep updates each level from the one before it and then from its own neighbours. `parallel` updates all levels, and
all edges within and between them, at once. Oskarsson et al. 2023, arXiv 2309.17370; around the globe the levels are
icosahedral meshes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from emulators.layers.mesh_levels import LevelCoder, Levels, from_neural_lam, neural_lam_names
from emulators.layers.message_passing import Graph, Interaction, Update
from emulators.meshes.levels import mesh_levels
from emulators.world import World

ABOUT = {
    "states": "2",
    "step": "3 h",
    "grid": "any; published for limited areas",
    "parity": "neural-lam, 1e-5",
}
LEVELS = (
    (r"mesh_embedders\.(\d+)", r"levels.embed_nodes.\1"),
    (r"mesh_same_embedders\.(\d+)", r"levels.embed_across.\1"),
    (r"mesh_up_embedders\.(\d+)", r"levels.embed_up.\1"),
    (r"mesh_down_embedders\.(\d+)", r"levels.embed_down.\1"),
)
INTERACTIONS = (
    (r"mesh_init_gnns\.(\d+)", r"levels.up.\1"),
    (r"mesh_read_gnns\.(\d+)", r"levels.down.\1"),
    (r"mesh_down_gnns\.(\d+)\.(\d+)", r"processor.\1.down.\2"),
    (r"mesh_down_same_gnns\.(\d+)\.(\d+)", r"processor.\1.after_down.\2"),
    (r"mesh_up_gnns\.(\d+)\.(\d+)", r"processor.\1.up.\2"),
    (r"mesh_up_same_gnns\.(\d+)\.(\d+)", r"processor.\1.after_up.\2"),
)
PUBLISHED = neural_lam_names(
    (
        *LEVELS,
        *((rf"{theirs}\.edge_mlp", f"{ours}.edges") for theirs, ours in INTERACTIONS),
        *((rf"{theirs}\.aggr_mlp", f"{ours}.nodes") for theirs, ours in INTERACTIONS),
        (r"processor\.module_(\d+)\.edge_mlp\.mlps\.(\d+)", r"processor.\1.edges.\2"),
        (r"processor\.module_(\d+)\.aggr_mlp\.mlps\.(\d+)", r"processor.\1.nodes.\2"),
    )
)
adapted = from_neural_lam
Edges = tuple[list[Tensor], list[Tensor], list[Tensor]]


class HiLAM(nn.Module):
    """Map fields (batch, input channel, *grid) to (batch, output channel, *grid).

    latent: channels of nodes, edges and hidden layers. steps: of the processor, each with its own weights. layers:
    hidden layers of each update. levels: of the quadtree, the finest first; None for all. level: of the finest
    icosahedral mesh, for grids around the globe. processor: `sweeps` or `parallel`.
    """

    def __init__(
        self,
        world: World,
        *,
        latent: int = 64,
        steps: int = 4,
        layers: int = 1,
        levels: int | None = None,
        level: int = 4,
        processor: str = "sweeps",
    ) -> None:
        super().__init__()
        if processor not in ("sweeps", "parallel"):
            raise ValueError(f"Expected processor to be sweeps or parallel; got '{processor}'.")
        mesh = mesh_levels(world.grid, levels=levels, level=level)
        self.coder = LevelCoder(world, mesh, latent, layers)
        self.levels = Levels(mesh, latent, layers)
        kind = Sweeps if processor == "sweeps" else Parallel
        self.processor = nn.ModuleList(kind(len(mesh.sizes), latent, layers) for _ in range(steps))

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        nodes, edges = self.levels.embedded_nodes(), self.levels.embedded_edges()
        nodes[0], points = self.coder.encoded(fields, nodes[0])
        self.levels.raised(nodes, edges[1])
        for step in self.processor:
            step(self.levels, nodes, edges)
        return self.coder.decoded(self.levels.lowered(nodes, edges[2]), points)


class Sweeps(nn.Module):
    """Update levels from the coarsest to the finest and back, each from its neighbours too; lists are changed."""

    def __init__(self, count: int, latent: int, layers: int) -> None:
        super().__init__()

        def interactions(number: int) -> Any:
            return nn.ModuleList(Interaction(latent, latent, latent, layers=layers) for _ in range(number))

        self.down, self.up = interactions(count - 1), interactions(count - 1)
        self.after_down, self.after_up = interactions(count), interactions(count)

    def forward(self, levels: Levels, nodes: list[Tensor], edges: Edges) -> None:
        across, up, down = edges
        top = len(nodes) - 1
        for level in range(top, -1, -1):
            if level < top:
                given = down[level], nodes[level + 1], nodes[level]
                down[level], nodes[level] = self.down[level](levels.downward[level], *given)
            given = across[level], nodes[level], nodes[level]
            across[level], nodes[level] = self.after_down[level](levels.across[level], *given)
        for level in range(top + 1):
            if level > 0:
                given = up[level - 1], nodes[level - 1], nodes[level]
                up[level - 1], nodes[level] = self.up[level - 1](levels.upward[level - 1], *given)
            given = across[level], nodes[level], nodes[level]
            across[level], nodes[level] = self.after_up[level](levels.across[level], *given)


class Parallel(nn.Module):
    """Update all edges, each kind between each pair of levels with its own weights, then all levels from their sums."""

    def __init__(self, count: int, latent: int, layers: int) -> None:
        super().__init__()
        kinds = 3 * count - 2  # within, up and down
        self.edges = nn.ModuleList(Update((latent,) * 3, latent, latent, layers=layers) for _ in range(kinds))
        self.nodes = nn.ModuleList(Update((latent,) * 2, latent, latent, layers=layers) for _ in range(count))

    def forward(self, levels: Levels, nodes: list[Tensor], edges: Edges) -> None:
        updates: list[Any] = list(self.edges)
        sums: list[Any] = [0.0] * len(nodes)
        kinds = ((levels.across, 0, 0), (levels.upward, 0, 1), (levels.downward, 1, 0))
        for some, (graphs, sender, receiver) in zip(edges, kinds, strict=True):
            for level, graph in enumerate(graphs):
                update = updates.pop(0)
                message = _message(update, graph, some[level], nodes[level + sender], nodes[level + receiver])
                some[level] = some[level] + message
                sums[level + receiver] = sums[level + receiver] + graph.summed(message)
        for level, update in enumerate(self.nodes):
            nodes[level] = nodes[level] + update(nodes[level], sums[level])


def _message(update: Update, graph: Graph, edges: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
    of_edges, of_senders, of_receivers = update.parts
    return update.finished(graph.read(of_edges(edges), of_senders(senders), of_receivers(receivers)))
