"""GraphCast as google-deepmind/graphcast has it, from features of points on."""

from __future__ import annotations

from torch import nn

from case import Case
from jax_peer import JaxNetwork, grid_coordinates, modules

LEVEL, LATENT, STEPS, GRID, EAST = 2, 16, 3, (12, 24), 4.0
READ, WRITTEN = 5, 3


def theirs() -> nn.Module:
    modules()
    from weathernext.weathernext1_graph import graphcast

    config = graphcast.ModelConfig(
        resolution=1.0,
        mesh_size=LEVEL,
        latent_size=LATENT,
        gnn_msg_steps=STEPS,
        hidden_layers=1,
        radius_query_fraction_edge_length=0.6,
    )
    task = graphcast.TaskConfig(
        input_variables=("a",),
        target_variables=tuple(f"v{number}" for number in range(WRITTEN)),
        forcing_variables=(),
        pressure_levels=(),
        input_duration="6h",
    )

    def network(features):
        net = graphcast.GraphCast(config, task)
        net._maybe_init(grid_coordinates(GRID, EAST))
        nodes, points = net._run_grid2mesh_gnn(features)
        return net._run_mesh2grid_gnn(net._run_mesh_gnn(nodes), points)

    return JaxNetwork(network, READ, GRID[0] * GRID[1])


CASE = Case(
    "graphcast.GraphCast",
    {"level": LEVEL, "latent": LATENT, "steps": STEPS},
    theirs,
    {"prognostic": WRITTEN, "forcing": READ - WRITTEN},
    GRID,
    east=EAST,
)
