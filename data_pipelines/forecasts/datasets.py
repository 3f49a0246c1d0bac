"""Collect the States of forecasts as an xarray.Dataset in the WeatherBench 2 layout."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from data_pipelines.forecasts.layout import Layout
from emulators.state import State


def forecast_dataset(states: Iterable[State], layout: Layout) -> xr.Dataset:
    """Collect States at lead 1, 2, ..., each ([member,] init, channel, *grid), as a Dataset in memory, float32.

    layout: initial times, number of leads and members of the forecast. Dimensions: those of `emul forecast`, time
    (initial time), number (member), prediction_timedelta, level, latitude, longitude.
    """
    arrays = {v.name: np.full(layout.shape(v), np.nan, dtype=np.float32) for v in layout.world.predicted}
    members = len(layout.ensemble)
    for lead, state in enumerate(states):
        values = state.values.detach().float().cpu().numpy()
        values = np.moveaxis(values, 0, 1) if members else values  # members after initial times, as in the layout
        for variable in layout.world.predicted:
            field = values[:, ..., layout.world.predicted.slice(variable.name), :, :]
            target = np.moveaxis(arrays[variable.name], 1 + members, 0)[lead]
            if not variable.levels:
                target[...] = field[..., 0, :, :]
            else:
                target[..., np.searchsorted(layout.levels, variable.levels), :, :] = field
    fields = {v.name: (layout.dims(v), arrays[v.name], _decoded(layout.attrs(v))) for v in layout.world.predicted}
    dataset = xr.Dataset(fields, layout.coordinates(), layout.attrs_of_file())
    return xr.decode_cf(dataset, decode_timedelta=True)


def _decoded(attrs: dict[str, object]) -> dict[str, object]:
    """Attributes without `coordinates`, which files need and Datasets know."""
    return {name: value for name, value in attrs.items() if name != "coordinates"}
