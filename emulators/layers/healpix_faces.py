"""Convolutions on the 12 faces of HEALPix, each a square of n x n cells that is padded from its neighbours.

Faces 0 to 3 lie around the north pole, 4 to 7 on the equator, 8 to 11 around the south pole, each group from west to
east. The neighbours of a face are turned by quarters of a circle until their rows and columns go on those of the face.
Four faces meet at a pole and at the corners on the equator. At the other eight corners only three meet, and a square is
missing: beyond the northern and southern corner of an equatorial face its diagonal is the mean of both neighbours,
and each neighbour is continued up to it; a polar face takes the polar face beside it. Karlbauer et al. 2024,
doi 10.1029/2023MS004021 (arXiv 2311.06253).

Values are padded as they are: components of winds are not turned where faces meet.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from emulators.grid import Grid
from emulators.grids.healpix import face_cells

FACES = 12
AROUND = 4  # faces around each pole, and along the equator


class Faces(nn.Module):
    """Bring cells of a HEALPix grid, in ring or nested order, into squares and back.

    side: number of cells on a side of a face. Raises ValueError for another grid.
    """

    cells: Tensor
    places: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        cells = face_cells(grid)
        self.side = cells.shape[-1]
        self.register_buffer("cells", torch.as_tensor(cells.reshape(-1)), persistent=False)
        self.register_buffer("places", torch.as_tensor(np.argsort(cells.reshape(-1))), persistent=False)

    def inward(self, fields: Tensor) -> Tensor:
        """Return (batch, channel, cell) as faces (batch * 12, channel, row, column)."""
        squares = fields[..., self.cells].unflatten(-1, (FACES, self.side, self.side))
        return squares.transpose(1, 2).flatten(0, 1)

    def outward(self, faces: Tensor) -> Tensor:
        """Return faces (batch * 12, channel, row, column) as (batch, channel, cell)."""
        return faces.unflatten(0, (-1, FACES)).transpose(1, 2).flatten(2)[..., self.places]


class FacePadding(nn.Module):
    """Add `border` rows and columns beyond each side of faces (batch * 12, channel, row, column)."""

    first: Tensor
    second: Tensor

    def __init__(self, border: int) -> None:
        super().__init__()
        self.border = border
        for name, index in zip(("first", "second"), _corner(border), strict=True):
            self.register_buffer(name, torch.as_tensor(index), persistent=False)

    def forward(self, faces: Tensor) -> Tensor:
        north, belt, south = faces.unflatten(0, (-1, FACES // AROUND, AROUND)).unbind(1)
        p = self.border
        top = (_east(north[..., :p], 1, 1), north[..., -p:, :], _east(belt[..., -p:, :], 1))
        left = (_east(north[..., :p, :], -1, -1), _east(north[..., -p:], -1), belt[..., -p:])
        right = (_east(belt[..., :p], 1), south[..., :p], _east(south[..., -p:, :], 1, -1))
        bottom = (belt[..., :p, :], _east(south[..., :p, :], -1), _east(south[..., -p:], -1, 1))
        top_left = (
            _east(north[..., :p, :p], 2, 2),
            self._missing(north[..., -p:, :p], _east(north[..., :p, -p:], -1)),
            north[..., -p:, -p:],
        )
        beyond = self._missing(_east(south[..., :p, -p:], -1, 2), _east(south[..., -p:, :p], 0, 2))
        bottom_right = (south[..., :p, :p], _east(beyond, 0, 2), _east(south[..., -p:, -p:], 2, 2))
        top_right = tuple(_east(group[..., -p:, :p], 1) for group in (north, belt, south))
        bottom_left = tuple(_east(group[..., :p, -p:], -1) for group in (north, belt, south))
        rows = ((top_left, top, top_right), (bottom_left, bottom, bottom_right))
        above, below = (torch.cat([_whole(part) for part in row], -1) for row in rows)
        return torch.cat([above, torch.cat([_whole(left), faces, _whole(right)], -1), below], -2)

    def _missing(self, above: Tensor, beside: Tensor) -> Tensor:
        """Fill the square that is missing beyond an upper left corner, from the squares to its right and below it."""
        squares = torch.cat([above.flatten(-2), beside.flatten(-2)], -1)
        filled = 0.5 * (squares[..., self.first] + squares[..., self.second])
        return filled.unflatten(-1, (self.border, self.border))


class FaceConvolution(nn.Conv2d):
    """Convolve faces (batch * 12, channel, row, column) with a 3x3 kernel; their size stays the same."""

    def __init__(self, into: int, out: int, dilation: int = 1) -> None:
        super().__init__(into, out, 3, dilation=dilation)
        self.border = FacePadding(dilation)

    def forward(self, faces: Tensor) -> Tensor:
        return super().forward(self.border(faces))


def _east(faces: Tensor, steps: int, quarters: int = 0) -> Tensor:
    """Return for each of four faces what lies `steps` faces further east, turned counter-clockwise."""
    moved = faces.roll(-steps, 1) if steps else faces
    return moved.rot90(quarters, (-2, -1)) if quarters else moved


def _whole(groups: tuple[Tensor, ...]) -> Tensor:
    """Return parts of the northern, equatorial and southern faces, (batch, 4, ...) each, as (batch * 12, ...)."""
    return torch.stack(groups, 1).flatten(0, 2)


def _corner(border: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each cell of a missing square, the two cells of which it is the mean; off the diagonal they are one.

    Numbered are the cells of the square to its right, then of the one below it, each row by row.
    """
    row, column = np.indices((border, border)).reshape(2, -1)
    up, outward = border - 1 - row, border - 1 - column  # steps from the face
    above = border * row + np.maximum(up - outward - 1, 0)
    beside = border**2 + border * np.maximum(outward - up - 1, 0) + column
    return np.where(up >= outward, above, beside), np.where(up > outward, above, beside)
