"""A residual network whose first and last layers know where they are: spatial mixtures of experts.

    x = experts(conv(fields));    blocks;    fields = conv(act(norm(experts'(x))))

Dryden & Hoefler 2022, arXiv 2211.13491, put such layers into the ResNet of Rasp & Thuerey 2021, doi
10.1029/2020MS002405. The layer is at parity with theirs, gradients and damping of errors too; the network is after the
paper, not parity-tested, as its code has not been published. Left open by the paper and chosen here: the places of
the two layers, as many experts chosen as there are channels, twice as many to choose from, routing by classification
with the loss of the labels unweighted, and the blocks of ClimateLearn's ResNet.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.convolution.mixture_of_experts import SpatialExperts
from emulators.layers.convolution.padding import Convolution, Edges
from emulators.layers.convolution.residual import SLOPE, ResidualPair
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "any",
    "parity": "the layer: spcl/smoe, 1e-5",
}
PUBLISHED = (  # names of a layer in the published code, and ours
    (r"((?:first|last)_experts)\.smoe\.experts\.weight", r"\1.experts.weight"),
    (r"((?:first|last)_experts)\.gate\.latent_routing", r"\1.gate"),
    (r"((?:stem|norm|head)\.\w+)", r"\1"),
)


class SMoE(nn.Module):
    """fields (batch, input channel, lat, lon) -> (batch, output channel, lat, lon); any grid, the same ever after.

    channels: inside. blocks: pairs of 3x3 convolutions. experts: of either layer, more than channels. routing, right,
    damping: see emulators.layers.convolution.mixture_of_experts. dropout: in the blocks. edges: what lies beyond the
    rim, see emulators.layers.convolution.padding.
    """

    def __init__(
        self,
        world: World,
        *,
        channels: int = 32,
        blocks: int = 4,
        experts: int = 64,
        routing: str = "classification",
        right: float = 0.7,
        damping: bool = True,
        dropout: float = 0.0,
        edges: str | None = None,
    ) -> None:
        super().__init__()
        if blocks < 0 or not 0.0 <= dropout < 1.0:
            raise ValueError(f"Expected no negative number of blocks and a dropout in [0, 1); got {blocks}, {dropout}.")
        rim = Edges(world.grid, edges)
        self.stem = Convolution(world.input_channels, channels, 7, rim)
        self.first_experts, self.last_experts = (
            SpatialExperts(
                channels, channels, experts, world.grid.shape, rim, routing=routing, right=right, damping=damping
            )
            for _ in range(2)
        )
        self.blocks = nn.Sequential(*(ResidualPair(channels, dropout, rim) for _ in range(blocks)))
        self.norm = nn.BatchNorm2d(channels)
        self.head = Convolution(channels, world.output_channels, 7, rim)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        x = self.blocks(self.first_experts(self.stem(fields)))
        return self.head(F.leaky_relu(self.norm(self.last_experts(x)), SLOPE))
