"""Attention U-Net of nonlocal_gwfluxes."""

from __future__ import annotations

import importlib
import sys

from torch import nn

from case import IN5_OUT3, Case, checkout


def theirs() -> nn.Module:
    path = checkout("nonlocal_gwfluxes")
    sys.path.insert(0, str(next(path.rglob("model_definition.py")).parent))
    module = importlib.import_module("model_definition")
    net = module.Attention_UNet(5, 3)
    widths = dict(zip((64, 128, 256, 512, 1024), (4, 6, 8, 10, 12), strict=True))  # theirs are fixed

    def narrow(ci: int) -> int:
        return widths.get(ci, ci)

    w = [narrow(c) for c in (64, 128, 256, 512, 1024)]
    net.conv1 = module.Conv_block(5, w[0])
    for k in range(1, 5):
        setattr(net, f"conv{k + 1}", module.Conv_block(w[k - 1], w[k]))
        setattr(net, f"up{k + 1}", module.Upsample(w[k], w[k - 1]))
        setattr(net, f"attn{k + 1}", module.Attention_block(w[k - 1], w[k - 1], w[k - 1] // 2))
        setattr(net, f"upconv{k + 1}", module.Conv_block(2 * w[k - 1], w[k - 1]))
    net.conv1x1 = nn.Conv2d(w[0], 3, 1)
    return net


CASE = Case(
    "attention_unet.AttentionUNet",
    {"channels": [4, 6, 8, 10, 12], "edges": "flat"},
    theirs,
    IN5_OUT3,
    (16, 32),
)
