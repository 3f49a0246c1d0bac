"""Stormer."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn

from case import Case, checkout, package, stub


def theirs() -> nn.Module:
    path = checkout("stormer")
    package(path, "stormer", "stormer.models", "stormer.models.hub", "stormer.utils")

    def attention(q: Tensor, k: Tensor, v: Tensor, attn_bias: None = None) -> Tensor:
        parts = (part.transpose(1, 2) for part in (q, k, v))
        return nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2)

    stub("xformers")
    stub("xformers.ops", memory_efficient_attention=attention, unbind=torch.unbind)
    module = importlib.import_module("stormer.models.hub.stormer")
    names = [f"v{k}" for k in range(5)]
    return module.Stormer([8, 16], names, patch_size=2, hidden_size=32, depth=2, num_heads=4)


def run(net: nn.Module, x: Tensor) -> Tensor:
    return net(x, tuple(net.variables), torch.full((len(x),), 1.2))


CASE = Case(
    "stormer.Stormer",
    {"embed": 32, "depth": 2},
    theirs,
    {"prognostic": 5},
    (8, 16),
    run,
    told={"interval": 12.0},
)
