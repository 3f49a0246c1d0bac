"""ResNet of ClimateLearn."""

from __future__ import annotations

from torch import nn

from case import IN5_OUT3, Case
from zoo.vit import climate_learn


def theirs() -> nn.Module:
    return climate_learn("resnet").ResNet(5, 3, hidden_channels=16, n_blocks=3)


CASE = Case("resnet.ResNet", {"channels": 16, "blocks": 3, "edges": "zeros"}, theirs, IN5_OUT3, (16, 32))
