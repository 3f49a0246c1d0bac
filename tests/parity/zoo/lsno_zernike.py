"""The LSNO of torch-harmonics: Zernike polynomials."""

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
        kernel_shape=(2,),
        encoder_kernel_shape=(3,),
        filter_basis_type="zernike",
    )


GRID = (24, 48)
OPTIONS = {"embed": 8, "scale_factor": 2, "basis": "zernike", "kernel": (2,), "encoder_kernel": (3,), "norm": "none"}
CASE = Case("lsno.LSNO", OPTIONS, theirs, IN5_OUT3, GRID, poles=True)
