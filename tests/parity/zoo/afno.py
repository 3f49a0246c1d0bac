"""FourCastNet's AFNO."""

from __future__ import annotations

import importlib
import types

import numpy as np
from torch import nn

from case import IN5_OUT3, Case, checkout, stub


def theirs() -> nn.Module:
    checkout("FourCastNet")
    stub("numpy.lib.arraypad", pad=np.pad)
    stub("timm.models.layers", DropPath=nn.Identity, trunc_normal_=nn.init.trunc_normal_)
    stub("utils")
    stub("utils.img_utils", PeriodicPad2d=nn.Identity)
    module = importlib.import_module("networks.afnonet")
    params = types.SimpleNamespace(patch_size=2, N_in_channels=5, N_out_channels=3, num_blocks=4)
    return module.AFNONet(params, img_size=(16, 32), embed_dim=32, depth=2)


CASE = Case("afno.AFNO", {"embed": 32, "depth": 2, "blocks": 4}, theirs, IN5_OUT3, (16, 32))
