"""Convolutions on latitude-longitude fields, whose borders go around the globe, over the poles or past an area's edge.

A step over the pole comes down on the opposite meridian: the rows beyond the first are the first rows in reverse order,
shifted by half the longitudes, with components of winds turned; on a grid with a row at the pole itself that row is not
repeated. A residual pair is

    x <- x + drop(norm(act(conv(drop(norm(act(conv(x)))))))),     act(x) = x for x > 0, 0.3 x elsewhere

(He et al. 2016, arXiv 1512.03385; as in ClimateLearn, Nguyen et al. 2023, arXiv 2307.01909).

Components of vectors, u and v of winds, eastward and northward anything else, are known by their names. Beyond a pole
east and north point the other way:

    x = sign x - 2 mean / std   (normalised),    sign = -1 for components, 1 for scalars
"""

from __future__ import annotations

import re

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.grid import LatLonGrid
from emulators.layers.sample_draws import dropout
from emulators.world import World

EDGES = ("cross", "credit", "replicate", "reflect", "zeros", "flat")
OVER_POLES = ("cross", "credit")


class Edges:
    """Pad fields beyond the edges of a grid: longitudes are periodic on a cyclic grid, the rest depends on `kind`.

    kind: `cross` (over the poles; global grids), `credit` (the same with winds unturned, as in CREDIT), `replicate`
    (repeat the outermost value), `reflect` (mirror the inner values), `zeros`, `flat` (zeros on all four sides,
    longitudes not periodic), or None for `cross` on a global grid and `replicate` on any other, including one row at
    the equator, which has no poles. Over the poles components of winds change sign where they are known by name, in
    the input fields; of inner channels nothing is known. Raises ValueError for a kind that the grid does not allow.
    """

    def __init__(self, grid: LatLonGrid, kind: str | None = None) -> None:
        is_global = grid.kind != "limited_area" and grid.shape[0] > 1
        kind = kind or ("cross" if is_global and grid.shape[1] % 2 == 0 else "replicate")
        if kind not in EDGES:
            raise ValueError(f"Expected edges to be one of {', '.join(EDGES)}; got '{kind}'.")
        if kind in OVER_POLES and not (is_global and grid.shape[1] % 2 == 0):
            raise ValueError(
                "Padding over the poles needs a global grid of several rows and an even number of longitudes; "
                f"got {grid!r}: use edges=replicate."
            )
        self.kind, self.cyclic = kind, grid.is_cyclic and kind != "flat"
        self.pole_rows = grid.kind == "equiangular_with_poles"

    def coarser(self) -> Edges:
        """Return the edges of a coarser level, whose rows do not lie on the poles."""
        edges = object.__new__(Edges)
        edges.kind, edges.cyclic, edges.pole_rows = self.kind, self.cyclic, False
        return edges

    def pad(
        self, x: Tensor, north: int, south: int, west: int, east: int, *, mirror: PoleMirror | None = None
    ) -> Tensor:
        """Return (batch, channel, lat, lon) with the given numbers of rows and columns added.

        mirror: turns the components of vectors beyond the poles, if x are input fields.
        """
        columns = x.shape[-1]
        if self.kind in OVER_POLES and (north or south):
            x = self._over_the_poles(x, north, south, mirror if self.kind == "cross" else None)
        elif north or south:
            x = _pad(x, (0, 0, north, south), self.kind)
        if self.cyclic and max(west, east) > columns:  # more than once around
            return x[..., torch.arange(-west, columns + east, device=x.device) % columns]
        if west or east:
            x = _pad(x, (west, east, 0, 0), "circular" if self.cyclic else self.kind)
        return x

    def _over_the_poles(self, x: Tensor, north: int, south: int, mirror: PoleMirror | None) -> Tensor:
        first, rows = int(self.pole_rows), x.shape[-2]
        beyond = x if mirror is None else mirror(x)
        if max(north, south) + first <= rows:
            return torch.cat([_far(beyond, first, north), x, _far(beyond, rows - first - south, south)], dim=-2)
        ring = torch.cat([x, _far(beyond, first, rows - 2 * first)], dim=-2)  # once around through both poles
        return ring[..., torch.arange(-north, rows + south, device=x.device) % ring.shape[-2], :]


def _far(x: Tensor, start: int, rows: int) -> Tensor:
    """Return rows in the order in which they follow on the opposite meridian."""
    return x.narrow(-2, start, rows).flip(-2).roll(x.shape[-1] // 2, dims=-1)


def _pad(x: Tensor, sizes: tuple[int, int, int, int], kind: str) -> Tensor:
    return F.pad(x, sizes) if kind in ("zeros", "flat") else F.pad(x, sizes, mode=kind)


class Convolution(nn.Conv2d):
    """Convolve (batch, channel, lat, lon) with an odd kernel, padded by `edges` so that the size stays the same.

    mirror: see Edges.pad.
    """

    def __init__(
        self,
        into: int,
        out: int,
        kernel: int,
        edges: Edges,
        *,
        groups: int = 1,
        dilation: int = 1,
        bias: bool = True,
        mirror: PoleMirror | None = None,
    ) -> None:
        super().__init__(into, out, kernel, groups=groups, dilation=dilation, bias=bias)
        self.mirror = mirror
        if kernel % 2 == 0:
            raise ValueError(f"Expected an odd kernel size; got {kernel}.")
        self.edges, self.border = edges, dilation * (kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.edges.kind == "flat":  # the convolution's own zeros need no copy
            return F.conv2d(x, self.weight, self.bias, padding=self.border, dilation=self.dilation, groups=self.groups)
        if self.border:
            x = self.edges.pad(x, *[self.border] * 4, mirror=self.mirror)
        return super().forward(x)


SLOPE = 0.3  # of the activation below zero


class ResidualPair(nn.Module):
    """Add to the input two 3x3 convolutions, each with activation, batch norm and dropout."""

    def __init__(self, channels: int, dropout: float, rim: Edges) -> None:
        super().__init__()
        self.first, self.second = (Convolution(channels, channels, 3, rim) for _ in range(2))
        self.norm_first, self.norm_second = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for convolution, norm in ((self.first, self.norm_first), (self.second, self.norm_second)):
            h = dropout(norm(F.leaky_relu(convolution(h), SLOPE)), self.dropout, self.training)
        return h + x


COMPONENT = re.compile(r"(^|_)([uv]_component|eastward|northward)_")


class PoleMirror(nn.Module):
    """Turn normalised input fields (batch, channel, row, lon) that are seen from beyond a pole.

    signs, offsets: of each input channel, (channel, 1, 1).
    """

    signs: Tensor
    offsets: Tensor

    def __init__(self, signs: np.ndarray | Tensor, offsets: np.ndarray | Tensor) -> None:
        super().__init__()
        for name, values in (("signs", signs), ("offsets", offsets)):
            table = torch.as_tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
            self.register_buffer(name, table, persistent=False)

    def reorder(self, places: Tensor) -> None:
        """Take the channels in another order, that of weights published elsewhere."""
        self.signs, self.offsets = self.signs[places], self.offsets[places]

    def forward(self, rows: Tensor) -> Tensor:
        """Turn rows of all input channels, or of the last of them."""
        count = rows.shape[1]
        return rows * self.signs[-count:].to(rows.dtype) + self.offsets[-count:].to(rows.dtype)


def pole_mirror(world: World) -> PoleMirror | None:
    """Return the mirror of the input channels of a world; None if there are no components of vectors among them."""
    sets = (*[world.prognostic] * world.history, world.forcing, world.static)
    vectors = [bool(COMPONENT.search(variable.name)) for each in sets for variable in each for _ in variable.channels]
    if not any(vectors):
        return None
    scales = [world.scales.get(channel) for each in sets for channel in each.channels]
    offsets = [-2.0 * s.mean / s.std if is_vector and s else 0.0 for is_vector, s in zip(vectors, scales, strict=True)]
    return PoleMirror(np.where(vectors, -1.0, 1.0), np.array(offsets))


def reorder_mirrors(network: nn.Module, places: Tensor) -> None:
    """Let the mirrors of a network take its input channels in another order."""
    for module in network.modules():
        if isinstance(module, PoleMirror):
            module.reorder(places)
