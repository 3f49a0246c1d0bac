"""A packed store as a canonical dataset, read lazily: its channels as variables with levels.

`xr.open_dataset(path, engine="emul-packed")` opens one outside of emul.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendEntrypoint

from data_pipelines.conventions.lazy_arrays import LazyArray, lazy_source, lazy_variable
from data_pipelines.reading.packed_store import PackedStore, channel_runs
from emulators.variables import Variable, VariableSet

CLOCK = {"standard_name": "time"}


class PackedField(LazyArray):
    """Read one variable of a packed store, (time[, member][, level], *grid); a level that it lacks is NaN.

    channels: the channel of the store for each level, -1 for none.
    """

    def __init__(self, store: PackedStore, channels: tuple[int, ...], has_levels: bool) -> None:
        self.store, self.channels, self.has_levels = store, channels, has_levels
        rows, _, *points = store.shape
        self.times = rows // store.members
        members = (store.members,) if store.members > 1 else ()
        self.shape = (self.times, *members, *((len(channels),) if has_levels else ()), *points)
        self.dtype = np.dtype("float32")

    def read(self, key: tuple[int | slice | np.ndarray, ...]) -> np.ndarray:
        """Return the values at `key`, an index for each dimension."""
        key = key if self.store.members > 1 else (key[0], 0, *key[1:])
        key = key if self.has_levels else (*key[:2], 0, *key[2:])
        sizes, points = (self.times, self.store.members, len(self.channels)), self.store.shape[2:]
        times, members, levels = (np.atleast_1d(np.arange(size)[k]) for size, k in zip(sizes, key[:3], strict=True))
        out = np.full((times.size * members.size, levels.size, *points), np.nan, dtype=np.float32)
        pairs = [(self.channels[level], n) for n, level in enumerate(levels) if self.channels[level] >= 0]
        self.store.read((times[:, None] + members * self.times).reshape(-1), out, channel_runs(pairs))
        if not _whole(key[3:]):
            for axis in range(out.ndim - 1, 1, -1):
                out = out[(*[slice(None)] * axis, key[1 + axis])]
        single = tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key[:3])
        return out.reshape(times.size, members.size, *out.shape[1:])[single]


def _whole(key: tuple[int | slice | np.ndarray, ...]) -> bool:
    return all(isinstance(k, slice) and k == slice(None) for k in key)


def packed_dataset(store: PackedStore) -> xr.Dataset:
    """Return the canonical dataset of a packed store.

    If its variables differ in their levels, the attribute `levels` of each lists its own.
    """
    levels = sorted({level for variable in store.variables for level in variable.levels})
    points = ("latitude", "longitude") if store.cell_area_weight is None else ("cell",)
    coordinates = {
        "time": ("time", store.times[: len(store.times) // store.members].astype("datetime64[ns]"), CLOCK),
        "latitude": (points[0], store.latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": (points[-1], store.longitude, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    if store.cell_area_weight is not None:
        coordinates["cell_area_weight"] = ("cell", store.cell_area_weight, {"units": "1"})
    if levels:
        coordinates["level"] = ("level", np.array(levels), store.attributes["level_attributes"])
    fields, members = {}, ("member",) if store.members > 1 else ()
    for variable in store.variables:
        has_levels = bool(variable.levels)
        dims = ("time", *members, *(("level",) if has_levels else ()), *points)
        array = PackedField(store, _channels(store, variable, levels), has_levels)
        field = lazy_variable(dims, array, _attributes(variable))
        if has_levels and len(variable.levels) < len(levels):
            field.attrs["levels"] = list(variable.levels)
        field.encoding["preferred_chunks"] = {"time": 1}
        field.encoding["chunks"] = tuple(1 if dim in ("time", "member") else field.sizes[dim] for dim in dims)
        fields[variable.name] = field
    for variable in store.static_variables:
        values = np.stack([store.static[channel] for channel in variable.channels])
        dims = ("level", *points) if variable.levels else points
        fields[variable.name] = xr.Variable(dims, values if variable.levels else values[0], _attributes(variable))
    attributes = {**store.attributes["dataset"], "origin": str(store.path), "left_out": ""}
    return xr.Dataset(fields, coordinates, {**attributes, "roles": json.dumps(store.attributes["roles"])})


def _attributes(variable: Variable) -> dict[str, object]:
    attributes: dict[str, object] = {"units": variable.units}
    if variable.positive:
        attributes["positive"] = variable.positive
    if variable.truncation is not None:
        attributes["spectral_truncation"] = variable.truncation
    if variable.cell:
        kind, _, hours = variable.cell.partition(" ")
        attributes["cell_methods"] = f"time: {kind}" + (
            f" (interval: {hours.removesuffix('h')} hours)" if hours else ""
        )
    return attributes


def _channels(store: PackedStore, variable: Variable, levels: list[float]) -> tuple[int, ...]:
    if not variable.levels:
        return (store.channel(variable.name, None),)
    return tuple(store.channel(variable.name, v) if v in variable.levels else -1 for v in levels)


def packed_store_of(dataset: xr.Dataset, variables: VariableSet) -> tuple[PackedStore, Mapping[str, list[int]]] | None:
    """Return the packed store that holds all `variables` of a dataset unchanged, and their channels there, else None.

    A variable that was sliced, filled or computed from another is not what the store holds.
    """
    store, channels = None, {}
    for variable in variables:
        source = lazy_source(dataset[variable.name].variable)
        array = source.array if source is not None else None
        if source is None or not isinstance(array, PackedField) or not _whole(source.key):
            return None
        if store not in (None, array.store):
            return None
        store = array.store
        try:
            channels[variable.name] = [store.channel(variable.name, level) for level in variable.levels or (None,)]
        except ValueError:  # a level that the store lacks
            return None
    return (store, channels) if store is not None else None


class PackedBackend(BackendEntrypoint):
    """Open packed stores with `xr.open_dataset(path, engine="emul-packed")`."""

    description = "Open packed stores of emul"
    open_dataset_parameters = ("filename_or_obj", "drop_variables")

    def open_dataset(  # type: ignore[override]
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None
    ) -> xr.Dataset:
        """Return the dataset of the packed store at a path."""
        dataset = packed_dataset(PackedStore(filename_or_obj))
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return dataset.drop_vars(dropped, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return False, so that a path without `engine` is opened by the engine of Zarr."""
        return False
