"""Fields made from others when they are read: only for the times that are asked for, from what is stored at these.

xarray sees them as it sees a field in a file. Ahead of time only the shape is found, from a rule's answer to ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

Rule = Callable[[xr.Dataset], xr.DataArray]
LEADING = ("member", "time", "prediction_timedelta")


def computed_when_read(dataset: xr.Dataset, rule: Rule, dim: str = "", before: int = 0) -> xr.DataArray:
    """The field that `rule` makes of the dataset; reading a part of its members, times and leads reads only these.

    dim, before: the rule also reads so many positions before each along `dim`, as sums do, and gives NaN where they do
    not exist. It is in single precision where all fields are. ValueError where the rule lacks what it needs.
    """
    with np.errstate(all="ignore"):
        answer = rule(_ones(dataset, {dim: before + 1}))
    answer = answer.transpose(*(d for d in LEADING if d in answer.dims), ...)
    shape = tuple(dataset.sizes[d] if d in LEADING else answer.sizes[d] for d in answer.dims)
    single = all(field.dtype.itemsize <= 4 for field in dataset.data_vars.values())
    array = _Made(dataset, rule, answer.dims, shape, np.dtype("f4") if single else answer.dtype, dim, before)
    variable = xr.Variable(answer.dims, indexing.LazilyIndexedArray(array), answer.attrs)
    coords = {name: dataset.coords[name] for name in answer.dims if name in dataset.coords}
    return xr.Dataset({"made": variable}, coords)["made"]


def _ones(dataset: xr.Dataset, most: dict[str, int]) -> xr.Dataset:
    """The dataset at one of its times (`most` along some), every value 1; nothing is read."""
    few = {dim: min(most.get(dim, 1), dataset.sizes[dim]) for dim in LEADING if dim in dataset.dims}
    fields = {}
    for name, field in dataset.data_vars.items():
        shape = [few.get(str(dim), field.sizes[dim]) for dim in field.dims]
        fields[name] = (field.dims, np.ones(shape, dtype=field.dtype), field.attrs)
    coords = {
        name: coord.isel({dim: slice(0, size) for dim, size in few.items() if dim in coord.dims})
        for name, coord in dataset.coords.items()
    }
    return xr.Dataset(fields, coords)


class _Made(BackendArray):
    """An array that is made on reading."""

    def __init__(
        self,
        dataset: xr.Dataset,
        rule: Rule,
        dims: tuple[Any, ...],
        shape: tuple[int, ...],
        dtype: np.dtype,
        dim: str,
        before: int,
    ) -> None:
        self.dataset, self.rule, self.dims, self.shape, self.dtype = dataset, rule, dims, shape, dtype
        self.dim, self.before = dim, before

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        """The values at `key`, an int, a slice or positions for each dimension."""
        at = [np.arange(size)[one] for size, one in zip(self.shape, key, strict=True)]
        if any(one.size == 0 for one in at):
            return np.empty([one.size for one in at if one.ndim], dtype=self.dtype)
        places = {dim: np.atleast_1d(one) for dim, one in zip(self.dims, at, strict=True)}
        values = self._with_those_before({dim: place for dim, place in places.items() if dim in LEADING})
        for axis, dim in enumerate(self.dims):
            if dim not in LEADING:
                values = np.take(values, places[dim], axis=axis)
        return values.reshape([one.size for one in at if one.ndim])

    def _with_those_before(self, places: dict[Any, np.ndarray]) -> np.ndarray:
        """The values at `places`; along `dim` each run of neighbours is read in one go with those before it."""
        if not self.before:
            return self._of(places)
        wanted, back = np.unique(places[self.dim], return_inverse=True)
        axis, found = self.dims.index(self.dim), []
        for run in np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1):
            first = max(0, int(run[0]) - self.before)
            last = min(self.shape[axis] - 1, max(int(run[-1]), first + self.before))
            values = self._of(places | {self.dim: np.arange(first, last + 1)})
            found.append(np.take(values, run - first, axis=axis))
        return np.take(np.concatenate(found, axis=axis), back.reshape(-1), axis=axis)

    def _of(self, places: dict[Any, np.ndarray]) -> np.ndarray:
        chosen = {dim: _slice(place) for dim, place in places.items()}
        part = self.dataset.isel(chosen)
        return self.rule(part).transpose(*self.dims).values.astype(self.dtype, copy=False)


def _slice(places: np.ndarray) -> slice | np.ndarray:
    """Positions that follow each other as a slice, which is read faster."""
    run = places.size and (np.diff(places) == 1).all()
    return slice(int(places[0]), int(places[-1]) + 1) if run else places
