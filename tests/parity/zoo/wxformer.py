"""WXFormer, the CrossFormer of CREDIT."""

from __future__ import annotations

import importlib

from torch import Tensor, nn

from case import Case, checkout, package, stub


def theirs() -> nn.Module:
    path = checkout("miles-credit")
    package(path, "credit", "credit.models", "credit.models.wxformer", "credit.postblock")
    stub("credit.postblock.gen1", PostBlock=None)
    stub("credit.models.base_model", BaseModel=nn.Module)
    padding = importlib.import_module("credit.boundary_padding").TensorPadding
    module = importlib.import_module("credit.models.wxformer.crossformer")
    module.TensorPadding = padding
    return module.CrossFormer(
        image_height=16,
        image_width=32,
        frames=1,
        channels=1,
        levels=1,
        surface_channels=2,
        input_only_channels=2,
        dim=(16, 32, 64, 128),
        depth=(1, 1, 2, 1),
        dim_head=8,
        local_window_size=(4, 2, 2, 1),
        global_window_size=(2, 4, 2, 1),
        cross_embed_kernel_sizes=((4, 8, 16), (2, 4), (2, 4), (2, 4)),
        cross_embed_strides=(2, 2, 2, 2),
        use_spectral_norm=False,
        interp=False,
        padding_conf={"activate": True, "mode": "earth", "pad_lat": (8, 8), "pad_lon": (8, 8)},
    )


def run(net: nn.Module, x: Tensor) -> Tensor:
    return net(x.unsqueeze(2))[:, :, 0]


CASE = Case(
    "wxformer.WXFormer",
    {
        "channels": [16, 32, 64, 128],
        "depth": [1, 1, 2, 1],
        "kernels": [[4, 8, 16], [2, 4], [2, 4], [2, 4]],
        "near": [4, 2, 2, 1],
        "far": [2, 4, 2, 1],
        "head_channels": 8,
        "groups": 16,
        "margin": 8,
        "inner_edges": "flat",
        "distances": "published",
    },
    theirs,
    {"prognostic": 3, "forcing": 2},
    (16, 32),
    run,
)
