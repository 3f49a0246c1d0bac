"""Channels of States as rows of points, of vectors, and as variables with levels in a Dataset.

The error of a vector is the root of the sum of its components' squares, |(f_u, f_v) - (o_u, o_v)|; so are the wind
vectors of WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560), which go by the names in WINDS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from emulators.grid import LatLonGrid
from emulators.state import State
from emulators.variables import Variable, VariableSet

if TYPE_CHECKING:
    import xarray as xr

WINDS = {
    "wind_vector": ("u_component_of_wind", "v_component_of_wind"),
    "10m_wind_vector": ("10m_u_component_of_wind", "10m_v_component_of_wind"),
}


def channel_rows(fields: State | Tensor, variables: VariableSet, grid: LatLonGrid, role: str) -> Tensor:
    """The channels of `variables` as ([member,] batch, channel, point); a Tensor has just these."""
    wanted = variables.channels
    if isinstance(fields, State):
        values = fields.values
        have = {channel: i for i, channel in enumerate(fields.variables.channels)}
        absent = [channel for channel in wanted if channel not in have]
        if absent:
            raise ValueError(f"The {role} lacks {', '.join(absent[:5])}; it has {', '.join(list(have)[:10])}.")
        if tuple(have) != wanted:
            index = torch.tensor([have[channel] for channel in wanted], dtype=torch.int64, device=values.device)
            values = values.index_select(fields.channel_axis, index)
    else:
        values = fields
    expected = (len(wanted), *grid.shape)
    if values.ndim == len(expected):
        values = values.unsqueeze(0)
    ensemble = role == "prediction" and values.ndim == len(expected) + 2
    if tuple(values.shape[-len(expected) :]) != expected or (values.ndim > len(expected) + 1 and not ensemble):
        raise ValueError(
            f"Expected a {role} of shape (batch, {', '.join(map(str, expected))}); got {tuple(values.shape)}."
        )
    return values.detach().flatten(-2)


def vector_channels(variables: VariableSet, vectors: Mapping[str, Sequence[str]]) -> tuple[VariableSet, np.ndarray]:
    """The vectors whose components are all present, and the channels of these, (channel of a vector, component)."""
    found, rows = [], []
    for name, components in vectors.items():
        if not all(component in variables for component in components):
            continue
        parts = [variables.variable(component) for component in components]
        shared = tuple(level for level in parts[0].levels if all(level in part.levels for part in parts))
        if len({bool(part.levels) for part in parts}) > 1 or (parts[0].levels and not shared):
            continue
        found.append(Variable(name, parts[0].units, shared))
        for level in shared or (None,):
            at = [variables.slice(p.name).start + (p.levels.index(level) if level is not None else 0) for p in parts]
            rows.append(at)
    return VariableSet(tuple(found)), np.array(rows, dtype=np.int64)


def level_coordinate(variables: VariableSet) -> dict[str, Any]:
    """The coordinate `level`: the levels of all variables in order; empty where none has levels."""
    levels = all_levels(variables)
    whole = all(level.is_integer() for level in levels)
    return {"level": np.array(levels, dtype=np.int64 if whole else np.float64)} if levels else {}


def all_levels(variables: VariableSet) -> list[float]:
    """The levels of all variables, each once, in order."""
    return sorted({float(level) for variable in variables for level in variable.levels})


def level_block(values: np.ndarray, axis: int, variable: Variable, variables: VariableSet) -> np.ndarray:
    """One variable out of values with the channels of `variables` on `axis`, as data of a Dataset.

    The axis becomes that of all levels, NaN at those that the variable lacks; a variable without levels loses it.
    """
    part = np.moveaxis(values, axis, 0)[variables.slice(variable.name)]
    if not variable.levels:
        return part[0]
    levels = all_levels(variables)
    block = np.full((len(levels), *part.shape[1:]), np.nan)
    block[[levels.index(float(level)) for level in variable.levels]] = part
    return np.moveaxis(block, 0, axis)


def encode_leads(dataset: xr.Dataset) -> xr.Dataset:
    """The same dataset, whose lead times are stored as hours where they are whole hours, else as seconds."""
    seconds = dataset["lead_time"].values.astype("timedelta64[s]").astype(int)
    dataset["lead_time"].encoding = {"units": "hours" if not (seconds % 3600).any() else "seconds"}
    return dataset
