"""Patches: a field cut into equal rectangles, one token each, and put together again.

    token(i, j) = W x[i p : (i + 1) p, j q : (j + 1) q] + b,     x[i p + r, j q + s, c] = token(i, j)[r, s, c]

Dosovitskiy et al. 2021, arXiv 2010.11929. A grid that patches do not tile is padded or cropped first, see Frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.grid import LatLonGrid
from emulators.layers.convolution import Edges, PoleMirror

FITS = ("pad", "crop", "exact")


class Frame:
    """Pad or crop a grid to multiples of `rows` and `columns`, and bring fields back to the grid.

    kind: `pad` adds rows and columns as `edges` define; `crop` leaves out rows in the south, which the output repeats
    from the last row kept, and pads columns; `exact` refuses a grid that does not fit. edges: see
    `layers.convolution.Edges`. margin: rows and columns added on all four sides in any case. shape: that of the fitted
    fields. Raises ValueError for other options, and for a grid that does not fit with `exact`.
    """

    def __init__(
        self,
        grid: LatLonGrid,
        rows: int,
        columns: int,
        kind: str = "pad",
        edges: str | None = None,
        *,
        margin: int = 0,
    ) -> None:
        if kind not in FITS or min(rows, columns, margin + 1) < 1:
            raise ValueError(
                f"Expected fit to be one of {', '.join(FITS)}, patches of at least 1 and no negative margin; "
                f"got '{kind}', {rows}x{columns} and {margin}."
            )
        nlat, nlon = (size + 2 * margin for size in grid.shape)
        nearest = max(rows, round(nlat / rows) * rows), max(columns, round(nlon / columns) * columns)
        if kind == "exact" and nearest != (nlat, nlon):
            raise ValueError(
                f"Expected a grid with a multiple of {rows} rows and of {columns} columns; got {grid!r}. "
                f"Regrid to {nearest[0] - 2 * margin}x{nearest[1] - 2 * margin}, or take fit=pad."
            )
        self.grid_shape = grid.shape
        self.cropped = nlat % rows if kind == "crop" and nlat > rows else 0
        taller, wider = (0 if self.cropped else -nlat % rows), -nlon % columns
        self.borders = tuple(margin + n for n in (taller // 2, taller - taller // 2, wider // 2, wider - wider // 2))
        self.shape = nlat - self.cropped + taller, nlon + wider
        self.rim = Edges(grid, edges)

    def inward(self, x: Tensor, mirror: PoleMirror | None = None) -> Tensor:
        """Fit (batch, channel, lat, lon) on the grid to (batch, channel, *shape). mirror: see `Edges.pad`."""
        if self.cropped:
            x = x[..., : -self.cropped, :]
        return self.rim.pad(x, *self.borders, mirror=mirror) if any(self.borders) else x

    def outward(self, x: Tensor) -> Tensor:
        """Bring (batch, channel, *shape) back to (batch, channel, lat, lon) on the grid."""
        north, _, west, _ = self.borders
        nlat, nlon = self.grid_shape
        x = x[..., north : north + nlat, west : west + nlon]
        return F.pad(x, (0, 0, 0, self.cropped), mode="replicate") if self.cropped else x


class PatchEmbedding(nn.Module):
    """Map every patch linearly: (batch, channel, lat, lon) -> tokens (batch, lat / p, lon / q, width)."""

    def __init__(self, channels: int, width: int, patch: Sequence[int], bias: bool = True) -> None:
        super().__init__()
        rows, columns = patch
        self.weight = nn.Parameter(0.02 * torch.randn(width, channels, rows, columns))
        self.weight.map_axes = (1, 2, 3), (0,)  # type: ignore[attr-defined]  # for rates by width
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.weight.shape[2:]
        cells = x.unflatten(-1, (-1, columns)).unflatten(-3, (-1, rows))  # batch, channel, lat, p, lon, q
        return F.linear(cells.permute(0, 2, 4, 1, 3, 5).flatten(3), self.weight.flatten(1), self.bias)


class BoxEmbedding(nn.Module):
    """Embed boxes of levels and points: (batch, variable, level, lat, lon) to (batch, layer, lat, lon, width)."""

    def __init__(self, variables: int, width: int, patch: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(width, variables, *patch))
        self.weight.map_axes = (1, 2, 3, 4), (0,)  # type: ignore[attr-defined]  # for rates by width
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        for axis, size in zip((-1, -3, -5), reversed(self.weight.shape[2:]), strict=True):
            x = x.unflatten(axis, (-1, size))
        return F.linear(x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4), self.weight.flatten(1), self.bias)


def unpatched(tokens: Tensor, patch: Sequence[int]) -> Tensor:
    """Return tokens (batch, lat, lon, p * q * channel), channels innermost, as (batch, channel, lat * p, lon * q)."""
    cells = tokens.unflatten(-1, (*patch, -1))  # batch, lat, lon, p, q, channel
    return cells.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


class PatchDecoder(nn.Module):
    """Map tokens (batch, latent level, lat, lon, channel) to one field, (batch, 1, lat, lon), patch by patch."""

    def __init__(self, channels: int, hidden: int, patch: Sequence[int]) -> None:
        super().__init__()
        self.patch = tuple(patch)
        self.head = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, patch[0] * patch[1])
        )

    def forward(self, latents: Tensor) -> Tensor:
        return unpatched(self.head(latents.permute(0, 2, 3, 1, 4).flatten(3)), self.patch)


class Halving(nn.Module):
    """Merge 2x2 neighbours into one token; odd rows and columns are padded with zeros.

    width: channels of the merged tokens; default, twice those of the others. normed: layer norm before the linear map.
    """

    def __init__(self, channels: int, width: int | None = None, *, normed: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels) if normed else nn.Identity()
        self.linear = nn.Linear(4 * channels, width or 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 2, 4, 3, 5, 6)
        return self.linear(self.norm(x.flatten(4)))


class Doubling(nn.Module):
    """Split one token into 2x2 of half the channels, cropped to `shape`."""

    def __init__(self, channels: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.widen = nn.Linear(2 * channels, 4 * channels, bias=False)
        self.norm, self.mix = nn.LayerNorm(channels), nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(x).unflatten(-1, (2, 2, -1)).permute(0, 1, 2, 4, 3, 5, 6).flatten(4, 5).flatten(2, 3)
        return self.mix(self.norm(x[:, :, : self.shape[0], : self.shape[1]]))
