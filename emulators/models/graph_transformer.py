"""Graph transformer of AIFS: attention along edges from grid to mesh, on the mesh, and back to the grid.

    mesh = encoder(grid);   mesh = mesh + processor(mesh);   fields = W norm(decoder(mesh, grid))

The processor attends along the edges of a multi-mesh, or among nodes in a window that slides over them from north to
south. Nodes and edges have learned features of their own besides place and direction. Lang et al. 2024, arXiv
2406.01465; with a mesh that is finer in a region, Nipen et al. 2024, arXiv 2409.02891; with noise in the norms of the
processor, for ensembles, Lang et al. 2024, arXiv 2412.15832.

Along edges every receiver attends to the senders of its incoming edges,

    s = q . (k + e) / sqrt(d),   a = softmax of s over the incoming edges of a receiver,   out = sum a (v + e)

with e = W features + b of each edge. As e is linear in a few features, neither q . e nor sum a e needs e itself at
every edge: they are (W^T q) . features and W (sum a features). Shi et al. 2021, arXiv 2009.03509. Within a window the
nodes are divided into blocks of queries, each with the run of keys that they attend to: no more than the band is
computed (Beltagy et al. 2020, arXiv 2004.05150).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor, nn

from emulators.constants import EARTH_RADIUS
from emulators.layers.attention.transformer import MLP, check_heads
from emulators.layers.mesh_coders import grid_points, to_points
from emulators.layers.message_passing import Graph
from emulators.layers.sample_draws import Generators, normal
from emulators.meshes.edges import Edges, direction_features, nearest, within_radius
from emulators.meshes.icosahedra import stretched
from emulators.world import World

ABOUT = {
    "states": "2",
    "step": "6 h",
    "grid": "any",
    "parity": "anemoi-models, 1e-5",
}
MAPPER = r"(?:model\.)?(encoder|decoder)(?:\.\w+)??\."
BLOCK = r"(?:model\.)?processor\.proc\.(\d+)\."
LINEAR = (("key", "k"), ("query", "q"), ("value", "v"), ("self", "own"), ("edge", "edge"))
PUBLISHED = (  # names in anemoi's checkpoints, and ours
    (r"(?:model\.)?encoder(?:\.\w+)??\.emb_nodes_src\.(\w+)", r"embed_points.\1"),
    (r"(?:model\.)?encoder(?:\.\w+)??\.emb_nodes_dst\.(\w+)", r"embed_nodes.\1"),
    (r"(?:model\.)?decoder(?:\.\w+)??\.emb_nodes_dst\.(\w+)", r"embed_targets.\1"),
    (r"(?:model\.)?decoder(?:\.\w+)??\.node_data_extractor\.(\d)\.(\w+)", r"out.\1.\2"),
    (MAPPER + r"proc\.layer_norm_attention(?:_dest)?\.(\w+)", r"\1.norm_in.\2"),
    (MAPPER + r"proc\.layer_norm_attention_src\.(\w+)", r"\1.norm_senders.\2"),
    (MAPPER + r"proc\.layer_norm_mlp_dst\.(\w+)", r"\1.norm_out.\2"),
    (MAPPER + r"proc\.projection\.(\w+)", r"\1.attention.projection.\2"),
    (MAPPER + r"proc\.node_dst_mlp\.mlp\.0\.(\w+)", r"\1.mlp.expand.\2"),
    (MAPPER + r"proc\.node_dst_mlp\.mlp\.2\.(\w+)", r"\1.mlp.contract.\2"),
    (BLOCK + r"layer_norm_attention\.(\w+)", r"processor.\1.norm_in.\2"),
    (BLOCK + r"layer_norm_mlp(?:_dst)?\.(\w+)", r"processor.\1.norm_out.\2"),
    (BLOCK + r"(?:attention\.)?projection\.(\w+)", r"processor.\1.attention.projection.\2"),
    (BLOCK + r"(?:node_dst_mlp\.mlp|mlp\.mlp)\.0\.(\w+)", r"processor.\1.mlp.expand.\2"),
    (BLOCK + r"(?:node_dst_mlp\.mlp|mlp\.mlp)\.2\.(\w+)", r"processor.\1.mlp.contract.\2"),
    (BLOCK + r"attention\.lin_(q|k|v)\.(\w+)", r"processor.\1.attention.\2.\3"),
    *((MAPPER + rf"proc\.lin_{theirs}\.(\w+)", rf"\1.attention.{ours}.\2") for theirs, ours in LINEAR),
    *((BLOCK + rf"lin_{theirs}\.(\w+)", rf"processor.\1.attention.{ours}.\2") for theirs, ours in LINEAR),
)
HIDDEN = 32  # channels of the MLP that embeds noise


class GraphTransformer(nn.Module):
    """Map fields (batch, input channel, *grid) to (batch, output channel, *grid).

    level: of the mesh, of 10 * 4^level + 2 nodes. region: south, north, west and east in degrees; the mesh has `fine`
    as level around the grid's points in it, to a `margin` in kilometres. channels: of nodes. layers: of the processor.
    heads: of attention. mlp_ratio: hidden channels of the MLPs, as a multiple. trainable: learned features of every
    node and edge. reach: radius within which mesh nodes read grid points, as a share of the greatest distance between
    neighbours; or `encoder_nearest`, the number of grid points that each reads. decoder_nearest: mesh nodes that each
    grid point reads. processor: `graph` or `window`, with `window` nodes before and after. noise: channels of noise at
    each mesh node, 0 for none.
    """

    conditioning: Sequence[str] = ()

    def __init__(
        self,
        world: World,
        *,
        level: int = 5,
        fine: int | None = None,
        region: Sequence[float] | None = None,
        margin: float = 11.0,
        channels: int = 1024,
        layers: int = 16,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        trainable: int = 8,
        reach: float = 0.6,
        encoder_nearest: int | None = None,
        decoder_nearest: int = 3,
        processor: str = "graph",
        window: int = 512,
        noise: int = 0,
    ) -> None:
        super().__init__()
        if processor not in ("graph", "window"):
            raise ValueError(f"Expected processor to be graph or window; got '{processor}'.")
        if (fine is None) != (region is None):
            raise ValueError(f"A finer mesh needs both its level and its region; got fine={fine}, region={region}.")
        self.shape, points = world.grid.shape, grid_points(world)
        inside = points[:1] if region is None else points[_within(world, region)]
        nodes, edges = stretched(level, level if fine is None else fine, inside, 1e3 * margin / EARTH_RADIUS)
        if encoder_nearest is None:
            spacing = cKDTree(nodes).query(nodes, k=2)[0][:, 1].max()
            inward = within_radius(points, nodes, float(reach * spacing))
        else:
            inward = nearest(points, nodes, encoder_nearest)
        self.points, self.nodes = (Places(positions, trainable) for positions in (points, nodes))
        self.inward = DirectedGraph(inward, points, nodes, trainable)
        self.outward = DirectedGraph(nearest(nodes, points, decoder_nearest), nodes, points, trainable)
        read = world.input_channels + self.points.size
        self.embed_points, self.embed_nodes = nn.Linear(read, channels), nn.Linear(self.nodes.size, channels)
        self.embed_targets = nn.Linear(read, channels)
        features = self.inward.size
        self.encoder = GraphTransformerBlock(channels, heads, features, mlp_ratio, between=True)
        self.decoder = GraphTransformerBlock(channels, heads, features, mlp_ratio, between=True)
        self.out = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, world.output_channels))
        norm: Any = (lambda size: NoisyNorm(size, noise)) if noise else nn.LayerNorm
        self.across = DirectedGraph(edges, nodes, nodes, trainable) if processor == "graph" else None
        self.band = Band(tokens=len(nodes), window=window) if processor == "window" else None
        self.processor = nn.ModuleList(
            WindowBlock(channels, heads, mlp_ratio, norm)
            if processor == "window"
            else GraphTransformerBlock(channels, heads, features, mlp_ratio, norm=norm)
            for _ in range(layers)
        )
        self.noise_channels, self.node_count = noise, len(nodes)
        if noise:
            self.conditioning = ("generator",)
            self.embed_noise = nn.Sequential(
                nn.Linear(noise, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, noise), nn.LayerNorm(noise)
            )

    def forward(self, fields: Tensor, time: Tensor, *, generator: Generators = None) -> Tensor:
        rows = to_points(fields, len(self.shape))
        features = torch.cat([rows, self.points().expand(len(rows), -1, -1)], dim=-1)
        nodes = self.embed_nodes(self.nodes())
        nodes = self.encoder(self.inward.graph, self.inward(), nodes, self.embed_points(features))
        processed = self._processed(nodes, generator)
        targets = self.embed_targets(features)
        targets = self.decoder(self.outward.graph, self.outward(), targets, nodes + processed)
        return self.out(targets).transpose(1, 2).unflatten(-1, self.shape)

    def _processed(self, nodes: Tensor, generator: Generators) -> Tensor:
        if self.noise_channels:
            drawn = self._noise(len(nodes), nodes.device, generator)
            for module in self.processor.modules():
                if isinstance(module, NoisyNorm):
                    module.noise = drawn
        features = None if self.across is None else self.across()
        for block in self.processor:
            if features is None or self.across is None:
                nodes = block(nodes, self.band)
            else:
                nodes = block(self.across.graph, features, nodes)
        return nodes

    def _noise(self, batch: int, device: torch.device, generator: Generators) -> Tensor | None:
        if generator is None and not self.training:
            return None
        drawn = torch.stack(normal(batch, (self.node_count, self.noise_channels), device, generator))
        return self.embed_noise(drawn)


class Places(nn.Module):
    """Hold sines and cosines of latitude and longitude of nodes, and learned features, (1, node, feature)."""

    places: Tensor

    def __init__(self, nodes: np.ndarray, trainable: int) -> None:
        super().__init__()
        latitude, longitude = np.arcsin(nodes[:, 2].clip(-1.0, 1.0)), np.arctan2(nodes[:, 1], nodes[:, 0])
        waves = np.stack([np.sin(latitude), np.sin(longitude), np.cos(latitude), np.cos(longitude)], axis=-1)
        self.register_buffer("places", torch.as_tensor(waves.astype(np.float32)), persistent=False)
        self.trainable = nn.Parameter(torch.zeros(len(nodes), trainable)) if trainable else None
        self.size = 4 + trainable

    def forward(self) -> Tensor:
        features = [self.places] if self.trainable is None else [self.places, self.trainable]
        return torch.cat(features, dim=-1)[None]


class DirectedGraph(nn.Module):
    """Hold edges, and angle, direction and learned features of each, (1, edge, feature)."""

    def __init__(self, edges: Edges, senders: np.ndarray, receivers: np.ndarray, trainable: int) -> None:
        super().__init__()
        self.graph = Graph(edges, direction_features(edges, senders, receivers))
        self.trainable = nn.Parameter(torch.zeros(1, len(edges), trainable)) if trainable else None
        self.size = 3 + trainable

    def forward(self) -> Tensor:
        features = self.graph.features
        return features if self.trainable is None else torch.cat([features, self.trainable], dim=-1)


class WindowBlock(nn.Module):
    """Apply attention within a band of nodes and an MLP, both residual, each after a norm."""

    def __init__(self, channels: int, heads: int, mlp_ratio: float, norm: Any) -> None:
        super().__init__()
        self.norm_in, self.norm_out = norm(channels), norm(channels)
        self.attention, self.mlp = BandedAttention(channels, heads), MLP(channels, int(mlp_ratio * channels))

    def forward(self, x: Tensor, band: Band) -> Tensor:
        x = x + self.attention(self.norm_in(x), band)
        return x + self.mlp(self.norm_out(x))


class NoisyNorm(nn.Module):
    """Normalise channels, and scale and shift them by the noise at hand; nothing at first, and nothing without."""

    def __init__(self, channels: int, noise: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Linear(noise, channels), nn.Linear(noise, channels)
        self.noise: Tensor | None = None
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x, x.shape[-1:])
        if self.noise is None:
            return torch.addcmul(normed + self.shift.bias, normed, self.scale.bias)
        return torch.addcmul(normed + self.shift(self.noise), normed, self.scale(self.noise))


def _within(world: World, region: Sequence[float]) -> np.ndarray:
    """Return which points of the grid lie in south, north, west, east; ValueError for none."""
    latitude, longitude = world.grid.points
    south, north, west, east = region
    inside = (latitude >= south) & (latitude <= north) & ((longitude - west) % 360.0 <= (east - west) % 360.0)
    if not inside.any():
        raise ValueError(f"Expected a region that holds points of the grid, south, north, west, east; got {region}.")
    return inside


Norm = Callable[[int], nn.Module]


class EdgeAttention(nn.Module):
    """Apply attention of receivers (batch, node, channel) to senders along edges with features (1, edge, feature)."""

    def __init__(self, channels: int, heads: int, features: int) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.heads = heads
        self.q, self.k, self.v, self.own = (nn.Linear(channels, channels) for _ in range(4))
        self.edge, self.projection = nn.Linear(features, channels), nn.Linear(channels, channels)

    def forward(self, graph: Graph, features: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        q, k, v = self.q(receivers), self.k(senders), self.v(senders)
        padded = F.pad(features, (0, 1), value=1.0)
        weight = torch.cat([self.edge.weight, self.edge.bias[:, None]], dim=1).unflatten(0, (self.heads, -1))
        queries = torch.einsum("bnhd,hdf->bnhf", q.unflatten(-1, (self.heads, -1)), weight)
        width = q.shape[-1] // self.heads
        of_senders = graph.products(q.expand(len(k), -1, -1), k, self.heads)
        of_edges = (graph.gathered(queries.flatten(2)).unflatten(-1, (self.heads, -1)) * padded[:, :, None]).sum(-1)
        shares = graph.softmax((of_senders + of_edges) / math.sqrt(width))
        mixed = graph.mixed(shares, v)
        edge_means = graph.summed((shares[..., None] * padded[:, :, None]).flatten(2)).unflatten(-1, (self.heads, -1))
        out = mixed + torch.einsum("bnhf,hdf->bnhd", edge_means.to(weight.dtype), weight).flatten(2)
        return self.projection(out.to(q.dtype) + self.own(receivers))


class GraphTransformerBlock(nn.Module):
    """Apply edge attention and an MLP to receivers, both residual, each after a norm.

    between: whether senders are other nodes than receivers, with a norm of their own. norm: makes the norms.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        features: int,
        mlp_ratio: float = 4.0,
        *,
        between: bool = False,
        norm: Norm = nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.norm_in, self.norm_out = norm(channels), norm(channels)
        self.norm_senders = norm(channels) if between else None
        self.attention = EdgeAttention(channels, heads, features)
        self.mlp = MLP(channels, int(mlp_ratio * channels))

    def forward(self, graph: Graph, features: Tensor, receivers: Tensor, senders: Tensor | None = None) -> Tensor:
        normed = self.norm_in(receivers)
        normed_senders = normed if senders is None or self.norm_senders is None else self.norm_senders(senders)
        receivers = receivers + self.attention(graph, features, normed_senders, normed)
        return receivers + self.mlp(self.norm_out(receivers))


QUERIES = 1024  # queries


class Band(nn.Module):
    """Hold which keys the queries of each block may attend to: their run, and a mask within it, (query, key)."""

    def __init__(self, tokens: int, window: int) -> None:
        super().__init__()
        self.runs: list[tuple[int, int, int, int]] = []
        for number, first in enumerate(range(0, tokens, QUERIES)):
            last = min(first + QUERIES, tokens)
            start, stop = max(0, first - window), min(tokens, last + window)
            mask = np.abs(np.arange(first, last)[:, None] - np.arange(start, stop)) <= window
            self.runs.append((first, last, start, stop))
            whole = mask.all()
            self.register_buffer(f"mask{number}", None if whole else torch.as_tensor(mask), persistent=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the attention of (batch, head, token, channel)."""
        outputs = []
        for number, (first, last, start, stop) in enumerate(self.runs):
            mask = self.get_buffer(f"mask{number}") if f"mask{number}" in self._buffers else None
            keys, values = k[:, :, start:stop], v[:, :, start:stop]
            outputs.append(F.scaled_dot_product_attention(q[:, :, first:last], keys, values, attn_mask=mask))
        return torch.cat(outputs, dim=2)


class BandedAttention(nn.Module):
    """Let tokens (batch, token, channel) attend to those of their band. bias: whether q, k and v have one."""

    def __init__(self, channels: int, heads: int, *, bias: bool = False) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(channels, channels, bias=bias) for _ in range(3))
        self.projection = nn.Linear(channels, channels)

    def forward(self, x: Tensor, band: Band) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.projection(band(q, k, v).transpose(1, 2).flatten(2))
