"""Samudra."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from case import IN5_OUT3, Case, checkout, package, stub


def theirs() -> nn.Module:
    path = checkout("Samudra", "src")
    package(path, "samudra", "samudra.models", "samudra.models.modules", "samudra.utils")
    anything = type("Anything", (), {"__getitem__": lambda self, key: Tensor})()
    stub("jaxtyping", Float=anything, Int=anything, Bool=anything)
    stub("samudra.utils.train", pairwise=importlib.import_module("itertools").pairwise)
    blocks = importlib.import_module("samudra.models.modules.blocks")
    backbone = importlib.import_module("samudra.models.modules.unet_backbone").UNetBackbone

    def block(**given: Any) -> nn.Module:
        return blocks.ConvNeXtBlock(kernel_size=3, upscale_factor=2, **given)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = backbone(
                5,
                [6, 8, 10],
                [1, 2, 3],
                [1, 1, 1],
                "circular",
                block,
                blocks.AvgPool(2),
                lambda **_: blocks.ZonallyPeriodicBilinearUpsample(2),
                None,
            )
            self.decoder = nn.Conv2d(6, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.pad(self.unet(x), (1, 1, 0, 0), mode="circular")
            return self.decoder(nn.functional.pad(x, (0, 0, 1, 1)))

    return Whole()


CASE = Case(
    "convnext_unet.ConvNextUNet",
    {"channels": [6, 8, 10], "dilation": [1, 2, 3], "widening": 2, "edges": "zeros", "fit": "uneven"},
    theirs,
    IN5_OUT3,
    (20, 36),
)
