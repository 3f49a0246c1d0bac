"""Attention U-Net: a U-Net whose finer levels pass through gates that the coarser ones control.

    skip <- skip * sigmoid(psi(relu(W_x skip + W_g coarse))),     psi: one map of numbers between 0 and 1

Oktay et al. 2018, arXiv 1804.03999; layout and sizes of the emulator of gravity-wave fluxes of Gupta et al. 2025,
doi 10.1029/2024JH000446 (arXiv 2406.14775), whose network this repeats, weights and all.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.patches import Frame
from emulators.layers.convolution import Convolution, Edges, pole_mirror
from emulators.layers.sample_draws import dropout
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "any; halved 4 times, others padded",
    "parity": "nonlocal_gwfluxes, 1e-5",
}


class AttentionUNet(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon).

    channels: width of each level, finest first. dropout: rate after every level on the way down except the coarsest.
    edges: padding of convolutions, `cross`, `replicate`, `zeros` or `flat` (default by the grid); published: `flat`.
    fit: how rows and columns become multiples of 2^(levels - 1), see emulators.layers.attention.patches.Frame.
    """

    def __init__(
        self,
        world: World,
        *,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        dropout: float = 0.0,
        edges: str | None = None,
        fit: str = "pad",
    ) -> None:
        super().__init__()
        widths = list(channels)
        if len(widths) < 2 or not 0.0 <= dropout < 1.0:
            raise ValueError(f"Expected at least 2 levels and a dropout in [0, 1); got {len(widths)} and {dropout}.")
        factor = 2 ** (len(widths) - 1)
        self.frame, self.dropout = Frame(world.lat_lon, factor, factor, fit, edges), dropout
        self.mirror = pole_mirror(world)
        rim = Edges(world.lat_lon, edges)
        rims = [rim if self.frame.shape == world.lat_lon.shape else rim.coarser()] + [rim.coarser()] * (len(widths) - 1)
        ends = pairwise([world.input_channels, *widths])
        self.down = nn.ModuleList(_pair(a, b, r) for (a, b), r in zip(ends, rims, strict=True))
        cast(Convolution, cast(nn.Sequential, self.down[0])[0]).mirror = self.mirror
        steps = [(fine, coarse, r) for (fine, coarse), r in zip(pairwise(widths), rims[:-1], strict=True)]
        self.rise = nn.ModuleList(nn.Sequential(*_layer(coarse, fine, r), nn.ReLU()) for fine, coarse, r in steps)
        self.gates = nn.ModuleList(Gate(fine, r) for fine, _, r in steps)
        self.up = nn.ModuleList(_pair(2 * fine, fine, r) for fine, _, r in steps)
        self.head = nn.Conv2d(widths[0], world.output_channels, 1)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        x, finer = self.frame.inward(fields, self.mirror), []
        for k, level in enumerate(self.down):
            x = level(F.max_pool2d(x, 2) if k else x)
            if k < len(self.up):
                x = dropout(x, self.dropout, self.training)
                finer.append(x)
        for k in reversed(range(len(self.up))):
            x = self.rise[k](F.interpolate(x, scale_factor=2, mode="nearest"))
            x = self.up[k](torch.cat([x, self.gates[k](finer[k], x)], dim=1))
        return self.frame.outward(self.head(x))


class Gate(nn.Module):
    """Multiply the finer level by a map of numbers in 0..1, made from it and the coarser level."""

    def __init__(self, channels: int, rim: Edges) -> None:
        super().__init__()
        inside = max(1, channels // 2)
        self.of_finer = nn.Sequential(*_layer(channels, inside, rim))
        self.of_coarser = nn.Sequential(*_layer(channels, inside, rim))
        self.opening = nn.Sequential(*_layer(inside, 1, rim))

    def forward(self, finer: Tensor, coarser: Tensor) -> Tensor:
        return finer * torch.sigmoid(self.opening(F.relu(self.of_finer(finer) + self.of_coarser(coarser))))


def _layer(into: int, out: int, rim: Edges) -> tuple[nn.Module, nn.Module]:
    return Convolution(into, out, 3, rim), nn.BatchNorm2d(out)


def _pair(into: int, out: int, rim: Edges) -> nn.Sequential:
    """Return two layers, each a 3x3 convolution, batch norm and ReLU."""
    return nn.Sequential(*_layer(into, out, rim), nn.ReLU(), *_layer(out, out, rim), nn.ReLU())


PUBLISHED = (  # names in the published checkpoints, which count levels from 1, and ours
    *(
        pair
        for k in range(5)
        for pair in (
            (rf"conv{k + 1}\.conv\.(.*)", rf"down.{k}.\1"),
            (rf"up{k + 2}\.up\.1\.(.*)", rf"rise.{k}.0.\1"),
            (rf"up{k + 2}\.up\.2\.(.*)", rf"rise.{k}.1.\1"),
            (rf"attn{k + 2}\.Wx\.(.*)", rf"gates.{k}.of_finer.\1"),
            (rf"attn{k + 2}\.Wg\.(.*)", rf"gates.{k}.of_coarser.\1"),
            (rf"attn{k + 2}\.Psi\.(.*)", rf"gates.{k}.opening.\1"),
            (rf"upconv{k + 2}\.conv\.(.*)", rf"up.{k}.\1"),
        )
    ),
    (r"conv1x1\.(\w+)", r"head.\1"),
)
