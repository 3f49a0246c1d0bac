"""Units of quantities and of coordinates: unexpected ones are refused, or converted on request.

x in the base unit of its quantity = factor * x + offset

Common spellings are in a table; others are parsed by pint with the CF additions of cf-xarray. What neither knows stays
unknown and is not judged. Coordinates are read as degrees north and east and pressures in hPa; axes without a meaning
are refused. What is decided by values alone is said in the attribute `assumed_units` of the dataset.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.suggestions import option

# One row a unit: quantity, factor, offset, spellings.
# fmt: off
UNITS: tuple[tuple[str, float, float, tuple[str, ...]], ...] = (
    ("temperature", 1.0, 0.0, ("k", "kelvin", "kelvins", "degk", "deg k", "degree_kelvin")),
    (
        "temperature", 1.0, 273.15,
        ("c", "degc", "celsius", "deg_c", "deg c", "degree_c", "degrees_c", "degree c", "degrees c", "degree_celsius",
         "degrees_celsius", "degrees celsius", "degree celsius", "°c"),
    ),
    ("pressure", 1.0, 0.0, ("pa", "pascal", "pascals", "n m-2")),
    ("pressure", 100.0, 0.0, ("hpa", "mb", "mbar", "millibar", "millibars", "hectopascal", "hectopascals")),
    ("pressure", 1000.0, 0.0, ("kpa",)),
    ("length", 1.0, 0.0, ("m", "metre", "metres", "meter", "meters", "gpm")),
    ("length", 1000.0, 0.0, ("km",)),
    ("length", 10.0, 0.0, ("dam", "gpdam")),
    ("length", 0.01, 0.0, ("cm",)),
    ("length", 0.001, 0.0, ("mm", "kg m-2", "kg m2")),  # of liquid water
    ("potential", 1.0, 0.0, ("m2 s-2", "m2 s2", "j kg-1", "j kg")),
    ("ratio", 1.0, 0.0, ("kg kg-1", "kg kg", "1", "(0 - 1)", "fraction", "dimensionless")),
    ("ratio", 0.001, 0.0, ("g kg-1", "g kg")),
    ("ratio", 0.01, 0.0, ("%", "percent")),
    ("ratio", 1e-6, 0.0, ("ppm", "ppmv", "1e-6")),
    ("flux", 1.0, 0.0, ("w m-2", "w m2")),
    ("work", 1.0, 0.0, ("j m-2", "j m2")),
    ("speed", 1.0, 0.0, ("m s-1", "m s")),
    ("speed", 1.0 / 3.6, 0.0, ("km h-1", "km h")),
    ("speed", 0.514444, 0.0, ("kn", "knot", "knots")),
    ("speed", 0.001, 0.0, ("kg m-2 s-1", "kg m2 s", "mm s-1", "mm s")),  # of liquid water that falls
    ("speed", 0.001 / 86400.0, 0.0, ("mm day-1", "mm d-1", "mm day", "mm d")),
)
# fmt: on
# Of quantities in the table, as pint writes their dimensions.
DIMENSIONS = {
    "[temperature]": "temperature",
    "[mass] / [length] / [time] ** 2": "pressure",
    "[length]": "length",
    "[length] ** 2 / [time] ** 2": "potential",
    "dimensionless": "ratio",
    "[mass] / [time] ** 3": "flux",
    "[mass] / [time] ** 2": "work",
    "[length] / [time]": "speed",
}
_ROWS = {spelling: row[:3] for row in UNITS for spelling in row[3]}


def refuse_other_units(name: str, expected: str, actual: str, origin: str) -> None:
    """Raise ValueError if both units are known and differ."""
    if are_other_units(expected, actual):
        raise ValueError(
            f"'{name}' is in '{actual}' in {origin}; expected it in '{expected}'. Convert it first, or let its data "
            f"source do it: units={{{name}: {expected}}}."
        )


def are_other_units(first: str, second: str) -> bool:
    """Return whether two units are known and differ."""
    if _plain(first) == _plain(second):
        return False
    rows = [known_units(units) for units in (first, second)]
    return None not in rows and rows[0] != rows[1]


def are_undecided_units(first: str, second: str) -> bool:
    """Return whether two units are written in other words, of which at least one is not known."""
    if not first.strip() or not second.strip() or _plain(first) == _plain(second):
        return False
    return None in (known_units(first), known_units(second))


def are_base_units(units: str) -> bool:
    """Return whether these are known as the units of their quantity that the project works in."""
    row = known_units(units)
    return row is not None and row[1:] == (1.0, 0.0)


def known_units(units: str) -> tuple[str, float, float] | None:
    """Return (quantity, factor, offset) of units; None if they are unknown."""
    return _ROWS.get(_plain(units)) or (_parsed(units.strip()) if units.strip() else None)


@cache
def _parsed(units: str) -> tuple[str, float, float] | None:
    """Parse units that are not in the table."""
    from cf_xarray.units import units as registry

    words = [units, units.lower()] if re.search("[A-Za-z]{4}", units) else [units]  # `Pascal`, but `PA` is no pascal
    for text in words:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                unit = registry.Unit(text)
                at_zero, at_one = (registry.Quantity(x, unit).to_base_units().magnitude for x in (0.0, 1.0))
                quantity = str(unit.dimensionality)
        except Exception:  # pint raises many kinds for what are no units
            continue
        return DIMENSIONS.get(quantity, quantity), float(f"{at_one - at_zero:.12g}"), float(at_zero)
    return None


def in_units(name: str, field: xr.DataArray, conversion: str) -> xr.DataArray:
    """Convert a field to `K`, say; `degC -> K` if its own units are missing or wrong."""
    source_units, _, target_units = (part.strip() for part in conversion.rpartition("->"))
    source_units = source_units or str(field.attrs.get("units", ""))
    source, target = known_units(source_units), known_units(target_units)
    if _plain(source_units) == _plain(target_units) or (source and source == target):
        return field.assign_attrs(units=target_units)
    if source is None or target is None:
        unknown = source_units if source is None else target_units
        why = f"'{unknown}' is not known here" if unknown else "the data do not say theirs"
        raise ValueError(
            f"units: cannot convert '{name}' from '{source_units or 'no units'}' to '{target_units}': "
            f"{why}; write the units that they have, such as units={{{name}: 'degC -> K'}}."
        )
    if source[0] != target[0]:
        raise ValueError(
            f"units: '{name}' is in '{source_units}', a {source[0]}; '{target_units}' is a {target[0]}. "
            f"Choose units of {source[0]}."
        )
    factor, offset = source[1] / target[1], (source[2] - target[2]) / target[1]
    converted = field * np.float32(factor) + np.float32(offset) if offset else field * np.float32(factor)
    return converted.assign_attrs({**field.attrs, "units": target_units})


def _plain(units: str) -> str:
    return units.strip().lower().replace("**", "").replace("^", "").replace("/", " ")


DEGREES = ("", "1", "deg", "degree", "degrees", "degs", "°", "arc_degree", "unitless", "dimensionless")
SIDES = {
    "latitude": {"north": 1.0, "n": 1.0, "south": -1.0, "s": -1.0},
    "longitude": {"east": 1.0, "e": 1.0, "west": -1.0, "w": -1.0},
}
PRESSURES = ("plev", "pressure", "pressure_level", "isobaricInhPa", "isobaricInPa", "air_pressure", "isobaric")
RADIANS = ("rad", "rads", "radian", "radians")
PRESSURE_BY_NAME = {"isobaricInhPa": "hPa", "isobaricInPa": "Pa"}  # of cfgrib
STANDARD_LEVELS = 500.0, 1100.0  # where the lowest level of most data lies in hPa, of few in Pa
HIGHEST_PRESSURE, LEAST_PASCALS = 2000.0, 20_000.0  # hPa, above which no level lies; levels above that can only be Pa
WORDS = {"time": "times", "latitude": "latitudes", "longitude": "longitudes", "level": "levels"}


def degrees(coordinate: xr.DataArray, kind: str, origin: str) -> xr.DataArray:
    """Return latitudes in degrees north, longitudes in degrees east; ValueError names units that are no degrees."""
    units = str(coordinate.attrs.get("units", "")).strip()
    if np.issubdtype(coordinate.dtype, np.number):
        if units.lower() in RADIANS and np.abs(coordinate.values).max(initial=0.0) < 6.3:
            return coordinate.copy(data=np.rad2deg(coordinate.values.astype(np.float64)))
        sign = _sign(units, kind)
        if sign is None and known_units(units) is None and _spans_degrees(coordinate.values, kind):
            sign = 1.0  # units that say nothing, and values that can be nothing else
        if sign is not None:
            return coordinate if sign > 0 else (-coordinate).assign_attrs(coordinate.attrs)
        raise ValueError(
            f"'{coordinate.name}' in {origin} is in '{units}', not in degrees of {kind}: a projected or rotated grid; "
            "regrid the data to latitudes and longitudes first, or correct the attribute `units`."
        )
    raise ValueError(f"The {kind} '{coordinate.name}' in {origin} is of type {coordinate.dtype}; expected numbers.")


def _sign(units: str, kind: str) -> float | None:
    """Return the sign with which a coordinate counts degrees north or east; None if its units are none of these."""
    text = units.lower().replace(" ", "_")
    if text in DEGREES:
        return 1.0
    for head in ("degrees", "degree", "deg"):
        if text.startswith(head):
            return SIDES[kind].get(text.removeprefix(head).lstrip("_"))
    return None


def _spans_degrees(values: np.ndarray, kind: str) -> bool:
    """Return whether values are too far apart for radians, and not too far for degrees."""
    limit = 90.001 if kind == "latitude" else 720.0
    return bool(values.size and np.ptp(values) > 7.0 and np.abs(values).max() <= limit)


def refuse_radians(latitude: np.ndarray, longitude: np.ndarray, origin: str) -> None:
    """Raise ValueError where degrees can only be radians: a box of 2 pi that reaches from near -pi/2 to pi/2."""
    columns = np.unique(longitude)
    around = columns[-1] - columns[0] + np.median(np.diff(columns)) if columns.size > 2 else 0.0
    if np.abs(latitude).max() < 1.5709 and np.ptp(latitude) > 2.0 and abs(around - 2.0 * np.pi) < 0.02:
        raise ValueError(
            f"Latitudes and longitudes in {origin} are in radians by their values, {latitude.min():.3g} to "
            f"{latitude.max():.3g} and {columns[0]:.3g} to {columns[-1]:.3g}, and not by their units; give both the "
            "attribute units='radians', or convert them to degrees."
        )


def refuse_empty(dataset: xr.Dataset, origin: str) -> None:
    """Raise ValueError if a dimension has no entries."""
    for dim, size in dataset.sizes.items():
        if not size:
            what = WORDS.get(str(dim), f"entries along '{dim}'")
            raise ValueError(f"{origin} has no {what}: the dimension '{dim}' is empty.")


def refuse_nameless(dataset: xr.Dataset, names: Mapping[str, Sequence[str]], origin: str) -> None:
    """Raise ValueError if fields go along latitude or longitude, by any of `names`, without their values in degrees."""
    for kind in ("latitude", "longitude"):
        absent = [name for name in names[kind] if name in dataset.dims and name not in dataset.variables]
        if absent and kind not in dataset.variables:
            raise ValueError(
                f"The dimension '{absent[0]}' in {origin} has no coordinate, so its {WORDS[kind]} are unknown; add the "
                f"variable '{absent[0]}' to the data."
            )
    axes = [dataset[kind] for kind in ("latitude", "longitude") if kind in dataset.variables]
    if len(axes) == 2 and all(_are_positions(axis) for axis in axes) and axes[1].size < 360:
        raise ValueError(
            f"Latitudes and longitudes in {origin} are 0, 1, 2, ... without units, the numbers of rows and columns; "
            "give their values in degrees, or units='degrees_north' and 'degrees_east' if they are degrees."
        )


def _are_positions(axis: xr.DataArray) -> bool:
    """Return whether an axis without units counts its entries from 0, in either direction."""
    if axis.attrs.get("units") or axis.ndim != 1 or axis.size < 3:
        return False
    counted = np.arange(axis.size)
    return bool((axis.values == counted).all() or (axis.values == counted[::-1]).all())


def is_pressure(coordinate: xr.DataArray) -> bool:
    """Return whether levels are pressures by their units."""
    parsed = known_units(str(coordinate.attrs.get("units", "")))
    return parsed is not None and parsed[0] == "pressure"


def levels_with_units(coordinate: xr.DataArray, origin: str) -> tuple[dict[str, Any], str]:
    """Return the attributes of levels, with the units that follow from their values; also what was assumed.

    ValueError where values contradict the units, or say nothing certain without them.
    """
    attributes, units = dict(coordinate.attrs), str(coordinate.attrs.get("units", "")).strip()
    if not np.issubdtype(coordinate.dtype, np.number) or not coordinate.size:
        return attributes, ""
    greatest, parsed = float(np.max(coordinate.values)), known_units(units)
    parsed = None if parsed and parsed[0] == "ratio" and greatest > HIGHEST_PRESSURE else parsed  # no numbers of levels
    if parsed is not None and parsed[0] == "pressure" and greatest * parsed[1] / 100.0 > HIGHEST_PRESSURE:
        raise ValueError(
            f"The levels '{coordinate.name}' in {origin} reach {greatest:g} by the attribute units='{units}', which no "
            "air on Earth has; correct the attribute."
        )
    by_name = PRESSURE_BY_NAME.get(str(coordinate.name), "")
    if (
        parsed is not None
        and parsed[0] == "pressure"
        and parsed[1] == 1.0
        and STANDARD_LEVELS[0] <= greatest <= STANDARD_LEVELS[1]
    ):
        text = f"The levels '{coordinate.name}' in {origin} reach {greatest / 100.0:g} hPa only by units='{units}'"
        if by_name == "hPa":
            raise ValueError(
                f"{text}, and {greatest:g} hPa by their name. Correct the attribute, or go by it alone: "
                f"{option('rename')}={{{coordinate.name}: level}}."
            )
        return attributes, f"{text}; if they are in hPa, correct the attribute."
    if parsed is not None:
        return attributes, ""
    if not units and by_name:
        return attributes | {"units": by_name}, ""
    is_air_pressure = coordinate.name in PRESSURES or attributes.get("standard_name") == "air_pressure"
    if greatest <= HIGHEST_PRESSURE:
        return attributes | ({"units": "hPa"} if is_air_pressure and greatest > 0.0 else {}), ""
    if not is_air_pressure and greatest < LEAST_PASCALS:
        raise ValueError(
            f"The levels '{coordinate.name}' in {origin} reach {greatest:g} in units of '{units or 'nothing'}': no "
            "numbers of levels, and no hPa. Correct the attribute `units`, such as Pa or m."
        )
    units_text = f"are in '{units}', which is not known" if units else "have no units"
    return attributes | {"units": "Pa"}, f"Levels of {origin} {units_text}; read as Pa, since they reach {greatest:g}."


def with_assumption(dataset: xr.Dataset, text: str) -> xr.Dataset:
    """Add a sentence to the attribute `assumed_units` of a dataset, once; an empty one adds nothing."""
    sentences = [line for line in str(dataset.attrs.get("assumed_units", "")).splitlines() if line and line != text]
    return dataset.assign_attrs(assumed_units="\n".join([*sentences, text])) if text else dataset
