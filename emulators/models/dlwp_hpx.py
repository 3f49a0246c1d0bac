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
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.healpix_faces import FaceConvolution, Faces
from emulators.world import World

ABOUT = {
    "states": "2, after 2 that warm up a memory",
    "step": "6 h, 2 at once",
    "grid": "HEALPix, halved per level",
    "parity": "dlwp-hpx, physicsnemo, 1e-5",
}
EXAMPLE_GRID = "healpix:16"
CAP = 10.0  # of the activation
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
        kept: list[Tensor | None] = [None for _ in self.memory]
        for some in past.split(self.read, dim=1):
            x, kept = self._through(torch.cat([some, fixed], dim=1), kept)
        return self.faces.outward(self.head(x))

    def _through(self, x: Tensor, kept: list[Tensor | None]) -> tuple[Tensor, list[Tensor | None]]:
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
                memory = self.memory[k](x, kept[k])
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

    def forward(self, x: Tensor, kept: Tensor | None) -> Tensor:
        before = torch.zeros_like(x) if kept is None else kept
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


def adapted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the original weights under our names; the caps of its activations are left out."""
    return {_renamed(name): value for name, value in theirs.items() if not name.endswith(".cap")}


def _renamed(name: str) -> str:
    """Return our name of an original weight; in its blocks every second layer is an activation."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    name = re.sub(r"^doubled\.(\d+)", lambda match: f"doubled.{int(match[1]) - 1}", name)
    return re.sub(r"\.convblock\.(\d+)", lambda match: f".layers.{int(match[1]) // 2}", name)
