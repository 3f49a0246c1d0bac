"""The LSNO of torch-harmonics: Morlet filters with biases, spectral interpolation, learned rows."""

from __future__ import annotations

import importlib

from torch import nn

from case import IN5_OUT3, Case


def theirs() -> nn.Module:
    models = importlib.import_module("torch_harmonics.examples.models")
    return models.LocalSphericalNeuralOperator(
        img_size=GRID,
        scale_factor=2,
        in_chans=5,
        out_chans=3,
        embed_dim=8,
        num_layers=4,
        filter_basis_type="morlet",
        sfno_block_frequency=3,
        hard_thresholding_fraction=0.75,
        pos_embed="learnable lat",
        upsample_sht=True,
        bias=True,
    )


GRID = (16, 32)
OPTIONS = {
    "embed": 8,
    "scale_factor": 2,
    "basis": "morlet",
    "kernel": (3, 3),
    "encoder_kernel": (3, 3),
    "global_every": 3,
    "modes_fraction": 0.75,
    "position_embedding": "latitude",
    "upsampling": "spectral",
    "filter_bias": True,
    "norm": "none",
}
CASE = Case("lsno.LSNO", OPTIONS, theirs, IN5_OUT3, GRID, poles=True)
