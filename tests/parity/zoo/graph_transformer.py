"""The graph transformer of anemoi-models, on nodes and edges that anemoi-graphs makes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from case import Case

LEVEL, CHANNELS, LAYERS, HEADS, GRID, EAST = 1, 32, 2, 4, (10, 20), 4.0
READ, WRITTEN = 5, 3


def graph():
    """Their nodes and edges, between grid, hidden mesh and grid."""
    import numpy as np
    from anemoi.graphs.create import GraphCreator
    from anemoi.utils.config import DotDict

    rows, columns = GRID
    latitude = 90.0 - (np.arange(rows) + 0.5) * 180.0 / rows
    longitude = EAST + np.arange(columns) * 360.0 / columns
    attributes = {
        "length": {"_target_": "anemoi.graphs.edges.attributes.EdgeLength", "norm": "unit-std"},
        "direction": {"_target_": "anemoi.graphs.edges.attributes.EdgeDirection", "norm": "unit-std"},
    }
    builders = {
        ("data", "hidden"): {"_target_": "anemoi.graphs.edges.CutOffEdges", "cutoff_factor": 0.6},
        ("hidden", "hidden"): {"_target_": "anemoi.graphs.edges.MultiScaleEdges", "x_hops": 1},
        ("hidden", "data"): {"_target_": "anemoi.graphs.edges.KNNEdges", "num_nearest_neighbours": 3},
    }
    builders["hidden", "hidden"]["scale_resolutions"] = LEVEL
    data = {
        "_target_": "anemoi.graphs.nodes.LatLonNodes",
        "latitudes": np.repeat(latitude, columns),
        "longitudes": np.tile(longitude, rows),
    }
    hidden = {"_target_": "anemoi.graphs.nodes.TriNodes", "resolution": LEVEL}
    recipe = {
        "nodes": {"data": {"node_builder": data}, "hidden": {"node_builder": hidden}},
        "edges": [
            {"source_name": a, "target_name": b, "edge_builders": [builder], "attributes": attributes}
            for (a, b), builder in builders.items()
        ],
    }
    return GraphCreator(DotDict(recipe)).create(overwrite=True)


def theirs() -> nn.Module:
    from anemoi.models.layers.mapper import GraphTransformerBackwardMapper, GraphTransformerForwardMapper
    from anemoi.models.layers.processor import GraphTransformerProcessor

    options = {
        "num_channels": CHANNELS,
        "num_chunks": 1,
        "num_heads": HEADS,
        "mlp_hidden_ratio": 4,
        "edge_dim": 3,
        "layer_kernels": {},
        "graph_attention_backend": "pyg",
    }
    sizes = {"in_channels_src": READ + 4, "in_channels_dst": 4}
    encoder = GraphTransformerForwardMapper(**options, **sizes)
    sizes = {"in_channels_src": CHANNELS, "in_channels_dst": READ + 4, "out_channels_dst": WRITTEN}
    decoder = GraphTransformerBackwardMapper(**options, **sizes)
    return Whole(graph(), encoder, GraphTransformerProcessor(num_layers=LAYERS, **options), decoder)


class Whole(nn.Module):
    """Join what AnemoiModelEncProcDec joins."""

    def __init__(self, graph, encoder: nn.Module, processor: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.graph, self.encoder, self.processor, self.decoder = graph, encoder, processor, decoder

    def edges(self, a: str, b: str, batch: int) -> tuple[Tensor, Tensor]:
        found = self.graph[a, "to", b]
        order = found.edge_index[1].long().argsort(stable=True)
        step = torch.tensor([[len(self.graph[a].x)], [len(self.graph[b].x)]])
        index = found.edge_index[:, order].long()
        told = torch.cat([found["length"], found["direction"]], dim=1)[order].float()
        return torch.cat([index + n * step for n in range(batch)], dim=1), told.repeat(batch, 1)

    def forward(self, x: Tensor) -> Tensor:
        from anemoi.models.distributed.shapes import BipartiteGraphShardInfo, GraphShardInfo

        batch = len(x)
        places = {
            name: torch.cat([self.graph[name].x.sin(), self.graph[name].x.cos()], dim=1).float().repeat(batch, 1)
            for name in ("data", "hidden")
        }
        rows = torch.cat([x.flatten(2).transpose(1, 2).flatten(0, 1), places["data"]], dim=1)

        def between(mapper, pair, a, b):
            index, told = self.edges(a, b, batch)
            return mapper(
                pair, batch_size=batch, shard_info=BipartiteGraphShardInfo(), edge_attr=told, edge_index=index
            )

        _, nodes = between(self.encoder, (rows, places["hidden"]), "data", "hidden")
        index, told = self.edges("hidden", "hidden", batch)
        processed = self.processor(
            nodes, batch_size=batch, shard_info=GraphShardInfo(), edge_attr=told, edge_index=index
        )
        out = between(self.decoder, (processed + nodes, rows), "hidden", "data")
        return out.unflatten(0, (batch, -1)).transpose(1, 2).unflatten(-1, x.shape[2:])


CASE = Case(
    "graph_transformer.GraphTransformer",
    {"level": LEVEL, "channels": CHANNELS, "layers": LAYERS, "heads": HEADS, "trainable": 0},
    theirs,
    {"prognostic": WRITTEN, "forcing": READ - WRITTEN},
    GRID,
    east=EAST,
)
