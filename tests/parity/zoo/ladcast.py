"""LaDCast's transformer as its repository has it."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from case import Case, checkout, package, stub

OPTIONS: dict[str, Any] = {
    "frames": 2, "heads": 2, "head": 16, "dual": 2, "single": 2, "refiner": 1, "rotary": [4, 6, 6],
}  # fmt: skip
LEVEL = -0.4


def theirs() -> nn.Module:
    importlib.import_module("diffusers")
    path = checkout("ladcast")
    package(path, "ladcast", "ladcast.models", "ladcast.evaluate")
    stub("ladcast.evaluate.utils", get_normalized_lat_weights_based_on_cos=None)
    module = importlib.import_module("ladcast.models.LaDCast_3D_model")
    return module.LaDCastTransformer3DModel(
        in_channels=3,
        out_channels=3,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        rope_axes_dim=(4, 6, 6),
        rope_spatial_grid_start_pos=(6 * 67.5, 0.0),
        rope_spatial_grid_end_pos=(-6 * 67.5, 315.0),
        spatial_deg2rad=True,
        conditioning_tensor_in_channels=3,
        conditioning_tensor_rope_axes_dim=(4, 6, 6),
        incl_time_elapsed=True,
    )


def call(net: nn.Module, fields: Tensor) -> Tensor:
    """Two frames of three channels, then three that are known, at the start of 1970."""
    noisy, known = fields.split([6, 3], 1)
    frames = noisy.unflatten(1, (2, 3)).movedim(2, 1)
    time = torch.tensor([1970010100] * len(fields))
    level = torch.full((len(fields),), LEVEL)
    out = net(frames, level, known[:, :, None], time, return_dict=False)[0]
    return out.movedim(1, 2).flatten(1, 2)


CASE = Case(
    "ladcast.LaDCast",
    OPTIONS,
    theirs,
    {"prognostic": 6, "forcing": 3},
    (4, 8),
    call=call,
    told={"scalars": [LEVEL]},
)
