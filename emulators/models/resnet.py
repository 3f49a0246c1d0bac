"""Residual network: pairs of convolutions at the resolution of the grid.

    x <- x + drop(norm(act(conv(drop(norm(act(conv(x)))))))),     act(x) = x for x > 0, 0.3 x elsewhere

He et al. 2016, arXiv 1512.03385; on weather Rasp & Thuerey 2021, doi 10.1029/2020MS002405, and as here, norm after the
activation, in ClimateLearn (Nguyen et al. 2023, arXiv 2307.01909), whose network this repeats, weights and all.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.convolution import SLOPE, Convolution, Edges, ResidualPair, pole_mirror
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "any",
    "parity": "ClimateLearn, 1e-5",
}
PUBLISHED = (  # names in ClimateLearn's checkpoints, and ours
    (r"image_proj\.conv\.(\w+)", r"stem.\1"),
    (r"blocks\.(\d+)\.conv1\.conv\.(\w+)", r"blocks.\1.first.\2"),
    (r"blocks\.(\d+)\.conv2\.conv\.(\w+)", r"blocks.\1.second.\2"),
    (r"blocks\.(\d+)\.norm1\.(\w+)", r"blocks.\1.norm_first.\2"),
    (r"blocks\.(\d+)\.norm2\.(\w+)", r"blocks.\1.norm_second.\2"),
    (r"(norm\.\w+)", r"\1"),
    (r"final\.conv\.(\w+)", r"head.\1"),
)


class ResNet(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon); any grid.

    channels: hidden channels. blocks: number of pairs of 3x3 convolutions between a 7x7 one at either end. dropout:
    rate in the blocks. edges: padding, `cross`, `replicate`, `zeros` or `flat` (default by the grid); published:
    `zeros`.
    """

    def __init__(
        self, world: World, *, channels: int = 64, blocks: int = 8, dropout: float = 0.0, edges: str | None = None
    ) -> None:
        super().__init__()
        if blocks < 1 or not 0.0 <= dropout < 1.0:
            raise ValueError(f"Expected at least 1 block and a dropout in [0, 1); got {blocks} and {dropout}.")
        rim = Edges(world.lat_lon, edges)
        self.stem = Convolution(world.input_channels, channels, 7, rim, mirror=pole_mirror(world))
        self.blocks = nn.ModuleList(ResidualPair(channels, dropout, rim) for _ in range(blocks))
        self.norm = nn.BatchNorm2d(channels)
        self.head = Convolution(channels, world.output_channels, 7, rim)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        x = self.stem(fields)
        for block in self.blocks:
            x = block(x)
        return self.head(F.leaky_relu(self.norm(x), SLOPE))
