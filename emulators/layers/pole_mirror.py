"""Components of vectors beyond a pole, where east and north point the other way.

    x = sign x - 2 mean / std   (normalised),    sign = -1 for components of winds and other vectors, 1 for scalars

Components are known by their names: u and v of winds, eastward and northward anything else.
"""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor, nn

from emulators.world import World

COMPONENT = re.compile(r"(^|_)([uv]_component|eastward|northward)_")


class PoleMirror(nn.Module):
    """Turn normalised input fields (batch, channel, row, lon) that are seen from beyond a pole.

    signs, offsets: of each input channel, (channel, 1, 1).
    """

    signs: Tensor
    offsets: Tensor

    def __init__(self, signs: np.ndarray, offsets: np.ndarray) -> None:
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
