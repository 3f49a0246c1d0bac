"""Analyses of ECMWF's IFS from its open data (CC-BY-4.0), https://www.ecmwf.int/en/forecasts/datasets/open-data.

They are the forecasts at step 0 on 0.25 degrees. Geopotential is its height times 9.80665 m s-2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from data_pipelines.conventions.grib_names import ON_LEVELS
from data_pipelines.opening.indexed_grib import Message, ecmwf_index
from data_pipelines.opening.open_analyses import ECMWF_PRESSURE, IndexedAnalyses, ecmwf_surface


@dataclass(frozen=True)
class IfsOpen(IndexedAnalyses):
    """Fetch analyses of the IFS; keys: see `data_pipelines.opening.open_analyses.OpenAnalyses`."""

    service: ClassVar[str] = "ifs_open"
    at_pressure: ClassVar[dict[str, str]] = ECMWF_PRESSURE | {"geopotential": ON_LEVELS["geopotential_height"]}
    at_surface: ClassVar[dict[str, tuple[str, str]]] = ecmwf_surface() | {"land_sea_mask": ("lsm", "")}

    def file(self, time: np.datetime64) -> str:
        """Return the address of the file of an analysis."""
        date = time.item()
        return f"{self.address.rstrip('/')}/{date:%Y%m%d/%Hz}/ifs/0p25/oper/{date:%Y%m%d%H%M%S}-0h-oper-fc.grib2"

    def index_address(self, file: str) -> str:
        """Return the address of the index of a file."""
        return f"{file.removesuffix('.grib2')}.index"

    def index(self, text: str) -> list[Message]:
        """Return the messages that an index lists."""
        return ecmwf_index(text)
