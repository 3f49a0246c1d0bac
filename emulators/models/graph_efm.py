"""Graph-EFM: an ensemble whose members draw latent numbers at the nodes of a mesh from what the state says of them.

    z ~ prior(fields),   increment = decoder(fields, z);      in training also  z ~ posterior(fields, next state)

Prior and posterior pass messages from points to the mesh and up its levels, to the coarsest, whose nodes have the
latent numbers; the decoder up to them and down again. With merged levels all nodes of the one mesh have them.
Oskarsson et al. 2024, arXiv 2406.04759.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.mesh_coders import to_points
from emulators.layers.mesh_levels import Levels, from_neural_lam, graph_of, neural_lam_names
from emulators.layers.message_passing import Graph, Interaction, Update
from emulators.layers.sample_draws import Generators, normal
from emulators.meshes.levels import mesh_levels
from emulators.world import World

ABOUT = {
    "states": "2",
    "step": "3 h",
    "grid": "any; published for limited areas",
    "parity": "neural-lam, 1e-5",
}
LEAST = 1e-4  # standard deviation of a latent number
EMBEDDINGS = (
    ("grid_prev_embedder", "embed_points"),
    ("grid_current_embedder", "embed_target"),
    ("g2m_embedder", "embed_inward"),
    ("m2g_embedder", "embed_outward"),
    (r"mesh_embedders\.(\d+)", r"levels.embed_nodes.\1"),
    (r"m2m_embedders\.(\d+)", r"levels.embed_across.\1"),
    (r"mesh_up_embedders\.(\d+)", r"levels.embed_up.\1"),
    (r"mesh_down_embedders\.(\d+)", r"levels.embed_down.\1"),
    ("mesh_embedder", "levels.embed_nodes.0"),
    ("m2m_embedder", "levels.embed_across.0"),
    (r"decoder\.latent_embedder", "decoder.embed_latent"),
    (r"decoder\.grid_update_mlp", "decoder.points"),
    (r"decoder\.param_map", "decoder.out"),
    (r"prior_model\.latent_param_map", "prior.out"),
    (r"encoder\.latent_param_map", "posterior.out"),
)
INTERACTIONS = (
    (r"decoder\.g2m_gnn", "decoder.inward"),
    (r"decoder\.m2g_gnn", "decoder.outward"),
    (r"decoder\.mesh_up_gnns\.(\d+)", r"decoder.up.\1"),
    (r"decoder\.mesh_down_gnns\.(\d+)", r"decoder.down.\1"),
    (r"decoder\.intra_up_gnns\.(\d+)\.module_(\d+)", r"decoder.rising.\1.\2"),
    (r"decoder\.intra_down_gnns\.(\d+)\.module_(\d+)", r"decoder.falling.\1.\2"),
    (r"decoder\.m2m_gnns\.module_(\d+)", r"decoder.rising.0.\1"),
    *(
        pair
        for theirs, ours in (("prior_model", "prior"), ("encoder", "posterior"))
        for pair in (
            (rf"{theirs}\.g2m_gnn", f"{ours}.inward"),
            (rf"{theirs}\.mesh_up_gnns\.(\d+)", rf"{ours}.up.\1"),
            (rf"{theirs}\.intra_level_gnns\.(\d+)\.module_(\d+)", rf"{ours}.across.\1.\2"),
            (rf"{theirs}\.m2m_gnns\.module_(\d+)", rf"{ours}.across.0.\1"),
        )
    ),
)
PUBLISHED = neural_lam_names(
    (
        *EMBEDDINGS,
        *((rf"{theirs}\.edge_mlp", f"{ours}.edges") for theirs, ours in INTERACTIONS),
        *((rf"{theirs}\.aggr_mlp", f"{ours}.nodes") for theirs, ours in INTERACTIONS),
    ),
    coder=(),
)
adapted = from_neural_lam


class GraphEFM(nn.Module):
    """Map fields (batch, input channel, *grid) to (batch, output channel, *grid), by latent numbers of the prior.

    latent: channels of nodes, edges and hidden layers. numbers: latent ones of a node. layers: hidden layers of each
    update. prior_steps, posterior_steps, decoder_steps: of message passing within each level. spread: of the prior,
    `isotropic`, with deviation 1, or `diagonal`. merged: one mesh with the edges of all levels, not levels. levels: of
    the mesh, the finest first; None for all. level: of the finest icosahedral mesh, on grids around the globe.

    Without a generator a network in evaluation takes the mean of the prior. What only the posterior needs is at rest
    but with objective=variational.
    """

    conditioning = ("generator",)
    at_rest = ("posterior", "embed_target")

    def __init__(
        self,
        world: World,
        *,
        latent: int = 64,
        numbers: int = 64,
        layers: int = 1,
        prior_steps: int = 2,
        posterior_steps: int = 2,
        decoder_steps: int = 4,
        spread: str = "isotropic",
        merged: bool = False,
        levels: int | None = None,
        level: int = 4,
    ) -> None:
        super().__init__()
        if spread not in ("isotropic", "diagonal"):
            raise ValueError(f"Expected spread to be isotropic or diagonal; got '{spread}'.")
        mesh = mesh_levels(world.grid, levels=levels, level=level, merged=merged)
        features, count = mesh.inward.features.shape[-1], len(mesh.sizes)
        self.shape, self.noise_channels, self.size = world.grid.shape, numbers, mesh.sizes[-1]
        options: Any = {"layers": layers}
        self.inward, self.outward = graph_of(mesh.inward), graph_of(mesh.outward)
        self.levels = Levels(mesh, latent, layers, passes=False)
        read = world.input_channels
        self.embed_points = Update((read,), latent, latent, **options)
        self.embed_target = Update((read + world.output_channels,), latent, latent, **options)
        self.embed_inward, self.embed_outward = (Update((features,), latent, latent, **options) for _ in range(2))
        parameters = numbers if spread == "isotropic" else 2 * numbers
        self.prior = LatentEncoder(count, latent, parameters, prior_steps, layers)
        self.posterior = LatentEncoder(count, latent, 2 * numbers, posterior_steps, layers)
        self.decoder = LatentDecoder(count, latent, numbers, world.output_channels, decoder_steps, layers)
        for part in (self.posterior, self.embed_target):
            part.requires_grad_(False)

    def forward(self, fields: Tensor, time: Tensor, *, generator: Generators = None) -> Tensor:
        mesh, points = self._embedded(), self.embed_points(to_points(fields, len(self.shape)))
        mean, deviation = self._distribution(self.prior, points, mesh)
        if generator is not None or self.training:
            mean = mean + deviation * self._drawn(fields, generator)
        return self._fields(points, mean, mesh)

    def reconstructed(self, fields: Tensor, time: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Return what latent numbers of the posterior make, and its divergence from the prior, (batch,).

        truth: the next state, normalised, (batch, output channel, *grid). The divergence is a sum over the numbers of a
        node, averaged over nodes.
        """
        mesh, points = self._embedded(), self.embed_points(to_points(fields, len(self.shape)))
        seen = self.embed_target(to_points(torch.cat([fields, truth], dim=1), len(self.shape)))
        mean, deviation = self._distribution(self.posterior, seen, mesh)
        prior_mean, prior_deviation = self._distribution(self.prior, points, mesh)
        ratio = (deviation / prior_deviation).square()
        distance = ((mean - prior_mean) / prior_deviation).square()
        divergence = 0.5 * (ratio + distance - 1.0 - ratio.log()).sum(-1).mean(-1)
        return self._fields(points, mean + deviation * self._drawn(fields, None), mesh), divergence

    def _embedded(self) -> Mesh:
        edges = self.levels.embedded_edges()
        ends = self.embed_inward(self.inward.features), self.embed_outward(self.outward.features)
        return Mesh(self.levels, (self.inward, self.outward), self.levels.embedded_nodes(), edges, ends)

    def _distribution(self, encoder: nn.Module, points: Tensor, mesh: Mesh) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of latent numbers, (batch, node, number)."""
        parameters = encoder(points, mesh).float()
        if parameters.shape[-1] == self.noise_channels:
            return parameters, torch.ones_like(parameters)
        mean, raw = parameters.chunk(2, -1)
        return mean, LEAST + F.softplus(raw)

    def _drawn(self, fields: Tensor, generator: Generators) -> Tensor:
        return torch.stack(normal(len(fields), (self.size, self.noise_channels), fields.device, generator))

    def _fields(self, points: Tensor, numbers: Tensor, mesh: Mesh) -> Tensor:
        return self.decoder(points, numbers, mesh).transpose(1, 2).unflatten(-1, self.shape)


class Mesh:
    """Hold the graphs of a mesh in levels, and its embedded nodes and edges, for one call."""

    def __init__(self, levels: Levels, ends: tuple[Graph, Graph], nodes: list[Tensor], edges: Any, to: Any) -> None:
        self.levels, self.nodes = levels, nodes
        self.inward, self.outward = ends
        self.across, self.up, self.down = edges
        self.to_mesh, self.to_points = to


class Propagation(Interaction):
    """Pass messages that begin as what senders are, and let receivers begin as the mean of their messages."""

    def received(self, graph: Graph, edges: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        """Return the updated receivers."""
        _, sums = self.messages(graph, edges, senders, receivers)
        counts = graph.receiver_offsets.diff().clamp(min=1)[:, None]
        mean = (sums + graph.summed(graph.sent(senders))) / counts
        return mean + self.nodes(receivers, mean)


def _steps(number: int, latent: int, layers: int) -> nn.ModuleList:
    return nn.ModuleList(Interaction(latent, latent, latent, layers=layers) for _ in range(number))


def _passed(steps: Any, graph: Graph, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Return nodes and edges after messages among nodes of one level."""
    for interaction in steps:
        edges, nodes = interaction(graph, edges, nodes, nodes)
    return nodes, edges


class LatentEncoder(nn.Module):
    """Map embedded points (batch, point, channel) to parameters of a distribution at the nodes of the coarsest level.

    count: levels. out: parameters of a node. steps: of message passing within each level.
    """

    def __init__(self, count: int, latent: int, out: int, steps: int, layers: int) -> None:
        super().__init__()
        options: Any = {"layers": layers}
        self.inward = Interaction(latent, latent, latent, **options)
        self.up = nn.ModuleList(Propagation(latent, latent, latent, **options) for _ in range(count - 1))
        self.across = nn.ModuleList(_steps(steps, latent, layers) for _ in range(count))
        self.out = Update((latent,), latent, out, layers=layers, norm=None)

    def forward(self, points: Tensor, mesh: Mesh) -> Tensor:
        nodes = self.inward.received(mesh.inward, mesh.to_mesh, points, mesh.nodes[0])
        for level, steps in enumerate(self.across):
            if level:
                up: Any = self.up[level - 1]
                nodes = up.received(mesh.levels.upward[level - 1], mesh.up[level - 1], nodes, mesh.nodes[level])
            nodes, _ = _passed(steps, mesh.levels.across[level], nodes, mesh.across[level])
        return self.out(nodes)


class LatentDecoder(nn.Module):
    """Map embedded points and latent numbers (batch, node, number) to channels at points.

    Arguments as of LatentEncoder. The nodes of the coarsest level begin as the embedded numbers.
    """

    def __init__(self, count: int, latent: int, numbers: int, out: int, steps: int, layers: int) -> None:
        super().__init__()
        options: Any = {"layers": layers}
        self.embed_latent = Update((numbers,), latent, latent, **options)
        self.points = Update((latent,), latent, latent, **options)
        self.inward, self.outward = (Interaction(latent, latent, latent, **options) for _ in range(2))
        self.up = _steps(count - 1, latent, layers)
        self.down = nn.ModuleList(Propagation(latent, latent, latent, **options) for _ in range(count - 1))
        self.rising = nn.ModuleList(_steps(steps, latent, layers) for _ in range(count))
        self.falling = nn.ModuleList(_steps(steps, latent, layers) for _ in range(count - 1))
        self.out = Update((latent,), latent, out, layers=layers, norm=None)

    def forward(self, points: Tensor, numbers: Tensor, mesh: Mesh) -> Tensor:
        starts, graphs = [*mesh.nodes[:-1], self.embed_latent(numbers)], mesh.levels
        nodes = self.inward.received(mesh.inward, mesh.to_mesh, points, starts[0])
        before = []
        for level, steps in enumerate(self.rising):
            if level:
                up: Any = self.up[level - 1]
                nodes = up.received(graphs.upward[level - 1], mesh.up[level - 1], nodes, starts[level])
            nodes, edges = _passed(steps, graphs.across[level], nodes, mesh.across[level])
            before.append((nodes, edges))
        for level in range(len(self.down) - 1, -1, -1):
            earlier, edges = before[level]
            down: Any = self.down[level]
            nodes = down.received(graphs.downward[level], mesh.down[level], nodes, earlier)
            nodes, _ = _passed(self.falling[level], graphs.across[level], nodes, edges)
        return self.out(self.outward.received(mesh.outward, mesh.to_points, nodes, points + self.points(points)))
