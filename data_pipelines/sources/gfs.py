"""Analyses of NOAA's GFS from its open data, https://registry.opendata.aws/noaa-gfs-bdp-pds.

They are the forecasts at hour 0 on 0.25 degrees. Geopotential is its height times 9.80665 m s-2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from data_pipelines.opening.indexed_grib import Message, noaa_index
from data_pipelines.opening.open_analyses import IndexedAnalyses


@dataclass(frozen=True)
class Gfs(IndexedAnalyses):
    """Fetch analyses of the GFS; keys: see `data_pipelines.opening.open_analyses.OpenAnalyses`."""

    service: ClassVar[str] = "gfs"
    at_pressure: ClassVar[dict[str, str]] = {
        "geopotential": "HGT", "temperature": "TMP", "u_component_of_wind": "UGRD", "v_component_of_wind": "VGRD",
        "specific_humidity": "SPFH", "relative_humidity": "RH", "vertical_velocity": "VVEL",
    }  # fmt: skip
    at_surface: ClassVar[dict[str, tuple[str, str]]] = {
        "2m_temperature": ("TMP", "2 m above ground"),
        "2m_dewpoint_temperature": ("DPT", "2 m above ground"),
        "10m_u_component_of_wind": ("UGRD", "10 m above ground"),
        "10m_v_component_of_wind": ("VGRD", "10 m above ground"),
        "mean_sea_level_pressure": ("PRMSL", "mean sea level"),
        "surface_pressure": ("PRES", "surface"),
        "land_sea_mask": ("LAND", "surface"),
    }

    def file(self, time: np.datetime64) -> str:
        """Return the address of the file of an analysis."""
        date = time.item()
        return f"{self.address.rstrip('/')}/gfs.{date:%Y%m%d/%H}/atmos/gfs.t{date:%H}z.pgrb2.0p25.f000"

    def index_address(self, file: str) -> str:
        """Return the address of the index of a file."""
        return f"{file}.idx"

    def index(self, text: str) -> list[Message]:
        """Return the messages that an index lists."""
        return noaa_index(text)

    def level_name(self, level: int) -> str:
        """Return how the index writes a pressure level."""
        return f"{level} mb"
