"""ViT of ClimateLearn."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from case import IN5_OUT3, Case, checkout, package, stub


def climate_learn(network: str) -> Any:
    path = checkout("climate-learn", "src")
    package(path, "climate_learn", "climate_learn.models", "climate_learn.models.hub")
    stub("climate_learn.models.hub.utils", register=lambda name: lambda kind: kind)
    return importlib.import_module(f"climate_learn.models.hub.{network}")


def theirs() -> nn.Module:
    return climate_learn("vit").VisionTransformer(
        (16, 32), 5, 3, 1, patch_size=2, embed_dim=32, depth=2, decoder_depth=2, num_heads=4, learn_pos_emb=True
    )


CASE = Case("vit.ViT", {"embed": 32, "depth": 2, "heads": 4, "positions": "learned"}, theirs, IN5_OUT3, (16, 32))
