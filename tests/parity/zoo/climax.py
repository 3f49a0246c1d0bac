"""ClimaX."""

from __future__ import annotations

import importlib

import numpy as np
import torch
from torch import Tensor, nn

from case import Case, checkout, package, stub


def old_timm() -> None:
    """Blocks that also know what timm 0.6 called their options."""
    layers = importlib.import_module("timm.models.vision_transformer")
    new = getattr(layers, "_new_block", layers.Block)
    layers._new_block = new
    layers.Block = lambda *args, drop=None, **given: new(
        *args, **({"proj_drop": drop} if drop is not None else {}), **given
    )


def theirs() -> nn.Module:
    path = checkout("ClimaX", "src")
    package(path, "climax", "climax.utils")
    stub("climax.parallelpatchembed", ParallelVarPatchEmbed=None)
    np.float = float  # as numpy had it
    old_timm()
    module = importlib.import_module("climax.arch")
    names = [f"v{k}" for k in range(5)]
    return module.ClimaX(names, [8, 16], patch_size=2, embed_dim=32, depth=2, decoder_depth=2, num_heads=4)


def run(net: nn.Module, x: Tensor) -> Tensor:
    lead = torch.full((len(x),), 0.24)
    tokens = net.forward_encoder(x, lead, tuple(net.default_vars))
    return net.unpatchify(net.head(tokens))


CASE = Case(
    "climax.ClimaX",
    {"embed": 32, "depth": 2},
    theirs,
    {"prognostic": 5},
    (8, 16),
    run,
    told={"interval": 24.0},
)
