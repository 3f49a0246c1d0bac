"""Write forecasts as GRIB edition 2, a file a lead, beside the Zarr store that they are made in.

Messages follow the WMO Manual on Codes, FM 92, by the templates and tables of ecCodes. A value x is stored as the whole
number n of x = (r + n 2^E) / 10^D, so that it comes back within half a unit of 2^E / 10^D: about the range of the field
divided by 2^(bits + 1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.conventions.grib_names import AT_SURFACE, ON_LEVELS
from data_pipelines.files.atomic import atomic_file, could_not_write, sha256
from data_pipelines.forecasts.layout import Layout
from data_pipelines.forecasts.writers import ZarrWriter
from emulators.grid import Grid, LatLonGrid, lat_lon
from emulators.variables import Variable, VariableSet
from emulators.world import Vertical

FOLDER = "grib"
HOUR = 3600  # seconds
MISSING = 9.999e20
SUM = re.compile(r"^(?P<name>.+)_(?P<hours>\d+)hr$")
# WeatherBench 2 name: (shortName of ecCodes, what values are multiplied by)
SUMS = {"total_precipitation": ("tp", 1000.0)}  # m of water to kg m-2; the interval is in the name


class GribWriter(ZarrWriter):
    """Write forecast.zarr while the forecast runs, and grib/<initial time>_<lead>.grib2 once it is whole.

    variables, levels: what the GRIB files hold; None: all. names: short names of ecCodes for variables that have none
    here, {variable: shortName}. bits: of a value. packing: grid_simple, or grid_ccsds, which is smaller and loses no
    more. centre: number of the originating centre in WMO's common table 11; 255: none. compression,
    chunk_megabytes: of the store, as in ZarrWriter.
    """

    def __init__(
        self,
        *,
        variables: Sequence[str] | None = None,
        levels: Sequence[float] | None = None,
        names: Mapping[str, str] | None = None,
        bits: int = 16,
        packing: str = "grid_ccsds",
        centre: int = 255,
        compression: int = 0,
        chunk_megabytes: float = 1.0,
    ) -> None:
        super().__init__(compression=compression, chunk_megabytes=chunk_megabytes)
        if not 1 <= bits <= 24 or packing not in ("grid_simple", "grid_ccsds"):
            raise ValueError(
                "writer=grib needs bits within 1..24 and packing=grid_simple or grid_ccsds; got "
                f"bits={bits}, packing={packing}."
            )
        self.variables, self.levels, self.names = variables, levels, {str(k): str(v) for k, v in (names or {}).items()}
        self.encoding: dict[str, Any] = {"bits": bits, "packing": packing, "centre": centre}

    def plain(self) -> dict[str, Any]:
        """The settings that the bytes on disk depend on."""
        subset = {"variables": self.variables and list(self.variables), "levels": self.levels and list(self.levels)}
        return {**super().plain(), "grib": {**subset, "names": self.names, **self.encoding}}

    def refuse_unsuited(self, layout: Layout) -> None:
        """Raise ValueError where ecCodes is absent, or where these fields have no place in GRIB."""
        try:
            import eccodes  # noqa: F401
        except (ImportError, RuntimeError) as error:
            raise ValueError("writer=grib needs eccodes: pip install 'emul[grib]'.") from error
        world = layout.world
        for name in self.variables or ():
            if name not in world.predicted:
                raise ValueError(f"writer.variables: no {name}; predicted are {', '.join(world.predicted.names)}.")
        held = {level for variable in world.predicted for level in variable.levels}
        if absent := [level for level in self.levels or () if float(level) not in held]:
            raise ValueError(f"writer.levels: no level {absent[0]:g}; there are {', '.join(f'{x:g}' for x in held)}.")
        refuse_unwritable(self._written(world.predicted), world.grid, world.vertical, self.names)

    def _written(self, predicted: VariableSet) -> VariableSet:
        """The variables that the GRIB files hold."""
        return VariableSet(tuple(v for v in predicted if self.variables is None or v.name in self.variables))

    def export(self, checksums: dict[str, str], progress: Callable[[float], None] | None = None) -> dict[str, str]:
        """Write the GRIB files from the finished store; the checksums of all files."""
        import zarr

        checksums = super().export(checksums, progress)
        layout = self.layout
        root = zarr.open_group(self.store, mode="r")
        folder = self.folder / FOLDER
        folder.mkdir(exist_ok=True)
        template = MessageTemplate(lat_lon(layout.world.grid), layout.world.vertical, **self.encoding)
        try:
            for number, rows in enumerate(layout.batches):
                for first in range(0, layout.steps, layout.block):
                    leads = slice(first, min(first + layout.block, layout.steps))
                    for path, messages in self._files(root, rows, leads, template):
                        _write(folder / path, messages)
                        checksums[f"{FOLDER}/{path}"] = sha256(folder / path)
                if progress:
                    progress((number + 1) / len(layout.batches))
        finally:
            template.close()
        return checksums

    def _files(
        self, root: Any, rows: slice, leads: slice, template: MessageTemplate
    ) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield the name of each file of a batch and a block of leads, and its messages."""
        layout = self.layout
        written = self._written(layout.world.predicted)
        members = [slice(None)] if layout.members else []
        fields = {v.name: np.asarray(root[v.name][(rows, *members, leads)]) for v in written}
        for row, init in enumerate(layout.inits[rows]):
            for lead in range(leads.start, leads.stop):
                length = layout.valid_times[rows.start + row, lead] - init
                hours = length / np.timedelta64(1, "h")
                name = f"{init.item():%Y%m%dT%H%M}_{hours:05.0f}h" if hours.is_integer() else ""
                name = name or f"{init.item():%Y%m%dT%H%M}_{length.astype(int):08d}s"
                axis = 1 if layout.members else 0
                place = {key: array[row].take(lead - leads.start, axis) for key, array in fields.items()}
                yield f"{name}.grib2", self._messages(place, written, template, init, length)

    def _messages(
        self,
        fields: Mapping[str, np.ndarray],
        written: VariableSet,
        template: MessageTemplate,
        init: np.datetime64,
        lead: np.timedelta64,
    ) -> Iterator[bytes]:
        for variable in written:
            code = code_of(variable, self.names) or GribCode(variable.name)
            for member, values in self._by_member(fields[variable.name]):
                for level, field in self._by_place(variable, values):
                    yield template.message(field, code, init, lead, level=level, member=member)

    def _by_member(self, values: np.ndarray) -> Iterator[tuple[tuple[int, int] | None, np.ndarray]]:
        if not self.layout.members:
            yield None, values
            return
        yield from (((number, len(values)), values[number]) for number in range(len(values)))

    def _by_place(
        self, variable: Variable, values: np.ndarray
    ) -> Iterator[tuple[tuple[int, float] | None, np.ndarray]]:
        if not variable.levels:
            yield None, values
            return
        positions = np.arange(self.layout.levels.size)[self.layout.level_positions(variable)]
        for place, level in zip(positions, variable.levels, strict=True):
            if self.levels is None or level in map(float, self.levels):
                yield (int(place) + 1, float(level)), values[place]


def _write(path: Path, messages: Iterator[bytes]) -> None:
    try:
        with atomic_file(path) as unfinished, open(unfinished, "wb") as file:
            file.writelines(messages)
    except OSError as error:
        raise could_not_write(path, error) from error


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
