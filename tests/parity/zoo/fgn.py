"""FGN (WeatherNext 2) as google-deepmind/graphcast has it, for one vector of noise after its linear map."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import nn

from case import BATCH, Case, drawn
from emulators.layers.sample_draws import normal
from jax_peer import JaxNetwork, grid_coordinates, modules

LEVEL, LATENT, LAYERS, HEADS, HOPS, EDGE, GRID, EAST = 2, 16, 3, 4, 3, 8, (12, 24), 4.0
VARIABLES = ("a_field", "b_everywhere", "c", "d", "e")  # in the order of their weights' names
WRITTEN, NOISE, DIVISOR = 3, 6, 4.0
TARGET = np.array([6], "timedelta64[h]")


def dense(hidden: int, out: int, norm: bool = True) -> dict:
    """Options of a dense layer of theirs."""
    normed = {
        "activation_normalization": "layer_norm",
        "activation_normalization_kwargs": {"use_norm_conditioning": True},
    }
    plain = {"hidden_size": hidden, "num_hidden_layers": 1, "activation": "swish", "activate_final": False}
    return {**plain, **({"output_size": out, **normed} if norm else {})}


def coders(points_mesh_gnn) -> dict:
    """Their graph networks between grid and mesh, as options of their architecture."""
    features = (
        "add_scalar_distances",
        "add_vector_distances",
        "relative_latitude_vectors",
        "relative_longitude_vectors",
    )
    between = partial(
        points_mesh_gnn.PointsMeshTypedGraphGNN,
        dense_kwargs=dense(LATENT, LATENT),
        edge_encoder_dense_kwargs=dense(EDGE, EDGE),
        spatial_edge_features_kwargs=dict.fromkeys(features, True),
    )
    once = {"num_message_passing_steps": 1, "use_edge_residuals": False, "pre_gather_matmul": True}
    kinds = points_mesh_gnn.ConnectivityType
    return {
        "points_to_mesh_model_ctor": partial(
            between,
            name="{points_name}_to_{mesh_name}_gnn",
            is_points_to_mesh=True,
            is_mesh_to_points=False,
            connectivity_type=kinds.BALL_QUERY,
            ball_query_radius_fraction=0.6,
            deep_gnn_kwargs={**once, "gather_from_receivers": False, "aggregate_normalization": DIVISOR},
        ),
        "mesh_to_grid_model_ctor": partial(
            between,
            name="{mesh_name}_to_{points_name}_gnn",
            is_points_to_mesh=False,
            is_mesh_to_points=True,
            connectivity_type=kinds.IN_TRIANGLE,
            deep_gnn_kwargs=once,
        ),
    }


def forward_pass(mesh_transformer, points_mesh_gnn, architecture):
    """Their whole network."""
    transformer = {
        "attention_type": "triblockdiag_mha", "mask_type": "full", "attention_k_hop": HOPS, "d_model": LATENT,
        "num_heads": HEADS, "num_layers": LAYERS, "ffw_hidden": 4 * LATENT,
    }  # fmt: skip
    return architecture.ForwardPass(
        latent_dense_kwargs=dense(LATENT, LATENT),
        output_dense_kwargs=dense(LATENT, LATENT, norm=False),
        spatial_features_kwargs=dict.fromkeys(("add_sin_latitude", "add_sin_longitude", "add_cos_longitude"), True),
        mesh_num_splits=LEVEL,
        mesh_model_ctor=partial(
            mesh_transformer.MeshSparseTransformer, name="{mesh_name}_transformer", transformer_kwargs=transformer
        ),
        norm_conditioning_features=("noise",),
        norm_conditioning_latent_dense_kwargs={
            "num_hidden_layers": 0, "activation_normalization": None, "activate_final": False, "with_bias": False,
            "hidden_size": NOISE, "activation": "swish", "output_size": NOISE,
        },
        **coders(points_mesh_gnn),
    )  # fmt: skip


def theirs() -> nn.Module:
    modules()
    import jax.numpy as jnp
    import xarray
    import xarray_jax
    from weathernext.utils import mesh_transformer, points_mesh_gnn
    from weathernext.weathernext2 import architecture

    coordinates = grid_coordinates(GRID, EAST)
    axes, places = ("batch", "time", "lat", "lon"), {"lat": coordinates.lat, "lon": coordinates.lon}
    vectors = torch.stack(normal(BATCH, (NOISE,), "cpu", drawn())).numpy()

    def network(rows):
        batch = rows.shape[1]
        fields = rows.transpose(1, 2, 0).reshape(batch, -1, 1, *GRID)

        def dataset(names, time, first):
            arrays = {}
            for number, name in enumerate(names, first):
                values = fields[:, number]
                arrays[name] = (
                    xarray_jax.Variable(axes[:2], values.mean((-2, -1)))
                    if name == VARIABLES[1]
                    else xarray_jax.Variable(axes, values)
                )
            return xarray_jax.Dataset(arrays, {"time": time, **places})

        forcings = dataset(VARIABLES[:2], TARGET, 0)
        inputs = dataset(VARIABLES[2:], np.zeros(1, "timedelta64[h]"), 2)
        inputs["noise"] = xarray_jax.Variable(("batch", "noise_channels"), jnp.asarray(vectors[:batch]))
        empty = np.zeros((batch, 1, *GRID), np.float32)
        template = xarray.Dataset(dict.fromkeys(VARIABLES[2:], (axes, empty)), {"time": TARGET, **places})
        whole = forward_pass(mesh_transformer, points_mesh_gnn, architecture)
        out = whole(inputs=inputs, targets_template=template, forcings=forcings)
        values = jnp.stack([xarray_jax.unwrap_data(out[name])[:, 0] for name in VARIABLES[2:]], -1)
        return values.reshape(batch, -1, WRITTEN).transpose(1, 0, 2)

    return JaxNetwork(network, len(VARIABLES), GRID[0] * GRID[1])


CASE = Case(
    "fgn.FGN",
    {
        "level": LEVEL, "latent": LATENT, "edge": EDGE, "layers": LAYERS, "heads": HEADS, "hops": HOPS,
        "divisor": DIVISOR, "everywhere": VARIABLES[1:2], "noise": NOISE,
    },
    theirs,
    {"prognostic": dict.fromkeys(VARIABLES[:WRITTEN], 0), "forcing": dict.fromkeys(VARIABLES[WRITTEN:], 0)},
    GRID,
    noise=NOISE,
    even=(1,),
    east=EAST,
)  # fmt: skip
