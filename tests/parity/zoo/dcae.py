"""LaDCast's deep-compression autoencoder as its repository has it, but for the kernels that it mirrors at the poles."""

from __future__ import annotations

import importlib
import sys

import torch.nn.functional as F
from torch import Tensor, nn

from case import Case, checkout, package

OPTIONS = {
    "latents": 4,
    "channels": [8, 16, 16],
    "blocks": [1, 2, 1],
    "kinds": ["residual", "attention", "attention"],
    "head": 8,
}


def theirs() -> nn.Module:
    importlib.import_module("diffusers")
    path = checkout("ladcast")
    package(path, "ladcast", "ladcast.models")
    sphere = importlib.import_module("ladcast.models.sphere_conv").SphereConv2d
    sphere.forward = unmirrored
    module = importlib.import_module("ladcast.models.DCAE")
    assert sys.modules["ladcast.models.sphere_conv"].SphereConv2d is sphere
    sizes = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {
            "block_types": ("ResBlock", "EfficientViTBlock", "EfficientViTBlock"),
            "block_out_channels": tuple(OPTIONS["channels"]),
            "layers_per_block": tuple(OPTIONS["blocks"]),
            "qkv_multiscales": ((), (5,), (5,)),
        }.items()
    }
    return module.AutoencoderDC(
        in_channels=5, out_channels=5, latent_channels=4, attention_head_dim=8, static_channels=None, **sizes
    )


def unmirrored(self, x: Tensor) -> Tensor:
    padded = self.sphere_pad(x, padding=self.padding)
    return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


CASE = Case(
    "dcae.DCAE",
    OPTIONS,
    theirs,
    {"prognostic": 5},
    (16, 32),
    call=lambda net, fields: net(fields, return_dict=False)[0],
)
