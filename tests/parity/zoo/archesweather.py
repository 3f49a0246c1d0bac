"""ArchesWeather as geoarches has it."""

from __future__ import annotations

import importlib
import os
import sys
import types

import torch
from torch import Tensor, nn

from case import Case, checkout, package, stub

SURFACE, UPPER, MASKS = 4, 6, 3


def theirs() -> nn.Module:
    path = checkout("geoarches")
    package(path, "geoarches", "geoarches.backbones", "geoarches.stats")
    stub("timm", __path__=[os.path.join(path.parent, "timm", "timm")])
    stub("timm.layers", __path__=[os.path.join(path.parent, "timm", "timm", "layers")])
    stub("timm.models")
    stub("timm.models.layers", DropPath=lambda rate: nn.Identity(), trunc_normal_=nn.init.trunc_normal_)
    importlib.import_module("axial_attention")
    stub("tensordict")
    stub("tensordict.tensordict", TensorDict=Both)
    sys.modules["geoarches.stats"].__file__ = str(path)
    module = importlib.import_module("geoarches.backbones.archesweather")
    dit = importlib.import_module("geoarches.backbones.dit")
    module.importlib = types.SimpleNamespace(resources=types.SimpleNamespace(files=lambda package: path))
    load, torch.load = torch.load, lambda *args, **given: torch.zeros(MASKS, 1, 48, 80)
    try:
        embedder = module.WeatherEncodeDecodeLayer((13, 49, 80), 16, 32)
    finally:
        torch.load = load
    backbone = module.ArchesWeatherCondBackbone(
        (8, 24, 40), 16, 24, (2, 4, 4, 2), (1, 6, 10), depth_multiplier=1, axis_attn=True, mlp_layer="swiglu"
    )
    return Whole(embedder, backbone, dit.TimestepEmbedder(24), dit.TimestepEmbedder(24))


class Both(dict):
    """Hold surface and levels, as much of a TensorDict as is needed."""

    def __init__(self, device=None, batch_size=None, **parts: Tensor) -> None:
        super().__init__(parts)

    shape = property(lambda self: self["surface"].shape)
    device = property(lambda self: self["surface"].device)

    def to(self, device):
        return self


class Whole(nn.Module):
    """Join what geoarches' training joins: embedder, backbone, and the embeddings of month and hour."""

    def __init__(self, embedder: nn.Module, backbone: nn.Module, month: nn.Module, hour: nn.Module) -> None:
        super().__init__()
        self.embedder, self.backbone, self.month_embedder, self.hour_embedder = embedder, backbone, month, hour

    def forward(self, x: Tensor) -> Tensor:
        """Ours has the variables on levels first, then the surface, then the masks; time 0 is 6 h after 31 December."""
        rows = []
        for case in x.split(1):
            upper, surface, masks = case.split([13 * UPPER, SURFACE, MASKS], 1)
            self.embedder.constant_masks = masks[0, :, None, :-1]
            state = Both(surface=surface[:, :, None], level=upper.unflatten(1, (UPPER, 13)))
            condition = self.month_embedder(torch.tensor([12])) + self.hour_embedder(torch.tensor([18]))
            out = self.embedder.decode(self.backbone(self.embedder.encode(state), condition))
            rows.append(torch.cat([out["level"].flatten(1, 2), out["surface"].flatten(1, 2)], 1))
        return torch.cat(rows)


CASE = Case(
    "archesweather.ArchesWeather",
    {
        "patch": [2, 2, 2],
        "embed": 16,
        "depths": [2, 6, 6, 2],
        "heads": [2, 4, 4, 2],
        "window": [6, 10],
        "condition": 24,
        "fit": "crop",
    },
    theirs,
    {
        "prognostic": {**dict.fromkeys("zuvtqw", 13), **dict.fromkeys(("u10", "v10", "t2m", "msl"), 0)},
        "forcing": dict.fromkeys("abc", 0),
    },
    (49, 80),
)
