"""Arrays whose values are read, or computed from other fields, when they are needed.

xarray treats them as it treats an array in a file: indexing is recorded, and reading gets the combined index. No other
module uses `xarray.core.indexing`, which xarray documents for writers of backends but does not export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    key: for each axis of the array, an int, a slice or positions. vectorised: whether positions broadcast against
    each other, as in NumPy's advanced indexing, rather than index each axis by itself. order: the axes of the array in
    the order of the Variable's; empty: as they are.
    """

    array: LazyArray
    key: tuple[Any, ...]
    vectorised: bool
    order: tuple[int, ...] = ()

    def axes(self, shape: tuple[int, ...]) -> list[tuple[int | None, np.ndarray]] | None:
        """Find for each axis of the array the axis of the Variable, of `shape`, that it makes, and the positions on it.

        None for an axis that is dropped. None if the key selects points rather than rows and columns.
        """
        if not self.vectorised:
            order = [axis for axis in self.order or range(len(self.key)) if not _is_int(self.key[axis])]
            return [
                (None, np.array([k])) if _is_int(k) else (order.index(axis), np.arange(size)[k])
                for axis, (k, size) in enumerate(zip(self.key, self.array.shape, strict=True))
            ]
        if not all(isinstance(k, np.ndarray) for k in self.key):
            return None
        long = [[n for n, size in enumerate(k.shape) if size > 1] for k in self.key]
        used = [n for dims in long for n in dims]
        if any(len(dims) > 1 for dims in long) or len(set(used)) < len(used):
            return None
        left = iter(
            [n for n in range(len(shape)) if n not in used]
        )  # of one position each, whichever axis they come from
        return [(dims[0] if dims else next(left, None), k.reshape(-1)) for dims, k in zip(long, self.key, strict=True)]


def lazy_source(variable: xr.Variable) -> LazySource | None:
    """Return the LazyArray that a Variable reads from; None if it holds values or was computed from another."""
    data: Any = variable._data
    if not isinstance(data, indexing.LazilyIndexedArray | indexing.LazilyVectorizedIndexedArray):
        return None
    if not isinstance(data.array, LazyArray):
        return None
    vectorised = isinstance(data.key, indexing.VectorizedIndexer)
    if isinstance(data.array, _TransposedArray) and not vectorised:
        return data.array.source(data.key.tuple)
    return LazySource(data.array, data.key.tuple, vectorised)


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


def _is_int(key: Any) -> bool:
    return isinstance(key, int | np.integer)


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
        source = lazy_source(variable)
        if source is None or source.vectorised:
            source = LazySource(_StoredArray(variable), (slice(None),) * variable.ndim, False)
        axes = [axis for axis in source.order or range(len(source.key)) if not _is_int(source.key[axis])]
        self.stored = source
        self.order = tuple(axes[axis] for axis in order)
        self.shape = tuple(variable.shape[axis] for axis in order)
        self.dtype = variable.dtype

    def source(self, key: tuple[Any, ...]) -> LazySource:
        """Say what is read at `key`: of the array that is stored, with its axes in the order of this one."""
        within = list(self.stored.key)
        for axis, index in zip(self.order, key, strict=True):
            within[axis] = _composed(within[axis], index, self.stored.array.shape[axis])
        return LazySource(self.stored.array, tuple(within), False, self.order)

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        within = self.source(key).key
        values = self.stored.array.read(within)
        stored = [axis for axis, index in enumerate(within) if not _is_int(index)]
        return values.transpose([stored.index(axis) for axis in self.order if axis in stored])


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
