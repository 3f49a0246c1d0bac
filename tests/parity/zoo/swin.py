"""The SwinV2 of neural-scaling-weather."""

from __future__ import annotations

import importlib
import sys
import types

import numpy as np
import torch
from torch import nn

from case import IN5_OUT3, Case, checkout, stub


def theirs() -> nn.Module:
    checkout("neural-scaling-weather")
    for name in [name for name in sys.modules if name.split(".")[0] in ("utils", "models", "distributed")]:
        del sys.modules[name]
    alone = types.SimpleNamespace(get_size=lambda name: 1, get_rank=lambda name: 0, get_world_rank=lambda: 0)
    stub("utils", comm=alone)
    stub("utils.profiler_utils", profile=lambda *args, **given: lambda function: function)
    stub("utils.misc_utils", create_dummy_metadata=None)
    stub("distributed")
    stub("distributed.helpers", compute_split_shapes=None)
    stub(
        "distributed.mappings",
        **dict.fromkeys(
            (
                "identity_forward_allreduce_backward",
                "allreduce_forward_identity_backward",
                "allgather_forward_split_backward",
                "split_forward_allgather_backward",
            ),
            lambda x, **given: x,
        ),
        roll_forward_reverseroll_backward=lambda x, shifts, dims, comm_names: x.roll(shifts, dims),
    )
    compiled, torch.compile = torch.compile, lambda function: function
    try:
        module = importlib.import_module("models.swin")
    finally:
        torch.compile = compiled
    latitude, longitude = torch.deg2rad(torch.tensor(78.75 - 22.5 * np.arange(8))), torch.arange(16) * torch.pi / 8
    x, y = latitude.cos()[:, None] * longitude.cos(), latitude.cos()[:, None] * longitude.sin()
    coords = torch.stack([x, y, latitude.sin()[:, None].expand(8, 16)], -1).float()
    return module.SwinTransformer(
        window_size=(2, 4),
        patch_size=1,
        in_chans=5,
        out_chans=3,
        embed_dim=16,
        depth=2,
        num_heads=2,
        domain_metadata={"coords": coords, "sp_shapes": [[8], [16]]},
        use_transformer_engine=False,
    )


CASE = Case(
    "swin.Swin",
    {"patch": 1, "window": [2, 4], "embed": 16, "depth": 2, "heads": 2},
    theirs,
    IN5_OUT3,
    (8, 16),
    lambda net, x: net(x[:, None])[:, 0],
)
