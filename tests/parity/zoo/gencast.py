"""The denoiser of GenCast as google-deepmind/graphcast has it, from features of points on, at one noise level."""

from __future__ import annotations

import math

from torch import nn

from case import Case
from jax_peer import JaxNetwork, grid_coordinates, modules

LEVEL, LATENT, LAYERS, HEADS, HOPS, GRID, EAST = 2, 16, 3, 4, 3, (12, 24), 4.0
READ, WRITTEN, NOISE_LEVEL, DIVISOR = 5, 3, 2.5, 4.0


def theirs() -> nn.Module:
    modules()
    import jax.numpy as jnp
    from weathernext.weathernext1_gen import denoiser

    transformer = denoiser.SparseTransformerConfig(
        attention_k_hop=HOPS,
        d_model=LATENT,
        num_layers=LAYERS,
        num_heads=HEADS,
        attention_type="triblockdiag_mha",
        mask_type="full",
        ffw_hidden=4 * LATENT,
        name="transformer",
    )
    architecture = denoiser.DenoiserArchitectureConfig(
        sparse_transformer_config=transformer,
        mesh_size=LEVEL,
        latent_size=LATENT,
        grid2mesh_aggregate_normalization=DIVISOR,
        node_output_size=WRITTEN,
    )

    def network(features):
        whole = denoiser.Denoiser(None, architecture)
        told = whole._noise_level_encoder(jnp.full(features.shape[1], NOISE_LEVEL))
        net = whole._predictor
        net._maybe_init(grid_coordinates(GRID, EAST))
        nodes, points = net._run_grid2mesh_gnn(features, told)
        return net._run_mesh2grid_gnn(net._run_mesh_gnn(nodes, told), points, told)

    return JaxNetwork(network, READ, GRID[0] * GRID[1])


CASE = Case(
    "gencast.GenCast",
    {"level": LEVEL, "latent": LATENT, "layers": LAYERS, "heads": HEADS, "hops": HOPS, "divisor": DIVISOR},
    theirs,
    {"prognostic": WRITTEN, "forcing": READ - WRITTEN},
    GRID,
    told={"noise_level": math.log(NOISE_LEVEL)},
    east=EAST,
)
