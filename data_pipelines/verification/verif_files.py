"""Write forecasts and truth at places for `verif` of MET Norway (https://github.com/WFRT/verif), a file a channel.

Each file has the dimensions time (initial time), leadtime and location, and the variables `obs`, `fcst` and, of an
ensemble, `ensemble`, whose mean `fcst` is. A place has the values of the nearest point of the grid, in the forecast and
in the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.files.netcdf import write_netcdf
from data_pipelines.verification.pairs import Pairs
from emulators.grid import Grid
from emulators.state import State

LEAD = {"units": "hour", "standard_name": "forecast_period"}
VERSION = "verif_1.0.0"
EARTH = 6371.0  # km


def nearest_points(grid: Grid, latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the position of the point of a flat field nearest to each place, and its distance in km."""
    points, places = (_unit_vectors(*pair) for pair in (grid.points, (latitude, longitude)))
    cosine = places @ points.T
    nearest = cosine.argmax(axis=1)
    chord = np.linalg.norm(places - points[nearest], axis=1)
    return nearest, 2.0 * EARTH * np.arcsin(np.clip(chord / 2.0, 0.0, 1.0))


def _unit_vectors(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    phi, lam = np.deg2rad(latitude), np.deg2rad(longitude)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


class VerifFiles:
    """Gather forecasts and truth at places, to be written for verif.

    places: latitude, longitude and, if known, altitude in m of each. fields: names of variables; None: all. ValueError
    for what is neither.
    """

    def __init__(self, pairs: Pairs, places: Sequence[Sequence[float]], fields: Sequence[str] | None = None) -> None:
        if bad := [place for place in places if not 2 <= len(place) <= 3 or abs(place[0]) > 90.0]:
            raise ValueError(
                f"verif.places: expected latitude, longitude and, if known, altitude of each, as [[60, 10.5, 94]]; got "
                f"{list(bad[0])}."
            )
        if absent := [name for name in fields or () if name not in pairs.variables]:
            raise ValueError(f"verif.fields: no {absent[0]} is scored; there are {', '.join(pairs.variables.names)}.")
        self.pairs, self.names = pairs, list(fields or pairs.variables.names)
        self.latitude, self.longitude = (np.array([float(place[axis]) for place in places]) for axis in (0, 1))
        self.altitude = np.array([float(place[2]) if len(place) > 2 else np.nan for place in places])
        self.points, self.distance = nearest_points(pairs.grid, self.latitude, self.longitude)

    def write(self, folder: Path, report: Callable[[float], None]) -> list[Path]:
        """Write folder/<channel>.nc, e.g. temperature_850.nc, of every channel; the files."""
        pairs, variables = self.pairs, self.pairs.variables
        shape = (len(pairs.inits), len(pairs.leads), self.points.size)
        truth = np.full((variables.size, *shape), np.nan, np.float32)
        members = np.full((variables.size, *shape, max(1, pairs.members)), np.nan, np.float32)
        blocks = pairs.blocks()
        for number, block in enumerate(blocks):
            for pair in pairs.of([block]):
                rows = np.searchsorted(pairs.inits, pair.inits)
                truth[:, rows, pair.lead] = self._at_places(pair.target).swapaxes(0, 1)
                values = self._at_places(pair.prediction)  # ([member,] init, channel, location)
                values = values if pairs.members else values[None]
                members[:, rows, pair.lead] = np.moveaxis(values, (0, 1, 2, 3), (3, 1, 0, 2))
            report((number + 1) / len(blocks))
        files = []
        for name in self.names:
            for channel in range(variables.slice(name).start, variables.slice(name).stop):
                dataset = self._dataset(name, channel, truth[channel], members[channel])
                files.append(folder / f"{variables.channels[channel]}.nc")
                write_netcdf(files[-1], dataset)
        return files

    def _at_places(self, state: State) -> np.ndarray:
        """The values of a State at the places, (*lead, channel, location)."""
        values: np.ndarray = state.values.flatten(-state.rank)[..., self.points].cpu().numpy()
        return values

    def _dataset(self, name: str, channel: int, truth: np.ndarray, members: np.ndarray) -> xr.Dataset:
        """The content of a file. truth: (time, leadtime, location). members: with a last axis of members."""
        pairs, variable = self.pairs, self.pairs.variables.variable(name)
        axes = ("time", "leadtime", "location")
        fields = {
            "obs": (axes, truth, {"long_name": "truth at the nearest point of the grid"}),
            "fcst": (axes, members.mean(axis=-1), {"long_name": "forecast at the nearest point of the grid"}),
            "lat": ("location", self.latitude, {"units": "degrees_north", "standard_name": "latitude"}),
            "lon": ("location", self.longitude, {"units": "degrees_east", "standard_name": "longitude"}),
            "altitude": ("location", self.altitude, {"units": "m", "standard_name": "surface_altitude"}),
            "distance": ("location", self.distance, {"units": "km", "long_name": "distance of the point of the grid"}),
        }
        if pairs.members:
            fields["ensemble"] = ((*axes, "ensemble_member"), members, {"long_name": "members of the forecast"})
        seconds = pairs.inits.astype("datetime64[s]").astype(np.int64).astype(np.float64)
        clock = {"units": "seconds since 1970-01-01 00:00:00 +00:00", "standard_name": "forecast_reference_time"}
        coordinates = {
            "time": ("time", seconds, clock),
            "leadtime": ("leadtime", pairs.leads / np.timedelta64(1, "h"), LEAD),
            "location": ("location", np.arange(self.points.size, dtype=np.int32)),
        }
        channel_name = pairs.variables.channels[channel].replace("_", " ")
        attributes = {"verif_version": VERSION, "Conventions": VERSION, "long_name": channel_name}
        return xr.Dataset(fields, coordinates, {**attributes, "units": variable.units or "1"})
