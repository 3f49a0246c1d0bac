"""U-Net: convolutions on ever coarser grids and back, with skips between levels.

    down  x_k+1 = halve(blocks(x_k)),    up  x_k = blocks([double(x_k+1), x_k]),    out = head(norm(x_0)) + W fields

Group norms hide how large a field is, so that a network of residual steps could not damp what has grown too far and ran
away in long rollouts; the pointwise linear map W of the fields, zero at first, can.
Borders follow the sphere: around the globe in longitude and over the poles. Ronneberger et al. 2015, arXiv 1505.04597;
blocks: `residual`, group norm before each convolution (He et al. 2016, arXiv 1603.05027; Wu & He 2018, arXiv
1803.08494), or `convnext` (Liu et al. 2022, arXiv 2201.03545).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.convolution import Convolution, Edges, pole_mirror
from emulators.world import World

ABOUT = {
    "states": "any",
    "step": "timestep",
    "grid": "any; halved per level, others padded",
    "parity": "none: a design of our own",
}


class UNet(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon).

    channels: width of each level, finest first. blocks: number of blocks at each level, each way. block: `residual` or
    `convnext`. upsampling: `bilinear` or `transposed`. edges: padding, `cross` (over the poles), `replicate` or `zeros`
    (default by the grid). A grid whose rows or columns are no multiple of 2^(levels - 1) is padded by the same rules
    and the result cropped.
    """

    def __init__(
        self,
        world: World,
        *,
        channels: Sequence[int] = (64, 128, 256),
        blocks: int = 2,
        block: str = "residual",
        upsampling: str = "bilinear",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        widths = list(channels)
        factor = 2 ** (len(widths) - 1)
        nlat, nlon = world.lat_lon.shape
        if not widths:
            raise ValueError("Expected channels of at least one level, such as [32, 64]; got none.")
        if min(nlat, nlon) < factor:
            raise ValueError(
                f"{len(widths)} levels need a grid of at least {factor} by {factor} points; got {world.lat_lon!r}: "
                f"use at most {int(math.log2(min(nlat, nlon))) + 1} channels entries."
            )
        if upsampling not in ("bilinear", "transposed"):
            raise ValueError(f"Expected upsampling to be 'bilinear' or 'transposed'; got '{upsampling}'.")
        rim = Edges(world.lat_lon, edges)
        self.rim, self.borders = rim, _borders(nlat, nlon, factor)
        padded = any(self.borders)
        rims = [rim.coarser() if padded else rim] + [rim.coarser()] * (len(widths) - 1)
        self.mirror = pole_mirror(world)
        self.stem = Convolution(world.input_channels, widths[0], 3, rims[0], mirror=self.mirror)
        self.down = nn.ModuleList(_level(w, w, blocks, block, r) for w, r in zip(widths, rims, strict=True))
        pairs = list(pairwise(widths))
        self.coarsen = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.refine = nn.ModuleList(_refinement(coarse, fine, upsampling, rims[-1]) for fine, coarse in pairs)
        self.up = nn.ModuleList(
            _level(2 * fine, fine, blocks, block, r) for (fine, _), r in zip(pairs, rims[:-1], strict=True)
        )
        self.across = nn.Conv2d(world.input_channels, world.output_channels, 1, bias=False)
        nn.init.zeros_(self.across.weight)
        self.head = nn.Sequential(_group_norm(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], world.output_channels, 1))

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        nlat, nlon = fields.shape[-2:]
        north, south, west, east = self.borders
        x = self.stem(self.rim.pad(fields, north, south, west, east, mirror=self.mirror))
        finer = []
        for k, level in enumerate(self.down):
            x = level(x)
            if k < len(self.coarsen):
                finer.append(x)
                x = self.coarsen[k](x)
        for k in reversed(range(len(self.up))):
            x = self.up[k](torch.cat([self.refine[k](x), finer.pop()], dim=1))
        return self.head(x[..., north : north + nlat, west : west + nlon]) + self.across(fields)


class ResidualBlock(nn.Module):
    """Apply group norm, SiLU and a 3x3 convolution, twice; residual, through 1x1 if the width changes."""

    def __init__(self, into: int, out: int, edges: Edges) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _group_norm(into),
            nn.SiLU(),
            Convolution(into, out, 3, edges),
            _group_norm(out),
            nn.SiLU(),
            Convolution(out, out, 3, edges),
        )
        self.skip = nn.Conv2d(into, out, 1) if into != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.body(x)


class ConvNextBlock(nn.Module):
    """Add to the input a 7x7 convolution of each channel, a norm over channels and points, and an MLP."""

    def __init__(self, into: int, out: int, edges: Edges) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Convolution(into, into, 7, edges, groups=into),
            nn.GroupNorm(1, into),
            nn.Conv2d(into, 4 * into, 1),
            nn.GELU(),
            nn.Conv2d(4 * into, out, 1),
        )
        self.skip = nn.Conv2d(into, out, 1) if into != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.body(x)


class Bilinear(nn.Module):
    """Double the resolution by bilinear interpolation across the edges, after a 1x1 convolution to the new width."""

    def __init__(self, into: int, out: int, edges: Edges) -> None:
        super().__init__()
        self.edges = edges
        self.mix = nn.Conv2d(into, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.edges.pad(self.mix(x), 1, 1, 1, 1)
        return F.interpolate(wide, scale_factor=2, mode="bilinear", align_corners=False)[..., 2:-2, 2:-2]


def _refinement(into: int, out: int, upsampling: str, edges: Edges) -> nn.Module:
    return nn.ConvTranspose2d(into, out, 2, stride=2) if upsampling == "transposed" else Bilinear(into, out, edges)


def _level(into: int, out: int, blocks: int, block: str, edges: Edges) -> nn.Sequential:
    kinds = {"residual": ResidualBlock, "convnext": ConvNextBlock}
    if block not in kinds or blocks < 1:
        raise ValueError(f"Expected block to be 'residual' or 'convnext', at least 1 a level; got {blocks} '{block}'.")
    return nn.Sequential(*(kinds[block](into if k == 0 else out, out, edges) for k in range(blocks)))


def _group_norm(channels: int) -> nn.GroupNorm:
    """Return a group norm with groups of about 16 channels."""
    groups = max(g for g in range(1, max(1, channels // 16) + 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def _borders(nlat: int, nlon: int, factor: int) -> tuple[int, int, int, int]:
    """Return the rows and columns to add in the north, south, west and east for multiples of `factor`."""
    rows, columns = -nlat % factor, -nlon % factor
    return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2
