"""The network of the ocean coupled to DLWP-HPX, in physicsnemo, without a memory."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from case import IN5_OUT3, Case, checkout, package, stub
from zoo.dlwp_hpx import cells, squares

SIDE, WIDTHS, DILATIONS = 4, [6, 4], [2, 1]
LAYERS = "physicsnemo.models.dlwp_healpix.layers"


def theirs() -> nn.Module:
    path = checkout("physicsnemo")
    parents = [".".join(LAYERS.split(".")[: n + 1]) for n in range(LAYERS.count(".") + 1)]
    padded = "physicsnemo.nn.module.hpx"
    package(path, *parents, "physicsnemo.core", "physicsnemo.nn", "physicsnemo.nn.module", padded)
    stub("jaxtyping", Float=type("Anything", (), {"__class_getitem__": lambda cls, key: Tensor}))
    stub("physicsnemo.core.version_check", check_version_spec=lambda *args, **given: False, OptionalImport=str)
    stub(padded, HEALPixLayer=importlib.import_module(f"{padded}.layers").HEALPixLayer)
    configuration = importlib.import_module("omegaconf").OmegaConf.create

    def part(name: str, **options: Any) -> dict[str, Any]:
        return {"_target_": f"{LAYERS}.{name}", **options}

    active = {"activation": {"_target_": "physicsnemo.nn.module.activations.CappedGELU", "cap_value": 10}}
    block = part("healpix_blocks.SymmetricConvNeXtBlock", kernel_size=3, upscale_factor=4, **active)
    pooled = {"_target_": f"{padded}.pool.HEALPixAvgPool", "pooling": 2}
    raised = part("healpix_blocks.TransposedConvUpsample", upsampling=2, **active)
    last = part("healpix_blocks.BasicConvBlock", kernel_size=1, n_layers=1, activation=None)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = importlib.import_module(f"{LAYERS}.healpix_encoder").UNetEncoder(
                configuration(block), configuration(pooled), None, 5, WIDTHS, [1, 1], DILATIONS
            )
            self.decoder = importlib.import_module(f"{LAYERS}.healpix_decoder").UNetDecoder(
                configuration(block), configuration(raised), configuration(last), None, WIDTHS[::-1], [1, 1], 3,
                DILATIONS[::-1],
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            faces = squares(x, SIDE)
            return cells(self.decoder(self.encoder(faces.flatten(0, 1))).unflatten(0, faces.shape[:2]))

    return Whole()


CASE = Case(
    "dlwp_hpx.DLWPHEALPix",
    {"channels": WIDTHS, "dilation": DILATIONS, "block": "symmetric", "recurrent": False},
    theirs,
    IN5_OUT3,
    f"healpix:{SIDE}:nested",
)
