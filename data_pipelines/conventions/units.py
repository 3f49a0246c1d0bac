"""Units of the same quantity: unexpected units are refused, or converted if this is asked for.

x in the base unit of its quantity = factor * x + offset

Common spellings are in a table; others are parsed by pint with the CF additions of cf-xarray. What neither knows stays
unknown and is not judged.
"""

from __future__ import annotations

import re
import warnings
from functools import cache

import numpy as np
import xarray as xr

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


def refuse_other_units(name: str, expected: str, found: str, origin: str) -> None:
    """Raise ValueError if both units are known and differ."""
    if are_other_units(expected, found):
        raise ValueError(
            f"'{name}' is in '{found}' in {origin}; expected it in '{expected}'. Convert it first, or let its data "
            f"source do it: units={{{name}: {expected}}}."
        )


def are_other_units(one: str, other: str) -> bool:
    """Return whether two units are known and differ."""
    if _plain(one) == _plain(other):
        return False
    rows = [known_units(units) for units in (one, other)]
    return None not in rows and rows[0] != rows[1]


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
                zero, one = (registry.Quantity(x, unit).to_base_units().magnitude for x in (0.0, 1.0))
                quantity = str(unit.dimensionality)
        except Exception:  # pint raises many kinds for what are no units
            continue
        return DIMENSIONS.get(quantity, quantity), float(f"{one - zero:.12g}"), float(zero)
    return None


def in_units(name: str, field: xr.DataArray, told: str) -> xr.DataArray:
    """Convert a field to `K`, say; `degC -> K` if its own units are missing or wrong."""
    said, _, wanted = (part.strip() for part in told.rpartition("->"))
    said = said or str(field.attrs.get("units", ""))
    source, target = known_units(said), known_units(wanted)
    if _plain(said) == _plain(wanted) or (source and source == target):
        return field.assign_attrs(units=wanted)
    if source is None or target is None:
        unknown = said if source is None else wanted
        why = f"'{unknown}' is not known here" if unknown else "the data do not say theirs"
        raise ValueError(
            f"units: cannot convert '{name}' from '{said or 'no units'}' to '{wanted}': "
            f"{why}; write the units that they have, such as units={{{name}: 'degC -> K'}}."
        )
    if source[0] != target[0]:
        raise ValueError(
            f"units: '{name}' is in '{said}', a {source[0]}; '{wanted}' is a {target[0]}. Choose units of {source[0]}."
        )
    factor, offset = source[1] / target[1], (source[2] - target[2]) / target[1]
    converted = field * np.float32(factor) + np.float32(offset) if offset else field * np.float32(factor)
    return converted.assign_attrs({**field.attrs, "units": wanted})


def _plain(units: str) -> str:
    return units.strip().lower().replace("**", "").replace("^", "").replace("/", " ")
