"""Separate the channels on levels from single-level ones, by the names of their variables.

A network that works on columns of air reads [variable, level] of all variables with levels and the rest as single
fields, and writes both; outside, channels have the order of the World.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emulators.variables import Variable
from emulators.world import World


class LevelColumns(nn.Module):
    """Split the channels that a network reads into columns and single fields, and join those that it writes.

    Columns: variables of `world.prognostic` on levels, of every known state, and forcing and static ones on the same
    levels. Single fields: the other channels. levels: those that all columns share. Raises ValueError if they differ or
    there are none.
    """

    upper: Tensor
    single: Tensor
    place: Tensor

    def __init__(self, world: World) -> None:
        super().__init__()
        read = [v for _ in range(world.history) for v in world.prognostic] + [*world.forcing, *world.static]
        self.levels = shared_levels(world)
        upper, single = _places(read, self.levels)
        self.register_buffer("upper", torch.tensor(upper, device="cpu"), persistent=False)
        self.register_buffer("single", torch.tensor(single, dtype=torch.int64, device="cpu"), persistent=False)
        written_upper, written_single = _places(list(world.predicted), self.levels)
        order = torch.tensor([*written_upper, *written_single], device="cpu")
        self.register_buffer("place", order.argsort(), persistent=False)
        depth = len(self.levels)
        self.read_upper, self.read_single = len(upper) // depth, len(single)
        self.written_upper, self.written_single = len(written_upper) // depth, len(written_single)

    def split(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """Split (batch, channel, lat, lon): (batch, variable, level, lat, lon) and (batch, single field, lat, lon)."""
        columns = fields.index_select(1, self.upper).unflatten(1, (self.read_upper, len(self.levels)))
        return columns, fields.index_select(1, self.single)

    def join(self, columns: Tensor, single: Tensor) -> Tensor:
        """Join columns and single fields that a network writes: the inverse of `split`."""
        return torch.cat([columns.flatten(1, 2), single], dim=1).index_select(1, self.place)


def shared_levels(world: World) -> tuple[float, ...]:
    """Return the levels of all predicted variables with levels. Raises ValueError if they differ or there are none."""
    names = {v.levels: v.name for v in world.predicted if v.levels}
    if len(names) == 1:
        return next(iter(names))
    if not names:
        raise ValueError(
            f"This network works on columns of air; got no levels with any of {', '.join(world.predicted.names)}."
        )
    listed = "; ".join(f"{name} on {', '.join(f'{level:g}' for level in levels)}" for levels, name in names.items())
    raise ValueError(f"This network needs the same levels for all variables that have any; got {listed}.")


def _places(variables: list[Variable], levels: tuple[float, ...]) -> tuple[list[int], list[int]]:
    """Return the channels of the variables on `levels`, and all others."""
    upper: list[int] = []
    single: list[int] = []
    start = 0
    for variable in variables:
        (upper if variable.levels == levels else single).extend(range(start, start + variable.size))
        start += variable.size
    return upper, single
