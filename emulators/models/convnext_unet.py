"""Dilated U-Net of an ocean emulator: wide 3x3 convolutions, dilated more on coarser levels, and additive skips.

    block(x) = skip(x) + W act(norm(K2 act(norm(K1 x)))),     act(x) = min(gelu(x), 10)

K1 widens by a factor, both K are dilated, W is 1x1. Down by means of 2x2 points, up by bilinear interpolation.
Samudra: Dheeshjith et al. 2025, doi 10.1029/2024GL114318 (arXiv 2412.03795), whose network this repeats, weights and
all; after the ConvNeXt of Karlbauer et al. 2024, arXiv 2311.06253. Samudra's states are pairs of means over five days:
two states go in, two come out; here these are the channels of one state, and land is left to the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.patches import Frame
from emulators.layers.convolution import Convolution, Edges, pole_mirror
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "any; halved per level, others padded",
    "parity": "Samudra, 1e-5",
}
CAP = 10.0  # of the activation


class ConvNextUNet(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon).

    channels: width of each level, finest first. dilation: that of each level's convolutions; one more block below the
    coarsest level, at half its resolution, has the same width and dilation. widening: channels inside a block as a
    multiple of its input's. norm: `batch`, `instance` or `none`. periodic: interpolate across the end of the
    longitudes. edges: padding of convolutions, see emulators.layers.convolution; published: `zeros`. fit: how rows and
    columns become multiples of 2^levels, see emulators.layers.attention.patches.Frame, or `uneven`: drop the last of an
    odd number on the way down and fill with zeros on the way up, as published.
    """

    def __init__(
        self,
        world: World,
        *,
        channels: Sequence[int] = (32, 48, 64),
        dilation: Sequence[int] = (1, 2, 4),
        widening: int = 4,
        norm: str = "batch",
        periodic: bool = True,
        edges: str | None = None,
        fit: str = "pad",
    ) -> None:
        super().__init__()
        widths, dilations = list(channels), list(dilation)
        if not widths or len(widths) != len(dilations) or min(dilations) < 1:
            raise ValueError(
                f"Expected one dilation of at least 1 for each of channels; got {len(widths)} channels and {dilations}."
            )
        factor = 2 ** len(widths)
        if min(world.lat_lon.shape) < factor and fit == "uneven":
            raise ValueError(f"{len(widths)} levels need a grid of {factor}x{factor} at least; got {world.lat_lon!r}.")
        self.frame = None if fit == "uneven" else Frame(world.lat_lon, factor, factor, fit, edges)
        self.mirror = pole_mirror(world)
        fine = Edges(world.lat_lon, edges)
        coarse = fine.coarser()
        first = fine if self.frame is None or self.frame.shape == world.lat_lon.shape else coarse

        def block(into: int, out: int, spread: int, rim: Edges = coarse) -> Block:
            return Block(into, out, spread, widening, norm, rim)

        ends = list(zip(pairwise([world.input_channels, *widths]), dilations, strict=True))
        self.down = nn.ModuleList(block(a, b, d, first if k == 0 else coarse) for k, ((a, b), d) in enumerate(ends))
        cast(Block, self.down[0]).first.mirror = self.mirror
        self.middle = block(widths[-1], widths[-1], dilations[-1])
        back = [(b, a, d) for (a, b), d in zip(pairwise(widths), dilations[1:], strict=True)]
        last = dilations[1] if len(dilations) > 1 else dilations[0]
        self.up = nn.ModuleList([block(widths[0], widths[0], last, first), *(block(*step) for step in back)])
        self.periodic = periodic and fine.cyclic
        self.head = Convolution(widths[0], world.output_channels, 3, first)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        x, finer = fields if self.frame is None else self.frame.inward(fields, self.mirror), []
        for level in self.down:
            finer.append(level(x))
            x = F.avg_pool2d(finer[-1], 2)
        x = self.middle(x)
        for k in reversed(range(len(self.up))):
            x = self.up[k](_filled(self._doubled(x), finer[k]) + finer[k])
        x = self.head(x)
        return x if self.frame is None else self.frame.outward(x)

    def _doubled(self, x: Tensor) -> Tensor:
        if self.periodic:
            x = F.pad(x, (1, 1, 0, 0), mode="circular")
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return x[..., 2:-2] if self.periodic else x


class Block(nn.Module):
    """Add to the input (through 1x1 if the width changes) two dilated 3x3 convolutions, normed and capped, and 1x1."""

    def __init__(self, into: int, out: int, dilation: int, widening: int, norm: str, rim: Edges) -> None:
        super().__init__()
        inside = widening * into
        self.skip = nn.Conv2d(into, out, 1) if into != out else nn.Identity()
        self.first = Convolution(into, inside, 3, rim, dilation=dilation)
        self.second = Convolution(inside, inside, 3, rim, dilation=dilation)
        self.norm_first, self.norm_second = _norm(norm, inside), _norm(norm, inside)
        self.mix = nn.Conv2d(inside, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = _capped(F.gelu(self.norm_first(self.first(x))))
        h = _capped(F.gelu(self.norm_second(self.second(h))))
        return self.skip(x) + self.mix(h)


def _capped(x: Tensor) -> Tensor:
    """Return x, never as low as -1, limited to CAP; one pass backward, where clamp takes three."""
    return F.hardtanh(x, -1.0, CAP)


def _norm(kind: str, channels: int) -> nn.Module:
    kinds = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}
    if kind not in (*kinds, "none"):
        raise ValueError(f"Expected norm to be 'batch', 'instance' or 'none'; got '{kind}'.")
    return kinds[kind](channels) if kind in kinds else nn.Identity()


def _filled(x: Tensor, goal: Tensor) -> Tensor:
    """Return x padded with zeros to the size of `goal`, at most one row or column more."""
    rows, columns = (wide - narrow for wide, narrow in zip(goal.shape[-2:], x.shape[-2:], strict=True))
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)) if rows or columns else x


def adapted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return Samudra's weights under our names; every second entry of its list of blocks is a resampling."""
    levels = max(int(name.split(".")[2]) for name in theirs if name.startswith("unet.")) // 4
    blocks = [*(f"down.{k}" for k in range(levels)), "middle", *(f"up.{k}" for k in reversed(range(levels)))]
    inside = {"0": "first", "1": "norm_first", "3": "second", "4": "norm_second", "6": "mix"}
    ours = {}
    for name, value in theirs.items():
        words = name.removeprefix("unet.").split(".")
        if words[0] == "decoder":
            ours[f"head.{words[1]}"] = value
        elif words[2] == "skip_module":
            ours[f"{blocks[int(words[1]) // 2]}.skip.{words[-1]}"] = _pointwise(value)
        elif words[3] in inside:
            layer = inside[words[3]]
            ours[f"{blocks[int(words[1]) // 2]}.{layer}.{words[-1]}"] = _pointwise(value) if layer == "mix" else value
    return ours


def _pointwise(value: Tensor) -> Tensor:
    """Return the matrix of a linear map as that of a 1x1 convolution."""
    return value[:, :, None, None] if value.ndim == 2 else value
