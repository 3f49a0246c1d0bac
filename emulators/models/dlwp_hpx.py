"""DLWP-HPX: a recurrent U-Net on the 12 faces of HEALPix, whose cells all have one area.

    block(x) = skip(x) + W act(K2 act(K1 x)),     act(x) = min(gelu(x), 10)

K1 widens by a factor, both K are dilated 3x3 convolutions, W is 1x1; on the way up one transposed convolution a level.
Each block on the way up is followed by a gated recurrent unit at every cell, whose memory m follows the forecast:

    r, u = sigmoid(G [x, m]),    m <- (1 - u) m + u tanh(C [x, r m]),    x <- x + m

The memory begins at zero and is warmed up by the earlier states of the history, one pass each, oldest first. In the
original it goes on through a day of the forecast, then is warmed up by one earlier pass; here each step warms it up.
There a pass maps two states to the next two: with the pair as the channels of one state and history=2 the passes are
the same. Forcings are known at the time of the target, and all passes read these. Karlbauer et al. 2024,
doi 10.1029/2023MS004021 (arXiv 2311.06253); the symmetric block is that of the ocean model coupled to it,
Cresswell-Clay et al. 2025, doi 10.1029/2025AV001706 (arXiv 2409.16247).

Faces 0 to 3 lie around the north pole, 4 to 7 on the equator, 8 to 11 around the south pole, each group from west to
east. Each is a square of n x n cells that is padded from its neighbours, which are turned by quarters of a circle
until their rows and columns go on those of the face. Four faces meet at a pole and at the corners on the equator. At
the other eight corners only three meet, and a square is missing: beyond the northern and southern corner of an
equatorial face its diagonal is the mean of both neighbours, and each neighbour is continued up to it; a polar face
takes the polar face beside it. The original reads no winds, and none are turned here: components point east and north,
not along a face, so that they go on over all sides, but a flow over a pole is reversed beyond it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.grid import Grid
from emulators.grids.healpix import face_cells
from emulators.world import World

ABOUT = {
    "states": "2, after 2 that warm up a memory",
    "step": "6 h, 2 at once",
    "grid": "HEALPix, halved per level",
    "parity": "dlwp-hpx, physicsnemo, 1e-5",
}
EXAMPLE_GRID = "healpix:16"
CAP = 10.0  # of the activation
FACES = 12
AROUND = 4  # faces around each pole, and along the equator
NAMES = (  # in the original code, and here, one after another
    (r"^encoder\.encoder\.(\d+)\.[01]\.", r"down.\1."),
    (r"^decoder\.decoder\.(\d+)\.conv\.", r"up.\1."),
    (r"^decoder\.decoder\.(\d+)\.upsamp\.upsampler\.0\.", r"doubled.\1."),
    (r"^decoder\.decoder\.(\d+)\.recurrent\.conv_gates\.", r"memory.\1.gates."),
    (r"^decoder\.decoder\.(\d+)\.recurrent\.conv_can\.", r"memory.\1.candidate."),
    (r"^decoder\.output_layer\.convblock\.0\.", "head."),
    (r"\.layers\.[01]\.(weight|bias)$", r".\1"),
    (r"\.skip_module\.", ".skip."),
)


class DLWPHEALPix(nn.Module):
    """Map fields (batch, input channel, cell) to (batch, output channel, cell).

    channels: width of each level, finest first. dilation: that of each level's convolutions. widening: channels inside
    a block as a multiple of its level's. block: `convnext`, or `symmetric` (3x3, wider, narrower, 3x3). recurrent: with
    a memory on each level of the way up. states: of the history that each pass reads; None: all of it in one pass.
    Raises ValueError for another grid than HEALPix, and for one that its levels do not divide.
    """

    def __init__(
        self,
        world: World,
        *,
        channels: Sequence[int] = (136, 68, 34),
        dilation: Sequence[int] = (1, 2, 4),
        widening: int = 4,
        block: str = "convnext",
        recurrent: bool = True,
        states: int | None = 1,
    ) -> None:
        super().__init__()
        widths, dilations = list(channels), list(dilation)
        self.faces = Faces(world.grid)
        _refuse_levels(widths, dilations, self.faces.side)
        states = world.history if states is None else states
        if states < 1 or world.history % states or not (recurrent or states == world.history):
            raise ValueError(
                f"Expected states, read in each pass, to divide the history of {world.history}, and to be null without "
                f"a memory; got states={states} and recurrent={recurrent}."
            )
        self.past, self.read = world.history * world.prognostic.size, states * world.prognostic.size
        into = self.read + world.forcing.size + world.static.size
        steps = zip(pairwise([into, *widths]), dilations, strict=True)
        self.down = nn.ModuleList(Block(block, a, b, b, d, widening) for (a, b), d in steps)
        rising = list(zip(widths, [widths[0], *widths], dilations, strict=False))[::-1]
        self.up = nn.ModuleList(
            Block(block, wide if k == 0 else 2 * wide, wide, out, d, widening)
            for k, (wide, out, d) in enumerate(rising)
        )
        self.doubled = nn.ModuleList(nn.ConvTranspose2d(wide, wide, 2, stride=2) for wide, _, _ in rising[1:])
        self.memory = nn.ModuleList(Memory(out) for _, out, _ in rising if recurrent)
        self.head = nn.Conv2d(widths[0], world.output_channels, 1)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        faces = self.faces.inward(fields)
        past, fixed = faces[:, : self.past], faces[:, self.past :]
        x = past
        memories: list[Tensor | None] = [None for _ in self.memory]
        for some in past.split(self.read, dim=1):
            x, memories = self._through(torch.cat([some, fixed], dim=1), memories)
        return self.faces.outward(self.head(x))

    def _through(self, x: Tensor, memories: list[Tensor | None]) -> tuple[Tensor, list[Tensor | None]]:
        """Pass down and up, and return what the head reads and the memory of each level of the way up."""
        finer: list[Tensor] = []
        for block in self.down:
            x = block(F.avg_pool2d(finer[-1], 2) if finer else x)
            finer.append(x)
        x = finer.pop()
        renewed: list[Tensor | None] = []
        for k, block in enumerate(self.up):
            x = block(torch.cat([_capped(self.doubled[k - 1](x)), finer.pop()], dim=1) if k else x)
            if len(self.memory):
                memory = self.memory[k](x, memories[k])
                renewed.append(memory)
                x = x + memory
        return x, renewed


class Block(nn.Module):
    """Add to the input (through 1x1 if the width changes) convolutions with capped activations.

    The last of `convnext`, 1x1, has none; the last of `symmetric`, 3x3, has one too.
    """

    def __init__(self, kind: str, into: int, width: int, out: int, dilation: int, widening: int) -> None:
        super().__init__()
        wide = widening * width
        self.skip = nn.Conv2d(into, out, 1) if into != out else nn.Identity()
        if kind == "convnext":
            first, second = FaceConvolution(into, wide, dilation), FaceConvolution(wide, wide, dilation)
            self.layers = nn.ModuleList([first, second, nn.Conv2d(wide, out, 1)])
        elif kind == "symmetric":
            first, last = FaceConvolution(into, width, dilation), FaceConvolution(width, out, dilation)
            self.layers = nn.ModuleList([first, nn.Conv2d(width, wide, 1), nn.Conv2d(wide, width, 1), last])
        else:
            raise ValueError(f"Expected block to be 'convnext' or 'symmetric'; got '{kind}'.")
        self.active = 2 if kind == "convnext" else 4  # convolutions before an activation

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for k, layer in enumerate(self.layers):
            h = _capped(layer(h)) if k < self.active else layer(h)
        return self.skip(x) + h


class Memory(nn.Module):
    """Renew a memory of each cell and channel by gates that see it and the input (Cho et al. 2014, arXiv 1406.1078)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.candidate = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor, memory: Tensor | None) -> Tensor:
        before = torch.zeros_like(x) if memory is None else memory
        reset, update = self.gates(torch.cat([x, before], dim=1)).sigmoid().chunk(2, dim=1)
        candidate = self.candidate(torch.cat([x, reset * before], dim=1)).tanh()
        return (1.0 - update) * before + update * candidate


def _capped(x: Tensor) -> Tensor:
    """Return the activation; GELU is never as low as -1, and this takes one pass backward, where clamp takes three."""
    return F.hardtanh(F.gelu(x), -1.0, CAP)


def _refuse_levels(widths: Sequence[int], dilations: Sequence[int], side: int) -> None:
    """Raise ValueError where a level has no dilation, no whole number of cells, or fewer than its padding needs."""
    if not widths or len(widths) != len(dilations) or min(dilations) < 1:
        raise ValueError(
            f"Expected one dilation of at least 1 for each of channels; got {len(widths)} channels and {dilations}."
        )
    sides = [side / 2**level for level in range(len(widths))]
    if side % 2 ** (len(widths) - 1) or any(reach > rows for reach, rows in zip(dilations, sides, strict=True)):
        raise ValueError(
            f"Expected faces that {len(widths)} levels halve, with at least {', '.join(map(str, dilations))} cells on "
            f"a side, one for each step of dilation; got {', '.join(f'{rows:g}' for rows in sides)}. Take a finer "
            "grid, such as healpix:16, or fewer channels and dilations."
        )


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


def adapted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the original weights under our names; the caps of its activations are left out."""
    return {_renamed(name): value for name, value in theirs.items() if not name.endswith(".cap")}


def _renamed(name: str) -> str:
    """Return our name of an original weight; in its blocks every second layer is an activation."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    name = re.sub(r"^doubled\.(\d+)", lambda match: f"doubled.{int(match[1]) - 1}", name)
    return re.sub(r"\.convblock\.(\d+)", lambda match: f".layers.{int(match[1]) // 2}", name)
