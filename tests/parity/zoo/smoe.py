"""Layers of the published spatial mixture of experts, between convolutions, where ours has them."""

from __future__ import annotations

import importlib

from torch import Tensor, nn

from case import IN5_OUT3, Case, checkout, package


class Network(nn.Module):
    """Ours without blocks, around two layers of theirs."""

    def __init__(self) -> None:
        super().__init__()
        path = checkout("smoe")
        package(path, "smoe", "smoe.models", "smoe.utils", "smoe.data")
        layers = importlib.import_module("smoe.models.smoe")
        gates = importlib.import_module("smoe.models.smoe_gates")
        told = importlib.import_module("smoe.models.smoe_config").SpatialMoEConfig(
            in_planes=8,
            out_planes=8,
            num_experts=12,
            gate_block=lambda config: gates.SpatialLatentTensorGate2d(config, (16, 32)),
            dampen_expert_error=True,
            routing_error_quantile=0.6,
        )
        self.stem, self.head = nn.Conv2d(5, 8, 7, padding=3), nn.Conv2d(8, 3, 7, padding=3)
        self.first_experts, self.last_experts = (layers.GatedSpatialMoE2d(told) for _ in range(2))
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last_experts(self.first_experts(self.stem(x)))
        return self.head(nn.functional.leaky_relu(self.norm(x), 0.3))


CASE = Case(
    "smoe.SMoE",
    {"channels": 8, "blocks": 0, "experts": 12, "right": 0.6, "edges": "flat"},
    Network,
    IN5_OUT3,
    (16, 32),
)
