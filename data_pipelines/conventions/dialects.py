"""Dialects: the names that archives use for variables of WeatherBench 2, listed in `names.yaml`.

A dialect renames variables, puts layers that are stored apart (`air_temperature_0`, ...) on one dimension, converts
units, and finds the half levels of hybrid coordinates, p = a + b ps (Simmons & Burridge 1981, doi
10.1175/1520-0493(1981)109<0758:AEAAMC>2.0.CO;2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from data_pipelines.conventions.suggestions import listing, nearest_name, suggestion

TABLE = Path(__file__).with_name("names.yaml")


# (coefficients a at half levels, their factor or its name, b at half levels) as archives store them.
HALF_LEVELS = (("hyai", "P0", "hybi"), ("ap_bnds", 1.0, "b_bnds"), ("a_bnds", "p0", "b_bnds"), ("ak", 1.0, "bk"))


@dataclass(frozen=True)
class Dialect:
    """Hold tables of names and layers, name in the data -> WeatherBench 2 name, and of units by WeatherBench 2 name."""

    names: Mapping[str, str] = field(default_factory=dict)
    layers: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)


@cache
def dialects() -> dict[str, Dialect]:
    """Read all dialects by name, including `common`."""
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {
        name: Dialect(
            {short: long for long, shorts in sections.get("names", {}).items() for short in shorts},
            {short: long for long, shorts in sections.get("layers", {}).items() for short in shorts},
            {long: str(units) for long, units in sections.get("units", {}).items()},
        )
        for name, sections in table.items()
    }


def dialect(name: str | None) -> Dialect:
    """Return the dialect called `name`; None: one that changes nothing."""
    if name is None:
        return Dialect()
    tables = {key: value for key, value in dialects().items() if key != "common"}
    if name not in tables:
        raise ValueError(f"names: no table of names '{name}'; {suggestion(name, tables)}")
    return tables[name]


def nearest_variable(name: str, names: Iterable[Any]) -> str | None:
    """Return the one of `names` that is meant by a short name or a misspelling; None where that is none of them.

    A name that stands for another variable is never taken for a misspelling: 2m_temperature is not temperature.
    """
    existing = [str(n) for n in names]
    longs = [long for table in dialects().values() for long in (table.names.get(name), table.layers.get(name)) if long]
    longs += ["geopotential", "geopotential_height"] if name == "z" else []
    sums = [candidate for candidate in existing if re.fullmatch(rf"{re.escape(name)}_\d+hr", candidate)]
    if matches := [*(long for long in longs if long in existing), *sums]:
        return matches[0]
    standard = {long for table in dialects().values() for long in (*table.names.values(), *table.layers.values())}
    best = None if name in standard else nearest_name(name, {**dict.fromkeys(existing), **dict.fromkeys(standard)})
    return best if best in existing else None


def variable_hint(name: str, names: Iterable[Any]) -> str:
    """End an error message on an absent variable: `did you mean '...'?`, or the variables that exist."""
    existing = [str(n) for n in names]
    best = nearest_variable(name, existing)
    return f"did you mean '{best}'?" if best else listing(existing)


def spoken(dataset: xr.Dataset, name: str | None) -> xr.Dataset:
    """Rename the variables of a dialect to WeatherBench 2 names and stack its layers."""
    table = dialect(name)
    for short, long in table.layers.items():
        dataset = stacked(dataset, short, long)
    renaming: dict[str, str] = {}
    for short, long in table.names.items():
        if short in dataset.variables and long not in dataset.variables and long not in renaming.values():
            renaming[short] = long
    return dataset.rename(renaming)


def stacked(dataset: xr.Dataset, short: str, long: str, units: str = "") -> xr.Dataset:
    """Stack the variables `<short>_<number>` into one variable `long` on a dimension `level` of the numbers."""
    layers = {
        float(m[1]): str(n) for n in dataset.data_vars if (m := re.fullmatch(rf"{re.escape(short)}_(\d+)", str(n)))
    }
    if not layers or long in dataset.variables:
        return dataset
    levels = sorted(layers)
    fields = [dataset[layers[level]] for level in levels]
    lazy = [array if array.chunks else array.chunk({"time": 1} if "time" in array.dims else {}) for array in fields]
    joined = xr.concat(lazy, xr.Variable("level", levels, {"units": units} if units else {}), combine_attrs="override")
    return dataset.drop_vars(layers.values()).assign({long: joined.assign_attrs(fields[0].attrs)})


def hybrid_levels(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """Return half-level coefficients a in Pa and b, from the top down, (level + 1,) each; None if there are none."""
    dataset = _half_level_rows(dataset)
    for first, factor, second in HALF_LEVELS:
        if first not in dataset.variables or second not in dataset.variables:
            continue
        if isinstance(factor, str):
            factor = float(dataset[factor].values) if factor in dataset.variables else 1e5
        a, b = (_edges(np.asarray(dataset[n].values, dtype=np.float64)) for n in (first, second))
        if a is None or b is None or a.size != b.size:
            continue
        a = a * factor
        return (a, b) if b[0] <= b[-1] else (a[::-1], b[::-1])
    return None


def _half_level_rows(dataset: xr.Dataset) -> xr.Dataset:
    """Scalars ak_0, ak_1, ... as one row `ak`; the same for bk."""
    for name in ("ak", "bk"):
        scalars = {int(m[1]): n for n in dataset.variables if (m := re.fullmatch(rf"{name}_(\d+)", str(n)))}
        if scalars and name not in dataset.variables:
            values = [float(np.asarray(dataset[scalars[i]].values).reshape(-1)[0]) for i in sorted(scalars)]
            dataset = dataset.assign({name: ("half_level", values)})
    return dataset


def _edges(values: np.ndarray) -> np.ndarray | None:
    """Return half levels as a row, from a row or from the two bounds of every layer."""
    if values.ndim == 1:
        return values
    if values.ndim == 2 and values.shape[1] == 2:
        return np.append(values[:, 0], values[-1, 1])
    return None
