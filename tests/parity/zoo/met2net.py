"""Met2Net, the first of the frames that it writes."""

from __future__ import annotations

import importlib
import sys

from torch import Tensor, nn

from case import Case, checkout, package, stub


def theirs() -> nn.Module:
    path = checkout("Met2Net")
    package(path, "openstl", "openstl.models", "openstl.models.ITS", "openstl.models.simvp_ema")
    package(path, "openstl.modules")
    stub("torchinfo", summary=None)
    modules = importlib.import_module("openstl.modules.simvp_modules")
    stub("torchvision")  # after timm, which would use it
    stub("torchvision.transforms")
    for name in vars(modules):
        if name.endswith("SubBlock") or name in ("ConvSC", "gInception_ST"):
            setattr(sys.modules["openstl.modules"], name, getattr(modules, name))
    module = importlib.import_module("openstl.models.ITS.med_ciatt_mutinums")
    return module.SimVP_Model((4, 3, 16, 32), hid_S=4, hid_T=16, N_S=4, N_T=2)


def run(net: nn.Module, x: Tensor) -> Tensor:
    return net.sample(x.unflatten(1, (4, 3)))[:, 0]


CASE = Case(
    "met2net.Met2Net",
    {"hidden": 4, "levels": 2, "embed": 16, "depth": 2, "inner_edges": "flat"},
    theirs,
    {"prognostic": 3},
    (16, 32),
    run,
    history=4,
)
