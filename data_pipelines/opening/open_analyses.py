"""Analyses of today from the open data of a weather service: found, fetched, kept, opened as data.

Files are kept in $XDG_CACHE_HOME/emul/analyses/<service>, one for each analysis and choice of fields, and are not
fetched again.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import with_ecmwf_fluxes
from data_pipelines.conventions.durations import initial_times
from data_pipelines.conventions.grib_names import AT_SURFACE, ON_LEVELS
from data_pipelines.conventions.suggestions import options_under
from data_pipelines.files.identity import digest
from data_pipelines.interfaces import Progress
from data_pipelines.opening.file_source import FileSource
from data_pipelines.opening.indexed_grib import Message, chosen_messages, fetch_messages, noaa_index, text_at

CYCLE, SEARCHED = np.timedelta64(6, "h"), 16  # between analyses; how many are tried, from now backwards
PRESSURE_FIELDS = (
    "geopotential", "temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity",
)  # fmt: skip
ECMWF_PRESSURE = {
    name: ON_LEVELS[name]
    for name in (*PRESSURE_FIELDS, "relative_humidity", "vertical_velocity", "vorticity", "divergence")
}
NEAR_SURFACE = (
    "2m_temperature", "2m_dewpoint_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind",
    "mean_sea_level_pressure", "surface_pressure", "skin_temperature", "total_column_water_vapour",
)  # fmt: skip


def ecmwf_surface(*more: str) -> dict[str, tuple[str, str]]:
    """Return the parameters of ECMWF's fields at the surface, without a level: the usual ones and `more`."""
    return {name: (AT_SURFACE[name], "") for name in (*NEAR_SURFACE, *more)}


def now() -> np.datetime64:
    """Return the present time in UTC."""
    return np.datetime64(datetime.now(UTC).replace(tzinfo=None), "s")


@dataclass(frozen=True)
class GribFiles(FileSource):
    """Read GRIB files."""

    engine = "grib"


@dataclass(frozen=True)
class OpenAnalyses(ABC):
    """Fetch analyses of a weather service; `prepare` does it.

    dates: latest, a date, a list of dates or start/stop/step. count: analyses up to each date, 6 h apart, as many as
    the network reads. fields, levels: what is fetched; levels in hPa. address: of the server. folder: where files are
    kept; None: the cache. splits: of no use to forecasts; for the verification of older ones.
    """

    _: KW_ONLY
    fields: Sequence[str]
    levels: Sequence[int]
    address: str
    dates: str | Sequence[str] = "latest"
    count: int = 1
    folder: str | None = None
    splits: Mapping[str, Sequence[str | int] | None] = field(default_factory=dict)

    service: ClassVar[str]
    at_pressure: ClassVar[Mapping[str, str]]
    at_surface: ClassVar[Mapping[str, tuple[str, str]]]
    derived: ClassVar[tuple[str, ...]] = ("geopotential",)  # what the service has in another form

    def __post_init__(self) -> None:
        available = {**self.at_pressure, **self.at_surface}
        if unknown := [name for name in self.fields if name not in available]:
            raise ValueError(f"data.fields: {self.service} has no {unknown[0]} here; there are {', '.join(available)}.")
        if self.count < 1:
            raise ValueError(f"data.count: expected 1 or more analyses; got {self.count}.")

    @abstractmethod
    def is_there(self, time: np.datetime64) -> bool:
        """Return whether the service has an analysis."""

    @abstractmethod
    def fetch(self, time: np.datetime64, path: Path, report: Progress) -> None:
        """Write the fields of an analysis to a file; ValueError for fields that it lacks, OSError for failures."""

    def level_name(self, level: int) -> str:
        """Return how the service writes a pressure level."""
        return str(level)

    @property
    def delay(self) -> np.timedelta64:
        """How long after its time an analysis is there at the earliest."""
        return np.timedelta64(0, "s")

    @property
    def opening(self) -> dict[str, Any]:
        """Further arguments with which the files are opened."""
        return {}

    @property
    def names(self) -> list[tuple[str, str]]:
        """The messages that are needed, by parameter and level."""
        above = [
            (self.at_pressure[name], self.level_name(level))
            for name in self.fields
            if name in self.at_pressure
            for level in self.levels
        ]
        single = [self.at_surface[name] for name in self.fields if name in self.at_surface]
        return list(dict.fromkeys(above + single))

    @cached_property
    def times(self) -> np.ndarray:
        """The times of the analyses, ascending, datetime64[s]. OSError where none of the last days is there."""
        if self.dates == "latest":
            last = np.array([self._latest()])
        else:
            last = initial_times(self.dates)
        return np.unique(np.concatenate([last - back * CYCLE for back in range(self.count)]))

    def _latest(self) -> np.datetime64:
        epoch = np.datetime64(0, "s")
        newest = epoch + (now() - self.delay - epoch) // CYCLE * CYCLE
        for back in range(SEARCHED):
            if self.is_there(newest - back * CYCLE):
                return newest - back * CYCLE
        raise OSError(
            f"{self.service}: no analysis of the last {SEARCHED * 6 // 24} days at {self.address}; the newest would be "
            f"of {newest}."
        )

    @property
    def path(self) -> list[str]:
        """The files of the analyses on this machine."""
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emul" / "analyses" / self.service
        folder = Path(self.folder) if self.folder else base
        fingerprint = digest([self.names, self.address, *self.opening])[:8]
        return [str(folder / f"{time.item():%Y%m%dT%H}_{fingerprint}.grib2") for time in self.times]

    def prepare(self, progress: Progress | None = None) -> None:
        """Fetch what is not here yet. ValueError for fields that the service does not have, OSError for failures."""
        for time, path in zip(self.times, self.path, strict=True):
            if not Path(path).exists():
                self.fetch(time, Path(path), progress or (lambda label, share: None))
        self.dataset()

    def template(self) -> xr.Dataset:
        """Return the dataset, whose fields are read lazily."""
        return self.dataset()

    def dataset(self) -> xr.Dataset:
        """Open the analyses as one canonical dataset, with what the service has in another form."""
        with options_under("data."):
            derive = [name for name in self.fields if name in self.derived] or None
            dataset = with_ecmwf_fluxes(GribFiles(self.path, derive=derive, timestep="6h", **self.opening).dataset())
        return dataset.assign_attrs(origin=f"{self.service}, {self.address}")


@dataclass(frozen=True)
class IndexedAnalyses(OpenAnalyses):
    """Fetch the fields of an analysis one by one, by the index of bytes beside each file."""

    @abstractmethod
    def file(self, time: np.datetime64) -> str:
        """Return the address of the file of an analysis, of several the one that comes first."""

    @abstractmethod
    def index_address(self, file: str) -> str:
        """Return the address of the index of a file."""

    @abstractmethod
    def index(self, text: str) -> list[Message]:
        """Return the messages that an index lists."""

    def files(self, time: np.datetime64) -> list[list[str]]:
        """Return the addresses of the files of an analysis: of each member those that its fields are spread over."""
        return [[self.file(time)]]

    def is_there(self, time: np.datetime64) -> bool:
        """Return whether the index of the first file is there."""
        return text_at(self.index_address(self.file(time))) is not None

    def fetch(self, time: np.datetime64, path: Path, report: Progress) -> None:
        """Write the fields of all members to one file."""
        parts: list[tuple[str, list[Message]]] = []
        for files in self.files(time):
            parts += chosen_messages({file: self._indexed(file, time) for file in files}, self.names).items()
        fetch_messages(parts, path, report)

    def _indexed(self, file: str, time: np.datetime64) -> list[Message]:
        text = text_at(self.index_address(file))
        if text is None:
            raise OSError(f"{self.service} has no analysis of {time}: nothing at {self.index_address(file)}.")
        return self.index(text)


@dataclass(frozen=True)
class NoaaAnalyses(IndexedAnalyses):
    """Fetch analyses of NOAA: an index is named after its file, and names levels in words."""

    at_pressure: ClassVar[Mapping[str, str]] = {
        "geopotential": "HGT", "temperature": "TMP", "u_component_of_wind": "UGRD", "v_component_of_wind": "VGRD",
        "specific_humidity": "SPFH", "relative_humidity": "RH", "vertical_velocity": "VVEL",
    }  # fmt: skip
    at_surface: ClassVar[Mapping[str, tuple[str, str]]] = {
        "2m_temperature": ("TMP", "2 m above ground"),
        "2m_dewpoint_temperature": ("DPT", "2 m above ground"),
        "10m_u_component_of_wind": ("UGRD", "10 m above ground"),
        "10m_v_component_of_wind": ("VGRD", "10 m above ground"),
        "mean_sea_level_pressure": ("PRMSL", "mean sea level"),
        "surface_pressure": ("PRES", "surface"),
    }

    def index_address(self, file: str) -> str:
        """Return the address of the index of a file."""
        return f"{file}.idx"

    def index(self, text: str) -> list[Message]:
        """Return the messages that an index lists."""
        return noaa_index(text)

    def level_name(self, level: int) -> str:
        """Return how the index writes a pressure level."""
        return f"{level} mb"
