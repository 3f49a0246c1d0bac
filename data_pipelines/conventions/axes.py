"""Read coordinates by their units, as degrees north and east and pressures in hPa; refuse axes without a meaning.

What is decided by values alone is said in the attribute `assumed_units` of the dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.units import known_units

DEGREES = ("", "1", "deg", "degree", "degrees", "degs", "°", "arc_degree", "unitless", "dimensionless")
SIDES = {
    "latitude": {"north": 1.0, "n": 1.0, "south": -1.0, "s": -1.0},
    "longitude": {"east": 1.0, "e": 1.0, "west": -1.0, "w": -1.0},
}
PRESSURES = ("plev", "pressure", "pressure_level", "isobaricInhPa", "isobaricInPa", "air_pressure", "isobaric")
HIGHEST_PRESSURE, LEAST_PASCALS = 2000.0, 20_000.0  # hPa, above which no level lies; levels above that can only be Pa
WORDS = {"time": "times", "latitude": "latitudes", "longitude": "longitudes", "level": "levels"}


def degrees(coordinate: xr.DataArray, kind: str, origin: str) -> xr.DataArray:
    """Return latitudes in degrees north, longitudes in degrees east; ValueError names units that are no degrees."""
    units = str(coordinate.attrs.get("units", "")).strip()
    if np.issubdtype(coordinate.dtype, np.number):
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


def refuse_points(dataset: xr.Dataset, latitude: str | None, longitude: str | None, origin: str) -> None:
    """Raise ValueError if latitudes and longitudes go along the same dimension: a set of points."""
    if latitude is None or longitude is None:
        return
    dims = dataset[latitude].dims
    if len(dims) == 1 and dims == dataset[longitude].dims:
        raise ValueError(
            f"{origin} lies on a set of points (dimension '{dims[0]}'), not on rows and columns of latitude and "
            "longitude; regrid it first."
        )


def refuse_empty(dataset: xr.Dataset, origin: str) -> None:
    """Raise ValueError if a dimension has no entries."""
    for dim, size in dataset.sizes.items():
        if not size:
            what = WORDS.get(str(dim), f"entries along '{dim}'")
            raise ValueError(f"{origin} has no {what}: the dimension '{dim}' is empty.")


def refuse_nameless(dataset: xr.Dataset, names: Mapping[str, Sequence[str]], origin: str) -> None:
    """Raise ValueError if fields go along latitude or longitude, by any of `names`, without their values."""
    for kind in ("latitude", "longitude"):
        bare = [name for name in names[kind] if name in dataset.dims and name not in dataset.variables]
        if bare and kind not in dataset.variables:
            raise ValueError(
                f"The dimension '{bare[0]}' in {origin} has no coordinate, so its {WORDS[kind]} are unknown; add the "
                f"variable '{bare[0]}' to the data."
            )


def is_pressure(coordinate: xr.DataArray) -> bool:
    """Return whether levels are pressures by their units."""
    found = known_units(str(coordinate.attrs.get("units", "")))
    return found is not None and found[0] == "pressure"


def levels_with_units(coordinate: xr.DataArray, origin: str) -> tuple[dict[str, Any], str]:
    """Return the attributes of levels, with the units that follow from their values; also what was assumed.

    ValueError where values contradict the units, or say nothing certain without them.
    """
    attributes, units = dict(coordinate.attrs), str(coordinate.attrs.get("units", "")).strip()
    if not np.issubdtype(coordinate.dtype, np.number) or not coordinate.size:
        return attributes, ""
    greatest, found = float(np.max(coordinate.values)), known_units(units)
    if found is not None and found[0] == "pressure" and greatest * found[1] / 100.0 > HIGHEST_PRESSURE:
        raise ValueError(
            f"The levels '{coordinate.name}' in {origin} reach {greatest:g} by the attribute units='{units}', which no "
            "air on Earth has; correct the attribute."
        )
    if found is not None:
        return attributes, ""
    named = coordinate.name in PRESSURES or attributes.get("standard_name") == "air_pressure"
    if greatest <= HIGHEST_PRESSURE:
        return attributes | ({"units": "hPa"} if named and greatest > 0.0 else {}), ""
    if not named and greatest < LEAST_PASCALS:
        raise ValueError(
            f"The levels '{coordinate.name}' in {origin} reach {greatest:g} in units of '{units or 'nothing'}': no "
            "numbers of levels, and no hPa. Correct the attribute `units`, such as Pa or m."
        )
    said = f"are in '{units}', which is not known" if units else "have no units"
    return attributes | {"units": "Pa"}, f"Levels of {origin} {said}; read as Pa, since they reach {greatest:g}."


def with_assumption(dataset: xr.Dataset, text: str) -> xr.Dataset:
    """Add a sentence to the attribute `assumed_units` of a dataset, once; an empty one adds nothing."""
    said = [line for line in str(dataset.attrs.get("assumed_units", "")).splitlines() if line and line != text]
    return dataset.assign_attrs(assumed_units="\n".join([*said, text])) if text else dataset
