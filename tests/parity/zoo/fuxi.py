"""FuXi as CREDIT has it."""

from __future__ import annotations

import importlib

from torch import Tensor, nn

from case import Case, checkout, package, stub


def theirs() -> nn.Module:
    path = checkout("miles-credit")
    package(path, "credit", "credit.models", "credit.models.wxformer", "credit.postblock")
    stub("credit.postblock.gen1", PostBlock=None)
    stub("credit.models.base_model", BaseModel=nn.Module)
    stub("credit.boundary_padding", TensorPadding=None)
    stub("credit.models.wxformer.stochastic_decomposition_layer", StochasticDecompositionLayer=None)
    return importlib.import_module("credit.models.fuxi").Fuxi(
        image_height=40,
        image_width=64,
        patch_height=2,
        patch_width=2,
        levels=1,
        frames=2,
        frame_patch_size=2,
        dim=16,
        num_groups=4,
        channels=1,
        surface_channels=2,
        num_heads=2,
        depth=2,
        window_size=4,
        use_spectral_norm=False,
        interp=False,
    )


def run(net: nn.Module, x: Tensor) -> Tensor:
    return net(x.unflatten(1, (2, -1)).transpose(1, 2))[:, :, 0]


CASE = Case(
    "fuxi.FuXi",
    {"embed": 16, "depth": 2, "heads": 2, "window": 4, "groups": 4, "around": False, "inner_edges": "flat"},
    theirs,
    {"prognostic": 3},
    (40, 64),
    run,
    history=2,
)
