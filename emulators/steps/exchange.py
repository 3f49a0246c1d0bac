"""What components give each other: fields by name, and the ways between their grids, on which nothing is lost.

    flux to another grid     F_I = sum_i W_Ii f_i                     keeps the integral of f
    state to another grid    x_I = sum_i W_Ii m_i x_i / M_I,          M_I = sum_i W_Ii m_i

W are the conservative weights of `emulators.grids.weights`, m is 1 where a component has its fields and 0
elsewhere. What the cells I where m is 1 receive is what cells i give on their share M_i, the transpose of W taking m
there: sum_I A_I m_I F_I = sum_i A_i M_i f_i, as on the exchange grid of Balaji et al. 2006
(doi 10.1175/2006MWR3155.1). A flux that is told per area of the whole cell i, of which all goes to the share M_i, is
f_i / M_i there: sum_I A_I m_I F_I = sum_i A_i f_i, over the cells of which a share above LEAST is inside.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from emulators.grid import Grid
from emulators.variables import VariableSet

LEAST = 1e-3  # share of a cell below which nothing is known of it


def part(values: Tensor, variables: VariableSet, name: str, rank: int) -> Tensor:
    """Return the channels of one variable, (*lead, channel, *grid)."""
    return values.narrow(-1 - rank, variables.slice(name).start, variables.variable(name).size)


class Fields:
    """Hold the fields of variables by name, (*lead, channel, *grid); a channel's is found by its own name."""

    def __init__(self, variables: VariableSet, by_name: Mapping[str, Tensor], rank: int) -> None:
        self.variables, self.by_name, self.axis = variables, dict(by_name), -1 - rank

    def __getitem__(self, name: str) -> Tensor:
        """Return the channels of a variable, or one channel of it."""
        if name in self.by_name:
            return self.by_name[name]
        owner, place = place_of(self.variables, name)
        return self.by_name[owner].narrow(self.axis, place, 1)

    def total(self, terms: Mapping[str, float]) -> Tensor:
        """Return the sum of factor times field, in float64."""
        return sum(factor * self[name].double() for name, factor in terms.items())  # type: ignore[return-value]


def place_of(variables: VariableSet, channel: str) -> tuple[str, int]:
    """Return the variable that a channel belongs to, and its place there. Raises KeyError for none."""
    for variable in variables:
        if channel in variable.channels:
            return variable.name, variable.channels.index(channel)
    raise KeyError(f"No variable or channel '{channel}' here; there are {', '.join(variables.names)}.")


def size_of(variables: VariableSet, name: str) -> int:
    """Return the number of channels of a variable, 1 for a channel. Raises KeyError where there is no such name."""
    if name in variables:
        return variables.variable(name).size
    place_of(variables, name)  # refuses what is no channel either
    return 1


class CellMeans(nn.Module):
    """Regrid fields (*lead, channel, *source.shape) to another grid in float64, each cell from those it overlaps.

    inside: share of each cell of the source in which its fields are meant, between 0 and 1; None: all of it.
    The sum over the cells is taken in one order, so that results have the same bits on every run.
    """

    cells: Tensor
    weights: Tensor
    inside: Tensor
    share: Tensor

    def __init__(self, source: Grid, target: Grid, inside: np.ndarray | None = None) -> None:
        super().__init__()
        self.shapes = source.shape, target.shape
        cells, weights = _padded(source, target)
        mask = np.ones(source.shape) if inside is None else inside
        for name, values in (("cells", cells), ("weights", weights), ("inside", mask)):
            self.register_buffer(name, torch.as_tensor(values), persistent=False)
        self.register_buffer("share", self.totals(self.inside[None])[0], persistent=False)

    def totals(self, values: Tensor) -> Tensor:
        """Return the fields on the target with their integral kept: of fluxes, and of what has no mask."""
        source, target = self.shapes
        flat = values.double().flatten(-len(source))
        result = self.weights[0] * flat[..., self.cells[0]]
        for cells, weights in zip(self.cells[1:], self.weights[1:], strict=True):
            result = result + weights * flat[..., cells]
        return result.unflatten(-1, target)

    def means(self, values: Tensor, otherwise: Tensor) -> Tensor:
        """Return means over the part of each cell that is inside, and `otherwise` where there is none."""
        covered = self.share > LEAST
        masked = self.totals(torch.where(self.inside > 0.0, values.double() * self.inside, 0.0))
        return torch.where(covered, masked / torch.where(covered, self.share, 1.0), otherwise.double())


def _padded(source: Grid, target: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The cells of the source that each cell of the target overlaps, and their weights, (most, target)."""
    if source.same_as(target):
        return np.arange(target.size)[None], np.ones((1, target.size))
    from emulators.grids.weights import conservative_weights

    matrix = conservative_weights(source, target).tocsr()
    counts = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(target.size), counts)
    places = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], counts)
    cells = np.zeros((max(1, int(counts.max())), target.size), dtype=np.int64)
    weights = np.zeros(cells.shape)
    cells[places, rows], weights[places, rows] = matrix.indices, matrix.data
    return cells, weights
