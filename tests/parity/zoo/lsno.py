"""The LSNO of torch-harmonics: hat functions on rings and sectors, linear interpolation."""

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
        normalization_layer="instance_norm",
        kernel_shape=(5, 4),
        encoder_kernel_shape=(4, 3),
        filter_basis_type="piecewise linear",
    )


GRID = (16, 32)
OPTIONS = {"embed": 8, "scale_factor": 2, "kernel": (5, 4), "encoder_kernel": (4, 3)}
CASE = Case("lsno.LSNO", OPTIONS, theirs, IN5_OUT3, GRID, poles=True)
