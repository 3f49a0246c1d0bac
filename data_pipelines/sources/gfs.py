"""Analyses of NOAA's GFS from its open data, https://registry.opendata.aws/noaa-gfs-bdp-pds.

They are the forecasts at hour 0 on 0.25 degrees. Geopotential is its height times 9.80665 m s-2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from data_pipelines.opening.open_analyses import NoaaAnalyses


@dataclass(frozen=True)
class Gfs(NoaaAnalyses):
    """Fetch analyses of the GFS; keys: see `data_pipelines.opening.open_analyses.OpenAnalyses`."""

    service: ClassVar[str] = "gfs"
    at_surface: ClassVar[dict[str, tuple[str, str]]] = {**NoaaAnalyses.at_surface, "land_sea_mask": ("LAND", "surface")}

    def file(self, time: np.datetime64) -> str:
        """Return the address of the file of an analysis."""
        date = time.item()
        return f"{self.address.rstrip('/')}/gfs.{date:%Y%m%d/%H}/atmos/gfs.t{date:%H}z.pgrb2.0p25.f000"
