"""Arrays whose values are read, or computed from other fields, when they are needed.

xarray treats them as it treats an array in a file: indexing is recorded, and reading gets the combined index. No other
module uses `xarray.core.indexing`, which xarray documents for writers of backends but does not export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing


class LazyArray(BackendArray):
    """Read parts of an array of known shape and dtype; a subclass sets these two and defines `read`."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self.read)

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Return the values at `key`, an int, a slice or an array of positions for each dimension."""
        raise NotImplementedError


def lazy_variable(
    dims: tuple[Any, ...],
    array: LazyArray,
    attributes: Mapping[Any, Any] | None = None,
    encoding: Mapping[Any, Any] | None = None,
) -> xr.Variable:
    """Return a Variable that reads from `array` when its values are needed."""
    return xr.Variable(dims, indexing.LazilyIndexedArray(array), attributes, encoding)


class LazySource(NamedTuple):
    """Say what a Variable reads from.

    key: for each axis of the array, an int, a slice or positions. order: the axes of the array, but those that an int
    drops, in the order of the Variable's.
    """

    array: LazyArray
    key: tuple[Any, ...]
    order: tuple[int, ...]

    def positions(self) -> list[np.ndarray]:
        """Return the positions on each axis of the array; one where an int drops the axis."""
        return [np.atleast_1d(np.arange(size)[index]) for index, size in zip(self.key, self.array.shape, strict=True)]


def lazy_source(variable: xr.Variable) -> LazySource | None:
    """Return the LazyArray that a Variable reads from, each axis by itself.

    None if it holds values, was computed from another, or selects points rather than rows and columns.
    """
    data: Any = variable._data
    if not isinstance(data, indexing.LazilyIndexedArray) or not isinstance(data.array, LazyArray):
        return None
    if isinstance(data.array, _TransposedArray):
        return data.array.source(data.key.tuple)
    return LazySource(data.array, data.key.tuple, _kept(data.key.tuple, range(len(data.key.tuple))))


def transposed(dataset: xr.Dataset, *dims: Any) -> xr.Dataset:
    """Return the dataset with its dimensions in the order of `dims` (... stands for the others), read as stored.

    Indexing what xarray has transposed lazily makes arrays of positions of all the points selected, 12 times as large
    as single-precision values in 6 dimensions, and reads point by point; here each axis is indexed by itself.
    """
    result = dataset.transpose(*dims, missing_dims="ignore")
    fields = {}
    for name, field in dataset.data_vars.items():
        variable, order = field.variable, result[name].dims
        if field.dims != order and isinstance(variable._data, indexing.ExplicitlyIndexed):
            array = _TransposedArray(variable, tuple(field.dims.index(dim) for dim in order))
            fields[name] = lazy_variable(order, array, variable.attrs, variable.encoding)
    return result.assign(fields)


def _kept(key: tuple[Any, ...], axes: Iterable[int]) -> tuple[int, ...]:
    """Return those of `axes` that no int drops."""
    return tuple(axis for axis in axes if not isinstance(key[axis], int | np.integer))


def _composed(first: Any, then: Any, size: int) -> Any:
    """Return the index on an axis of `size` that selects what `then` does of what `first` does."""
    if isinstance(first, slice) and isinstance(then, slice):
        positions = range(size)[first][then]
        return slice(positions.start, positions.stop if positions.stop >= 0 else None, positions.step)
    return np.arange(size)[first][then]


class _StoredArray(LazyArray):
    """Read an array that xarray indexes lazily."""

    def __init__(self, variable: xr.Variable) -> None:
        self.variable, self.shape, self.dtype = variable, variable.shape, variable.dtype

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        return self.variable.isel(dict(zip(self.variable.dims, key, strict=True))).values


class _TransposedArray(LazyArray):
    """Read a Variable with its axes in another order: as it is stored, then transposed in memory."""

    def __init__(self, variable: xr.Variable, order: tuple[int, ...]) -> None:
        whole = LazySource(_StoredArray(variable), (slice(None),) * variable.ndim, tuple(range(variable.ndim)))
        self.stored = lazy_source(variable) or whole
        self.order = tuple(self.stored.order[axis] for axis in order)
        self.shape = tuple(variable.shape[axis] for axis in order)
        self.dtype = variable.dtype

    def source(self, key: tuple[Any, ...]) -> LazySource:
        """Say what is read at `key`."""
        within = list(self.stored.key)
        for axis, index in zip(self.order, key, strict=True):
            within[axis] = _composed(within[axis], index, self.stored.array.shape[axis])
        return LazySource(self.stored.array, tuple(within), _kept(tuple(within), self.order))

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        array, within, order = self.source(key)
        stored = _kept(within, range(len(within)))
        return array.read(within).transpose([stored.index(axis) for axis in order])


Rule = Callable[[xr.Dataset], xr.DataArray]
LEADING = ("member", "time", "prediction_timedelta")


def computed_when_read(dataset: xr.Dataset, rule: Rule, dim: str = "", before: int = 0) -> xr.DataArray:
    """Return the field that `rule` computes from a dataset, lazily: reading some times reads only these of the dataset.

    The same holds for members and lead times. Only the shape is found now, by applying the rule to ones. The field has
    single precision if all fields of the dataset have. ValueError if the rule lacks a variable.
    dim, before: the rule needs `before` more positions along `dim` before each, as running sums do, and gives NaN where
    they do not exist.
    """
    with np.errstate(all="ignore"):
        answer = rule(_ones(dataset, {dim: before + 1}))
    answer = answer.transpose(*(d for d in LEADING if d in answer.dims), ...)
    shape = tuple(dataset.sizes[d] if d in LEADING else answer.sizes[d] for d in answer.dims)
    single = all(field.dtype.itemsize <= 4 for field in dataset.data_vars.values())
    array = _ComputedArray(dataset, rule, answer.dims, shape, np.dtype("f4") if single else answer.dtype, dim, before)
    coords = {name: dataset.coords[name] for name in answer.dims if name in dataset.coords}
    return xr.Dataset({"computed": lazy_variable(answer.dims, array, answer.attrs)}, coords)["computed"]


def _ones(dataset: xr.Dataset, most: dict[str, int]) -> xr.Dataset:
    """Return a dataset of ones with the first time of each (`most` along some dimensions); nothing is read."""
    sizes = {dim: min(most.get(dim, 1), dataset.sizes[dim]) for dim in LEADING if dim in dataset.dims}
    fields = {}
    for name, field in dataset.data_vars.items():
        shape = [sizes.get(str(dim), field.sizes[dim]) for dim in field.dims]
        fields[name] = (field.dims, np.ones(shape, dtype=field.dtype), field.attrs)
    coords = {
        name: coord.isel({dim: slice(0, size) for dim, size in sizes.items() if dim in coord.dims})
        for name, coord in dataset.coords.items()
    }
    return xr.Dataset(fields, coords)


class _ComputedArray(LazyArray):
    """Compute an array by a rule when it is read."""

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

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        indices = [np.arange(size)[index] for size, index in zip(self.shape, key, strict=True)]
        if any(index.size == 0 for index in indices):
            return np.empty([index.size for index in indices if index.ndim], dtype=self.dtype)
        places = {dim: np.atleast_1d(index) for dim, index in zip(self.dims, indices, strict=True)}
        values = self._with_those_before({dim: place for dim, place in places.items() if dim in LEADING})
        for axis, dim in enumerate(self.dims):
            if dim not in LEADING:
                values = np.take(values, places[dim], axis=axis)
        return values.reshape([index.size for index in indices if index.ndim])

    def _with_those_before(self, places: dict[Any, np.ndarray]) -> np.ndarray:
        """Compute the values at `places`; each run of neighbours along `dim` is read at once with those before it."""
        if not self.before:
            return self._of(places)
        positions, inverse = np.unique(places[self.dim], return_inverse=True)
        axis, pieces = self.dims.index(self.dim), []
        for run in np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1):
            first = max(0, int(run[0]) - self.before)
            last = min(self.shape[axis] - 1, max(int(run[-1]), first + self.before))
            values = self._of(places | {self.dim: np.arange(first, last + 1)})
            pieces.append(np.take(values, run - first, axis=axis))
        return np.take(np.concatenate(pieces, axis=axis), inverse.reshape(-1), axis=axis)

    def _of(self, places: dict[Any, np.ndarray]) -> np.ndarray:
        selection = {dim: _slice(place) for dim, place in places.items()}
        subset = self.dataset.isel(selection)
        return self.rule(subset).transpose(*self.dims).values.astype(self.dtype, copy=False)


def _slice(places: np.ndarray) -> slice | np.ndarray:
    """Return positions that follow each other as a slice, which is read faster."""
    contiguous = places.size and (np.diff(places) == 1).all()
    return slice(int(places[0]), int(places[-1]) + 1) if contiguous else places
