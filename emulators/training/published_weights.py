"""Weights that come from elsewhere: published ones under our names, and those of the same network on another grid.

A network's module lists pairs (pattern of their name, our name) in PUBLISHED; what differs in more than its name it
mends in a function `adapted`.

From grid to grid, weights along axes of the grid (positions, rows, columns, windows) are interpolated between the
centres of cells. Spectral weights are kept by degree; those of higher degrees begin as those of the highest degree that
there was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor, nn

from emulators.interfaces import GridParameter, NetworkModule, SpectralParameter, optional
from emulators.layers.spectral_layers import DiagonalConvolution

# What networks keep beside their weights and make anew: masks, indices, coordinates, counters.
TABLES = re.compile(
    r"(.*\.)?(attn_mask|relative_position_index|relative_coords_table|earth_position_index|num_batches_tracked|"
    r"position_index|mask)"
)


Fate = Literal["loaded", "interpolated", "fresh", "dropped"]


@dataclass(frozen=True)
class Carried:
    """Tell what became of one weight. fate: loaded, interpolated, fresh or dropped; of: its channels, or ''."""

    name: str
    fate: Fate
    of: str = ""


def renamed(theirs: Mapping[str, Tensor], table: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """The state dict under our names; ValueError names what no pattern knows."""
    ours, unknown = {}, []
    for name, value in theirs.items():
        for pattern, replacement in table:
            if match := re.fullmatch(pattern, name):
                ours[match.expand(replacement)] = value
                break
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"These weights are not the published ones of this network: it has no place for {', '.join(unknown[:5])}"
            f"{' and others' if len(unknown) > 5 else ''}."
        )
    return ours


def converted(theirs: Mapping[str, Tensor], module: ModuleType) -> dict[str, Tensor]:
    """Published weights as the state dict of the network that `module` holds; ValueError where they are others."""
    weights = {name: value for name, value in theirs.items() if not TABLES.fullmatch(name)}
    table, adapt = (optional(module, NetworkModule, name) for name in ("PUBLISHED", "adapted"))
    weights = renamed(weights, table) if table else weights
    return adapt(weights) if adapt is not None else weights


def fill(network: nn.Module, weights: Mapping[str, Tensor], additions: Sequence[str] = ()) -> None:
    """Put weights into a network that has these names and shapes; ValueError tells all that differ.

    additions: parts, as names begin, that stay as they are where there are no weights for them.
    """
    state = network.state_dict()
    learned = {name for name, _ in network.named_parameters()} | {name for name in state if "running_" in name}
    learned -= {name for name in state if name.startswith(tuple(additions))}
    faults = [
        f"{name}: expected {shape_text(state[name])}, got nothing" for name in state if name in learned - set(weights)
    ]
    for name, value in weights.items():
        if name not in state:
            faults.append(f"{name}: expected nothing, got {shape_text(value)}")
        elif state[name].shape != value.shape:
            faults.append(f"{name}: expected {shape_text(state[name])}, got {shape_text(value)}")
    if faults:
        more = f"; and {len(faults) - 6} more" if len(faults) > 6 else ""
        raise ValueError("; ".join(faults[:6]) + more)
    network.load_state_dict(dict(weights), strict=False)


def shape_text(value: Tensor) -> str:
    """The shape of a tensor in words."""
    return "x".join(map(str, value.shape)) or "a number"


def on_grid(
    weights: Mapping[str, Tensor], old: nn.Module, new: nn.Module, grids: tuple[tuple[int, ...], tuple[int, ...]]
) -> tuple[dict[str, Tensor], list[Carried]]:
    """The state of `new` from that of `old`, the same network on another grid; and which weights were interpolated.

    grids: the shapes of the old and the new grid. ValueError for a weight that no axis of the grid explains.
    """
    modules = dict(new.named_modules())
    before, old_state = dict(old.named_modules()), old.state_dict(keep_vars=True)
    state, fates = {}, []
    for name, initial in new.state_dict(keep_vars=True).items():
        value = weights[name]
        if value.shape != initial.shape:
            parent = name.rpartition(".")[0]
            if isinstance(module := modules[parent], DiagonalConvolution):
                value = _by_coefficient(value, before[parent], module)
            elif axes := optional(initial, SpectralParameter, "degree_axes"):
                value = _by_degree(value, initial.shape, axes, optional(initial, SpectralParameter, "beyond"))
            elif (folds := optional(initial, GridParameter, "grid_axes")) is not None:
                value = _folded(value, initial, optional(old_state[name], GridParameter, "grid_axes") or {}, folds)
            else:
                value = _interpolated(name, value, initial.shape, grids)
            fate: Fate = "fresh" if value is initial else "interpolated"
            fates.append(Carried(name, fate, f"{shape_text(weights[name])} to {shape_text(initial)}"))
        state[name] = value.detach().clone()
    return state, fates


def _by_degree(value: Tensor, shape: Sequence[int], axes: Sequence[int], beyond: str) -> Tensor:
    """Keep what belongs to a degree; higher ones begin as the highest that there was (`held`), or at 0 (`zero`)."""
    for axis in axes:
        index = torch.arange(shape[axis])
        extended = value.index_select(axis, index.clamp(max=value.shape[axis] - 1))
        is_beyond = (index >= value.shape[axis]).reshape(-1, *[1] * (value.ndim - axis - 1))
        value = extended.masked_fill(is_beyond, 0) if beyond == "zero" else extended
    if value.shape != torch.Size(shape):
        raise ValueError(f"Expected a spectral weight of {shape_text(value)}, got {'x'.join(map(str, shape))}.")
    return value


def _folded(
    value: Tensor, initial: Tensor, old: Mapping[int, Sequence[int]], new: Mapping[int, Sequence[int]]
) -> Tensor:
    """A weight interpolated along axes that fold several of the grid, as they are unfolded.

    `initial` where other axes differ: windows of another size on the new grid have other tables, which begin anew.
    """
    if any(size != initial.shape[axis] and axis not in new for axis, size in enumerate(value.shape)):
        return initial
    for axis in sorted(new, reverse=True):
        value = value.unflatten(axis, tuple(old[axis]))
        for number, size in enumerate(new[axis]):
            value = _linear(value, axis + number, size, cyclic=False)
        value = value.flatten(axis, axis + len(new[axis]) - 1)
    return value


def _by_coefficient(value: Tensor, old: nn.Module, new: DiagonalConvolution) -> Tensor:
    """Keep the matrix of each order and degree; those beyond begin as the nearest of a lower degree."""
    assert isinstance(old, DiagonalConvolution)
    place = {pair: k for k, pair in enumerate(zip(old.order.tolist(), old.degree.tolist(), strict=True))}
    last_order, last_degree = int(old.order.max()), int(old.degree.max())
    pairs = zip(new.order.tolist(), new.degree.tolist(), strict=True)
    return value[torch.tensor([place[min(m, last_order, l), min(l, last_degree)] for m, l in pairs])]


def _interpolated(name: str, value: Tensor, shape: Sequence[int], grids: tuple[tuple[int, ...], ...]) -> Tensor:
    """A weight interpolated along the axes that differ: rows, rows and columns, or tokens of both on one axis."""
    axes = [axis for axis, size in enumerate(shape) if value.shape[axis] != size]
    if value.ndim != len(shape) or not 1 <= len(axes) <= 2 or not value.is_floating_point():
        raise ValueError(f"{name}: expected {'x'.join(map(str, shape))}, got {shape_text(value)}")
    if len(axes) == 2:
        first, second = axes
        columns = first if value.shape[first] > value.shape[second] else second
        for axis in axes:
            value = _linear(value, axis, shape[axis], cyclic=axis == columns)
        return value
    (axis,) = axes
    tokens = _tokens(value.shape[axis], shape[axis], grids)
    if tokens is None:
        return _linear(value, axis, shape[axis], cyclic=False)
    (rows, columns), (new_rows, new_columns) = tokens
    plane = _linear(value.unflatten(axis, (rows, columns)), axis, new_rows, cyclic=False)
    return _linear(plane, axis + 1, new_columns, cyclic=True).flatten(axis, axis + 1)


def _tokens(old: int, new: int, grids: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Rows and columns of the patches of which there are so many on the grids; None where there are no such patches."""
    for size in range(1, max(grids[0]) + 1):
        for inexact in (0, size - 1):
            shapes = [((rows + inexact) // size, (columns + inexact) // size) for rows, columns in grids]
            if [r * c for r, c in shapes] == [old, new] and shapes[0][0] > 1:
                return shapes[0], shapes[1]
    return None


def _linear(value: Tensor, axis: int, size: int, cyclic: bool) -> Tensor:
    """Interpolate cell centres along one axis; beyond the first and last the nearest holds, or the axis goes round."""
    old = value.shape[axis]
    place = (torch.arange(size, dtype=torch.float64) + 0.5) * old / size - 0.5
    place = place if cyclic else place.clamp(0, old - 1)
    low = place.floor()
    share = (place - low).to(value.dtype).reshape(-1, *[1] * (value.ndim - axis - 1))
    below, above = (value.index_select(axis, (low.long() + k).remainder(old)) for k in (0, 1))
    return torch.lerp(below, above, share)
