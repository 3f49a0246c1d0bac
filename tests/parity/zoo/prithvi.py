"""Prithvi WxC, half of its units hidden, without a climatology."""

from __future__ import annotations

import importlib

import numpy as np
import torch
from torch import Tensor, nn

from case import Case, checkout
from emulators.grid import equiangular_grid

GRID = equiangular_grid(12, 32)
VISIBLE, HIDDEN = [0, 3, 5, 6], [1, 2, 4, 7]  # of 2 x 4 units, row by row


def theirs() -> nn.Module:
    checkout("Prithvi-WxC")
    net = importlib.import_module("PrithviWxC.model").PrithviWxC(
        in_channels=3,
        input_size_time=2,
        in_channels_static=2,
        input_scalers_mu=torch.zeros(3),
        input_scalers_sigma=torch.ones(3),
        input_scalers_epsilon=0.0,
        static_input_scalers_mu=torch.zeros(5),
        static_input_scalers_sigma=torch.ones(5),
        static_input_scalers_epsilon=0.0,
        output_scalers=torch.ones(3),
        n_lats_px=12,
        n_lons_px=32,
        patch_size_px=(2, 2),
        mask_unit_size_px=(6, 8),
        mask_ratio_inputs=0.5,
        mask_ratio_targets=0.0,
        embed_dim=32,
        n_blocks_encoder=1,
        n_blocks_decoder=2,
        mlp_multiplier=4,
        n_heads=16,
        dropout=0.0,
        drop_path=0.0,
        parameter_dropout=0.0,
        residual="none",
        masking_mode="global",
        positional_encoding="fourier",
        decoder_shifting=True,
    )
    net.generate_mask = lambda sizes: tuple(torch.tensor(units).expand(sizes[0], -1) for units in (HIDDEN, VISIBLE))
    return net


def run(net: nn.Module, x: Tensor) -> Tensor:
    place = np.stack(np.meshgrid(np.deg2rad(GRID.latitude), np.deg2rad(GRID.longitude), indexing="ij"))
    place = torch.from_numpy(place.astype(np.float32)).expand(len(x), -1, -1, -1)
    return net(
        {
            "x": x[:, :6].unflatten(1, (2, 3)),
            "y": torch.zeros(len(x), 3, *GRID.shape),
            "static": torch.cat([place, x[:, 6:]], 1),
            "input_time": torch.full((len(x),), 6.0),
            "lead_time": torch.full((len(x),), 12.0),
        }
    )


CASE = Case(
    "prithvi.Prithvi",
    {"unit": [3, 4], "embed": 32, "heads": 16, "encoder": 1, "decoder": 2, "shift": "both", "climatology": False},
    theirs,
    {"prognostic": 3, "forcing": 2},
    GRID.shape,
    run,
    history=2,
    told={"interval": 12.0, "units": [2 * (k % 4) + k // 4 for k in VISIBLE]},  # ours go column by column
)
