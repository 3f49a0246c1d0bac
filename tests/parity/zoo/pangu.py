"""Pangu-Weather as PhysicsNeMo has it."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import torch
from torch import Tensor, nn

from case import Case, checkout, package, stub


def theirs() -> nn.Module:
    path = checkout("physicsnemo")
    package(path, "physicsnemo", "physicsnemo.core", "physicsnemo.nn", "physicsnemo.nn.module", "physicsnemo.models")
    package(path, "physicsnemo.models.pangu")
    anything = type("Anything", (), {"__getitem__": lambda self, key: Tensor})()
    stub("jaxtyping", Float=anything, Int=anything, Bool=anything)

    class Whole(nn.Module):
        def __init__(self, meta: Any) -> None:
            super().__init__()

    class MLP(nn.Module):
        def __init__(self, in_features: int, hidden_features: int, act_layer: Any, drop: float) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(in_features, hidden_features), nn.GELU(), nn.Linear(hidden_features, in_features)
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    stub("physicsnemo.core.meta", ModelMetaData=object)
    stub("physicsnemo.core.module", Module=Whole)
    stub("physicsnemo.nn.module.conv_layers", Conv2d=None)
    stub("physicsnemo.nn.module.group_norm", get_group_norm=None)
    stub("physicsnemo.nn.module.drop", DropPath=lambda rate: nn.Identity())
    stub("physicsnemo.nn.module.mlp_layers", Mlp=MLP)
    layers = importlib.import_module("physicsnemo.nn.module.transformer_layers")
    resample = importlib.import_module("physicsnemo.nn.module.resample_layers")
    for name, kind in (
        ("FuserLayer", layers.FuserLayer),
        ("DownSample3D", resample.DownSample3D),
        ("UpSample3D", resample.UpSample3D),
    ):
        setattr(sys.modules["physicsnemo.nn"], name, kind)
    module = importlib.import_module("physicsnemo.models.pangu.pangu")
    return module.Pangu(img_size=(23, 48), patch_size=(2, 1, 1), embed_dim=8, num_heads=(1, 2, 2, 1))


def run(net: nn.Module, x: Tensor) -> Tensor:
    """Ours has the five variables on levels first, then the single ones, then the masks."""
    upper, surface, masks = x.split([65, 4, 3], 1)
    low, high = net(torch.cat([surface, masks, upper], 1))
    return torch.cat([high.flatten(1, 2), low], 1)


CASE = Case(
    "pangu.Pangu",
    {"patch": [2, 1, 1], "embed": 8, "heads": [1, 2, 2, 1], "window": [2, 6, 12], "order": "pre", "around": False},
    theirs,
    {
        "prognostic": {**dict.fromkeys("zqtuv", 13), **dict.fromkeys(("msl", "u10", "v10", "t2m"), 0)},
        "forcing": {"a": 0, "b": 0, "c": 0},
    },
    (23, 48),
    run,
)
