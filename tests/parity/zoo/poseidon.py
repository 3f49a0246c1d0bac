"""Poseidon's scOT, which needs the package transformers.

Its code bears no licence, so that what is stored of it is what ours gave, once both agreed to 5e-7.
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn

from case import Case, checkout

SIZES = {"depths": [2, 2, 2], "embed_dim": 16, "num_heads": [2, 4, 4], "window_size": 4, "patch_size": 2}


def theirs() -> nn.Module:
    checkout("poseidon")
    module = importlib.import_module("scOT.model")
    config = module.ScOTConfig(
        **SIZES,
        image_size=32,
        num_channels=5,
        num_out_channels=3,
        skip_connections=[2, 1, 0],
        drop_path_rate=0.0,
        use_conditioning=True,
    )
    return module.ScOT(config)


def run(net: nn.Module, x: Tensor) -> Tensor:
    return net(pixel_values=x, time=torch.full((len(x),), 0.5)).output


CASE = Case(
    "poseidon.Poseidon",
    {
        "patch": 2,
        "embed": 16,
        "depths": [2, 2, 2],
        "heads": [2, 4, 4],
        "skips": [2, 1, 0],
        "window": [4, 4],
        "around": False,
        "inner_edges": "flat",
        "edges": "flat",
    },
    theirs,
    {"prognostic": 3, "forcing": 2},
    (32, 32),
    run,
    told={"interval": 12.0},
)
