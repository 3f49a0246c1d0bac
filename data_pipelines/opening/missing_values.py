"""Decode stored numbers by the CF conventions: what marks missing values, valid ranges and packing (2.5.1 and 8.1).

Values that mark missing ones are compared in the type of the data, to single precision: -999.9 as a double marks the
-999.9 of single-precision data. Where NetCDF data declare no `_FillValue`, the library's default marks what was never
written (Unidata, NetCDF Users Guide, attribute conventions, https://docs.unidata.ucar.edu/nug).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from data_pipelines.conventions.lazy_arrays import LazyArray, lazy_variable

PACKING = ("scale_factor", "add_offset")
MARKS = ("_FillValue", "missing_value")
RANGES = ("valid_range", "valid_min", "valid_max")
PRECISION = 1e-6  # relative; single precision has 6e-8


class Validity(NamedTuple):
    """Say which stored numbers are missing: those equal to one of `marks`, below `low`, or above `high`."""

    marks: tuple[Any, ...]
    low: Any = None
    high: Any = None

    def missing(self, stored: np.ndarray) -> np.ndarray:
        """Return where stored numbers are missing."""
        absent = np.zeros(stored.shape, dtype=bool)
        for mark in self.marks:
            slack = abs(mark) * PRECISION
            absent |= (
                (stored >= mark - slack) & (stored <= mark + slack) if stored.dtype.kind == "f" else stored == mark
            )
        if self.low is not None:
            absent |= stored < self.low
        if self.high is not None:
            absent |= stored > self.high
        return absent


class MarkedArray(LazyArray):
    """Replace all missing values of a stored variable by one mark.

    as_type: of the numbers, where integers are stored with the sign that they do not have (`_Unsigned`).
    """

    def __init__(self, stored: xr.Variable, validity: Validity, mark: Any, as_type: np.dtype) -> None:
        self.stored, self.validity, self.mark, self.as_type = stored, validity, mark, as_type
        self.shape, self.dtype = stored.shape, stored.dtype

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Return the stored numbers at `key`."""
        values = np.array(self.stored[key].values)
        values[self.validity.missing(values.view(self.as_type))] = self.mark
        return values


def decoded(dataset: xr.Dataset, origin: str, fills: Mapping[Any, Any] | None = None) -> xr.Dataset:
    """Decode a dataset that was opened with `decode_cf=False`, lazily; times stay numbers.

    fills: of variables without `_FillValue`, what the file holds where nothing was written. ValueError names an
    attribute that cannot be used.
    """
    fills = fills or {}
    prepared = {
        name: _prepared(name, variable, origin, fills.get(name))
        for name, variable in dataset.variables.items()
        if variable.dtype.kind in "iuf"
    }
    dataset = dataset.assign({n: v for n, v in prepared.items() if n in dataset.data_vars}).assign_coords(
        {n: v for n, v in prepared.items() if n in dataset.coords}
    )
    return xr.decode_cf(dataset, decode_times=False)


def without_idle_zeros(dataset: xr.Dataset, declared: Mapping[Any, Any]) -> xr.Dataset:
    """Drop the fill values of zero that Zarr v2 gives every array, so that zeros are numbers.

    declared: attributes of each array as stored. A packed variable keeps a zero if other arrays have no fill value: its
    writer then chose it.
    """
    deliberate = any("_FillValue" not in variable.attrs for variable in dataset.variables.values())
    dataset = dataset.copy()
    for name, variable in dataset.variables.items():
        fill = variable.attrs.get("_FillValue")
        is_declared = "_FillValue" in declared.get(name, ())
        packed = variable.ndim > 1 and any(key in variable.attrs for key in PACKING)
        zero = fill is not None and np.ndim(fill) == 0 and fill == 0
        if variable.dtype.kind in "iuf" and zero and not (is_declared or (packed and deliberate)):
            del variable.attrs["_FillValue"]
    return dataset


def _prepared(name: Any, variable: xr.Variable, origin: str, fill: Any) -> xr.Variable:
    """Return a stored variable whose missing values all equal its `_FillValue`, or are NaN."""
    where = f"'{name}' in {origin}"
    attributes = {key: value for key, value in variable.attrs.items() if key not in (*MARKS, *RANGES)}
    for key in PACKING:
        if key in attributes:
            attributes[key] = _numbers(attributes[key], where, key, 1)[0]
            if not np.isfinite(attributes[key]) or (key == "scale_factor" and not attributes[key]):
                raise ValueError(f"{where} has {key}={attributes[key]}, which leaves no values; correct the attribute.")
    dtype = _number_type(variable)
    marks = _marks(variable, where, dtype, fill)
    is_field = variable.ndim > 1 or (variable.ndim == 1 and variable.dims[0] != name)
    validity = Validity(marks, *(_range(variable, attributes, where, dtype) if is_field else (None, None)))
    result = variable.copy(deep=False)
    result.attrs = attributes
    if validity == Validity(()):
        return result
    is_float = dtype.kind == "f"
    mark = np.asarray(_mark(validity, dtype), dtype).view(variable.dtype)[()]
    exact = not is_float or dtype.itemsize == 4 or all(number == fill or _is_exact(number) for number in marks)
    if len(marks) == 1 and validity.low is None and validity.high is None and exact:
        result.attrs["_FillValue"] = np.asarray(marks[0], dtype).view(variable.dtype)[()]
        return result
    if not is_float:
        attributes = {**attributes, "_FillValue": mark}
    return lazy_variable(variable.dims, MarkedArray(result, validity, mark, dtype), attributes, variable.encoding)


def _is_exact(number: Any) -> bool:
    """Return whether single and double precision hold the same number, whichever it was written in."""
    return bool(number == np.round(number) and abs(number) <= 2**24)


def _number_type(variable: xr.Variable) -> np.dtype:
    """Return the type of the numbers that a variable stores: unsigned, or signed, where its attribute says so."""
    unsigned = str(variable.attrs.get("_Unsigned", "")).lower()
    kind = {"true": "u", "false": "i"}.get(unsigned, "") if variable.dtype.kind in "iu" else ""
    return np.dtype(f"{kind}{variable.dtype.itemsize}") if kind else variable.dtype


def _numbers(value: Any, where: str, key: str, most: int | None = None) -> list[Any]:
    """Return the numbers of an attribute, which may be text; ValueError names it where they are none."""
    if isinstance(value, str | bytes):
        text = value.decode() if isinstance(value, bytes) else value
        value = [
            word.rstrip("fFdDlL") if word[:1] in "+-.0123456789" else word for word in text.replace(",", " ").split()
        ]
    entries = np.asarray(value).reshape(-1)
    try:
        numbers = [float(entry) if isinstance(entry, str) else entry for entry in entries]
        if numbers and (most is None or len(numbers) <= most) and all(np.isreal(entry) for entry in numbers):
            return numbers
    except (TypeError, ValueError):
        pass
    expected = "a number" if most == 1 else "numbers"
    raise ValueError(f"{where} has {key}={value!r}; expected {expected}. Correct the attribute, or remove it.")


def _marks(variable: xr.Variable, where: str, dtype: np.dtype, fill: Any) -> tuple[Any, ...]:
    """Return the stored numbers that stand for missing values, each once, without those that cannot be stored."""
    numbers = [n for key in MARKS if key in variable.attrs for n in _numbers(variable.attrs[key], where, key)]
    if "_FillValue" not in variable.attrs and fill is not None:
        numbers.append(fill)
    marks: dict[Any, None] = {}
    for number in numbers:
        if dtype.kind == "f" and np.isfinite(number):
            with np.errstate(over="ignore"):
                marks[dtype.type(number)] = None
        elif dtype.kind in "iu" and np.isfinite(number) and number == int(number):
            limits, integer = np.iinfo(dtype), int(number)
            if integer < 0 and dtype.kind == "u" and variable.dtype.kind == "i":
                integer += 2 ** (8 * dtype.itemsize)  # the same bits
            if limits.min <= integer <= limits.max:
                marks[dtype.type(integer)] = None
    return tuple(mark for mark in marks if np.isfinite(mark))


def _range(variable: xr.Variable, packing: Mapping[Any, Any], where: str, dtype: np.dtype) -> tuple[Any, Any]:
    """Return the least and greatest valid stored number; None where there is no such bound.

    Bounds of packed integers that are no integers themselves are of the unpacked numbers.
    """
    attrs = variable.attrs
    low, high = (_numbers(attrs[key], where, key, 1)[0] if key in attrs else None for key in ("valid_min", "valid_max"))
    if "valid_range" in attrs:
        pair = _numbers(attrs["valid_range"], where, "valid_range", 2)
        if len(pair) != 2:
            raise ValueError(f"{where} has valid_range={attrs['valid_range']!r}; expected the least and the greatest.")
        low, high = pair
    bounds = [bound for bound in (low, high) if bound is not None]
    if not bounds:
        return None, None
    if (
        dtype.kind != "f"
        and any(np.asarray(bound).dtype.kind == "f" for bound in bounds)
        and packing.keys() & set(PACKING)
    ):
        scale, offset = (float(packing.get(key, usual)) for key, usual in zip(PACKING, (1.0, 0.0), strict=True))
        low, high = (None if bound is None else (float(bound) - offset) / scale for bound in (low, high))
        low, high = (high, low) if scale < 0 else (low, high)
    elif dtype.kind == "u" and variable.dtype.kind == "i":  # the same bits
        low, high = (
            bound + 2 ** (8 * dtype.itemsize) if bound is not None and bound < 0 else bound
            for bound in (None if edge is None else int(edge) for edge in (low, high))
        )
    if low is not None and high is not None and low > high:
        raise ValueError(
            f"{where} is valid from {low} to {high} by valid_range, valid_min and valid_max, which is nowhere; "
            "correct these attributes."
        )
    if dtype.kind == "f":
        return tuple(
            None
            if bound is None or not np.isfinite(bound)
            else dtype.type(float(bound) + sign * PRECISION * abs(float(bound)))
            for bound, sign in ((low, -1), (high, 1))
        )  # type: ignore[return-value]
    limits = np.iinfo(dtype)
    least = None if low is None or low <= limits.min else dtype.type(min(np.ceil(low - 1e-3), limits.max))
    return least, None if high is None or high >= limits.max else dtype.type(max(np.floor(high + 1e-3), limits.min))


def _mark(validity: Validity, dtype: np.dtype) -> Any:
    """Return a number that no valid value of a variable has."""
    if dtype.kind == "f":
        return np.nan
    if validity.marks:
        return validity.marks[0]
    if validity.low is not None:
        return int(validity.low) - 1
    return int(validity.high) + 1
