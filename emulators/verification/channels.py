"""Channels of States as rows of points, of vectors, and as variables with levels in a Dataset.

The error of a vector is the root of the sum of its components' squares, |(f_u, f_v) - (o_u, o_v)|; so are the wind
vectors of WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560), which go by the names in WINDS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from emulators.grid import Grid
from emulators.state import State
from emulators.variables import Variable, VariableSet

if TYPE_CHECKING:
    import xarray as xr

WINDS = {
    "wind_vector": ("u_component_of_wind", "v_component_of_wind"),
    "10m_wind_vector": ("10m_u_component_of_wind", "10m_v_component_of_wind"),
}


def channel_rows(fields: State | Tensor, variables: VariableSet, grid: Grid, role: str) -> Tensor:
    """The channels of `variables` as ([member,] batch, channel, point); a Tensor has just these."""
    required = variables.channels
    if isinstance(fields, State):
        values = fields.values
        position = {channel: i for i, channel in enumerate(fields.variables.channels)}
        absent = [channel for channel in required if channel not in position]
        if absent:
            raise ValueError(f"The {role} lacks {', '.join(absent[:5])}; it has {', '.join(list(position)[:10])}.")
        if tuple(position) != required:
            index = torch.tensor([position[channel] for channel in required], dtype=torch.int64, device=values.device)
            values = values.index_select(fields.channel_axis, index)
    else:
        values = fields
    expected = (len(required), *grid.shape)
    if values.ndim == len(expected):
        values = values.unsqueeze(0)
    ensemble = role == "prediction" and values.ndim == len(expected) + 2
    if tuple(values.shape[-len(expected) :]) != expected or (values.ndim > len(expected) + 1 and not ensemble):
        raise ValueError(
            f"Expected a {role} of shape (batch, {', '.join(map(str, expected))}); got {tuple(values.shape)}."
        )
    return values.detach().flatten(-len(grid.shape))


def vector_channels(variables: VariableSet, vectors: Mapping[str, Sequence[str]]) -> tuple[VariableSet, np.ndarray]:
    """The vectors whose components are all present, and the channels of these, (channel of a vector, component)."""
    present, rows = [], []
    for name, components in vectors.items():
        if not all(component in variables for component in components):
            continue
        members = [variables.variable(component) for component in components]
        shared = tuple(level for level in members[0].levels if all(level in member.levels for member in members))
        if len({bool(member.levels) for member in members}) > 1 or (members[0].levels and not shared):
            continue
        present.append(Variable(name, members[0].units, shared))
        for level in shared or (None,):
            at = [variables.slice(p.name).start + (p.levels.index(level) if level is not None else 0) for p in members]
            rows.append(at)
    return VariableSet(tuple(present)), np.array(rows, dtype=np.int64)


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
    channels = np.moveaxis(values, axis, 0)[variables.slice(variable.name)]
    if not variable.levels:
        return channels[0]
    levels = all_levels(variables)
    block = np.full((len(levels), *channels.shape[1:]), np.nan)
    block[[levels.index(float(level)) for level in variable.levels]] = channels
    return np.moveaxis(block, 0, axis)


def encode_leads(dataset: xr.Dataset) -> xr.Dataset:
    """The same dataset, whose lead times are stored as hours where they are whole hours, else as seconds."""
    seconds = dataset["lead_time"].values.astype("timedelta64[s]").astype(int)
    dataset["lead_time"].encoding = {"units": "hours" if not (seconds % 3600).any() else "seconds"}
    return dataset


@dataclass(frozen=True)
class ScoreLayout:
    """Lay out scores as Datasets.

    variables: all that are scored. points: number of grid points. plain: number of channels before those of vectors.
    """

    variables: VariableSet
    leads: np.ndarray
    regions: tuple[str, ...]
    points: int
    plain: int

    def scores(
        self, values: np.ndarray, names: Sequence[str], inits: np.ndarray, missing: np.ndarray, attributes: dict
    ) -> xr.Dataset:
        """Scores out of values (metric, region, lead, channel); missing: points without a value, (lead, channel)."""
        import xarray as xr

        arrays = {}
        for variable in self.variables:
            dims, block = self.block(variable, values)
            attrs: dict[str, object] = {"units": variable.units}
            channels = self.variables.slice(variable.name)
            if channels.start < self.plain:
                cells = inits.sum() * variable.size * self.points
                attrs["nan_share"] = float(missing[:, channels].sum() / cells)
            arrays[variable.name] = (("metric", *dims), block, attrs)
        return encode_leads(xr.Dataset(arrays, {"metric": [*names], **self.coordinates(inits)}, attributes))

    def histograms(
        self, values: Mapping[str, tuple[tuple[str, ...], np.ndarray]], inits: np.ndarray, attributes: dict
    ) -> xr.Dataset:
        """Scores with axes of their own; values: by metric (names of these axes, (*axes, region, lead, channel))."""
        import xarray as xr

        arrays: dict[str, Any] = {}
        coords = self.coordinates(inits)
        for name, (axes, array) in values.items():
            sizes = dict(zip(axes, array.shape, strict=False))
            coords |= {dim: np.arange(n) / ((n - 1) if dim == "probability" else 1) for dim, n in sizes.items()}
            for variable in self.variables:
                if self.variables.slice(variable.name).start < self.plain:
                    dims, block = self.block(variable, array)
                    arrays[f"{variable.name}_{name}"] = ((*axes, *dims), block, {})
        return encode_leads(xr.Dataset(arrays, coords, attributes))

    def coordinates(self, inits: np.ndarray) -> dict[str, Any]:
        """Regions, leads with their number of initial times, and levels."""
        return {
            "region": list(self.regions),
            "lead_time": self.leads.astype("timedelta64[ns]"),
            "inits": ("lead_time", inits, {"long_name": "number of initial times scored"}),
            **level_coordinate(self.variables),
        }

    def block(self, variable: Variable, values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
        """The channels of one variable out of (..., region, lead, channel), and its dims from the region on."""
        dims = ("region", "lead_time", "level") if variable.levels else ("region", "lead_time")
        return dims, level_block(values, -1, variable, self.variables)
