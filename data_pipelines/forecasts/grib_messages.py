"""Encode fields as messages of GRIB edition 2 (WMO Manual on Codes, FM 92), by the templates and tables of ecCodes.

A value x is stored as the whole number n of x = (r + n 2^E) / 10^D, so that it comes back within half a unit of 2^E /
10^D: about the range of the field divided by 2^(bits + 1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from emulators.grid import Grid, LatLonGrid
from emulators.variables import Variable, VariableSet
from emulators.world import Vertical

HOUR = 3600  # seconds
MISSING = 9.999e20
SUM = re.compile(r"^(?P<name>.+)_(?P<hours>\d+)hr$")
# WeatherBench 2 name: (shortName of ecCodes, what values are multiplied by)
ON_LEVELS = {
    "temperature": "t", "u_component_of_wind": "u", "v_component_of_wind": "v", "specific_humidity": "q",
    "vertical_velocity": "w", "geopotential": "z", "geopotential_height": "gh", "relative_humidity": "r",
    "vorticity": "vo", "divergence": "d", "specific_cloud_liquid_water_content": "clwc",
    "specific_cloud_ice_water_content": "ciwc",
}  # fmt: skip
AT_SURFACE = {
    "2m_temperature": "2t", "2m_dewpoint_temperature": "2d", "10m_u_component_of_wind": "10u",
    "10m_v_component_of_wind": "10v", "100m_u_component_of_wind": "100u", "100m_v_component_of_wind": "100v",
    "mean_sea_level_pressure": "msl", "surface_pressure": "sp", "skin_temperature": "skt",
    "sea_surface_temperature": "sst", "sea_ice_cover": "ci", "total_column_water_vapour": "tcwv",
    "total_column_water": "tcw",
}  # fmt: skip
SUMS = {"total_precipitation": ("tp", 1000.0)}  # m of water to kg m-2; the interval is in the name


@dataclass(frozen=True)
class GribCode:
    """Hold how a variable is called in GRIB: short name, factor of its values, and the hours that it is summed over."""

    short_name: str
    factor: float = 1.0
    hours: int = 0


def code_of(variable: Variable, names: Mapping[str, str]) -> GribCode | None:
    """Return how a variable is called in GRIB; None where there is no name for it.

    names: further short names of ecCodes by variable.
    """
    if variable.name in names:
        return GribCode(names[variable.name])
    summed = SUM.match(variable.name)
    if summed and summed["name"] in SUMS:
        short_name, factor = SUMS[summed["name"]]
        return GribCode(short_name, factor if variable.units == "m" else 1.0, int(summed["hours"]))
    table = ON_LEVELS if variable.levels else AT_SURFACE
    return GribCode(table[variable.name]) if variable.name in table else None


def refuse_unwritable(variables: VariableSet, grid: Grid, vertical: Vertical, names: Mapping[str, str]) -> None:
    """Raise ValueError naming the variables without a name in GRIB, or a grid or levels without a template here."""
    if not isinstance(grid, LatLonGrid) or (grid.kind == "limited_area" and _step(grid.latitude) is None):
        raise ValueError(
            f"writer=grib writes grids of latitudes and longitudes; these fields are on {grid!r}. Regrid them "
            "(emul data regrid), or take writer=zarr."
        )
    if unnamed := [v.name for v in variables if code_of(v, names) is None]:
        raise ValueError(
            f"writer=grib: no short name of ecCodes is kept here for {', '.join(unnamed)}; give it, "
            f"writer.names={{{unnamed[0]}: shortName}}, or leave it out: writer.variables=[...]."
        )
    if vertical.kind not in ("pressure", "sigma", "hybrid") and any(v.levels for v in variables):
        raise ValueError(f"writer=grib writes pressure, sigma and hybrid levels; these are of {vertical.kind}.")


class MessageTemplate:
    """Encode the fields of one forecast; all that they share is set once.

    bits: of a value. packing: packingType of ecCodes. centre: of WMO's table 11; 255: none.
    """

    def __init__(self, grid: LatLonGrid, vertical: Vertical, *, bits: int, packing: str, centre: int) -> None:
        import eccodes

        self.codes, self.vertical = eccodes, vertical
        self.handle = eccodes.codes_grib_new_from_samples("GRIB2")
        self._set(
            {
                "tablesVersion": 32,
                "centre": centre,
                "productionStatusOfProcessedData": 2,  # of research
                "typeOfProcessedData": 1,
                "significanceOfReferenceTime": 1,
                **grid_keys(grid),
                "packingType": packing,
                "bitsPerValue": bits,
            }
        )

    def _set(self, keys: Mapping[str, Any]) -> None:
        for key, value in keys.items():
            self.codes.codes_set(self.handle, key, value)

    def message(
        self,
        values: np.ndarray,
        code: GribCode,
        init: np.datetime64,
        lead: np.timedelta64,
        *,
        level: tuple[int, float] | None = None,
        member: tuple[int, int] | None = None,
    ) -> bytes:
        """Return the message of a field (lat, lon).

        level: its number, from 1 at the top, and its value; None: the surface. member: its number and how many there
        are.
        """
        eccodes, shared = self.codes, self.handle
        self.handle = eccodes.codes_clone(shared)
        try:
            self._set(_product_keys(code, init, lead, member))
            if level is not None:
                self._set_level(*level)
            missing = ~np.isfinite(values)
            if missing.any():
                self._set({"bitmapPresent": 1, "missingValue": MISSING})
            packed = np.where(missing, MISSING, code.factor * values.astype(np.float64))
            eccodes.codes_set_values(self.handle, packed.ravel())
            content: bytes = eccodes.codes_get_message(self.handle)
            return content
        finally:
            eccodes.codes_release(self.handle)
            self.handle = shared

    def _set_level(self, number: int, value: float) -> None:
        if self.vertical.kind == "pressure":
            whole = float(value).is_integer()
            kind = "isobaricInhPa" if whole else "isobaricInPa"
            self._set({"typeOfLevel": kind, "level": round(value if whole else 100.0 * value)})
            return
        a = self.vertical.a or (0.0,) * len(self.vertical.b)
        self._set({"typeOfLevel": "hybrid", "level": number, "PVPresent": 1})
        self.codes.codes_set_double_array(self.handle, "pv", [*a, *self.vertical.b])

    def close(self) -> None:
        """Release the memory of ecCodes."""
        self.codes.codes_release(self.handle)


def _product_keys(
    code: GribCode, init: np.datetime64, lead: np.timedelta64, member: tuple[int, int] | None
) -> dict[str, Any]:
    """Return what says which field it is, of when, and of which member."""
    date = init.astype("datetime64[s]").item()
    seconds = int(lead / np.timedelta64(1, "s"))
    unit, length = ("h", HOUR) if seconds % HOUR == 0 else ("m", 60) if seconds % 60 == 0 else ("s", 1)
    template = {(False, False): 0, (True, False): 1, (False, True): 8, (True, True): 11}
    keys: dict[str, Any] = {
        "dataDate": int(f"{date:%Y%m%d}"),
        "hour": date.hour,
        "minute": date.minute,
        "second": date.second,
        "productDefinitionTemplateNumber": template[(member is not None, bool(code.hours))],
        "typeOfGeneratingProcess": 4 if member else 2,
        "stepUnits": unit,
    }
    if member is not None:
        keys |= {
            "typeOfEnsembleForecast": 255,
            "perturbationNumber": member[0],
            "numberOfForecastsInEnsemble": member[1],
        }
    if code.hours:
        keys |= {"typeOfStatisticalProcessing": 1, "startStep": (seconds - code.hours * HOUR) // length}
        return keys | {"endStep": seconds // length, "shortName": code.short_name}
    return keys | {"step": seconds // length, "shortName": code.short_name}


def grid_keys(grid: LatLonGrid) -> dict[str, Any]:
    """Return the keys of the template of a grid: regular_gg for a Gaussian one, else regular_ll."""
    latitude, longitude = grid.latitude, grid.longitude
    east = float(np.mod(np.diff(longitude), 360.0).mean())
    keys: dict[str, Any] = {
        "gridType": "regular_gg" if grid.kind == "gaussian" else "regular_ll",
        "Ni": longitude.size,
        "Nj": latitude.size,
        "latitudeOfFirstGridPointInDegrees": float(latitude[0]),
        "longitudeOfFirstGridPointInDegrees": float(longitude[0]),
        "latitudeOfLastGridPointInDegrees": float(latitude[-1]),
        "longitudeOfLastGridPointInDegrees": float(longitude[-1]),
        "iDirectionIncrementInDegrees": east,
        "iScansNegatively": 0,
        "jScansPositively": 0,
    }
    if grid.kind == "gaussian":
        return keys | {"N": latitude.size // 2}
    south = _step(latitude)
    if south is None:
        raise ValueError(f"writer=grib: the rows of {grid!r} are neither Gaussian nor equally spaced.")
    return keys | {"jDirectionIncrementInDegrees": south}


def _step(latitude: np.ndarray) -> float | None:
    """Return the degrees between rows, None where they are not the same."""
    steps = -np.diff(latitude)
    return float(steps.mean()) if np.allclose(steps, steps.mean(), atol=1e-4) else None
