"""Analyses of NOAA's ensemble GEFS from its open data, https://registry.opendata.aws/noaa-gefs.

They are the forecasts at hour 0 of the control and of 30 perturbed members, on 0.5 degrees. The fields of a member are
spread over two files, the primary and the secondary ones. Geopotential is its height times 9.80665 m s-2, and specific
humidity is derived from relative humidity and temperature.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from data_pipelines.opening.indexed_grib import Message, noaa_index
from data_pipelines.opening.open_analyses import IndexedAnalyses

PERTURBED = 30


@dataclass(frozen=True)
class Gefs(IndexedAnalyses):
    """Fetch analyses of the GEFS; further keys: see `data_pipelines.opening.open_analyses.OpenAnalyses`.

    members: how many, the control first.
    """

    _: KW_ONLY
    members: int = 1

    service: ClassVar[str] = "gefs"
    derived: ClassVar[tuple[str, ...]] = ("geopotential", "specific_humidity")
    at_pressure: ClassVar[dict[str, str]] = {
        "geopotential": "HGT", "temperature": "TMP", "u_component_of_wind": "UGRD", "v_component_of_wind": "VGRD",
        "specific_humidity": "RH", "relative_humidity": "RH", "vertical_velocity": "VVEL",
    }  # fmt: skip
    at_surface: ClassVar[dict[str, tuple[str, str]]] = {
        "2m_temperature": ("TMP", "2 m above ground"),
        "2m_dewpoint_temperature": ("DPT", "2 m above ground"),
        "10m_u_component_of_wind": ("UGRD", "10 m above ground"),
        "10m_v_component_of_wind": ("VGRD", "10 m above ground"),
        "mean_sea_level_pressure": ("PRMSL", "mean sea level"),
        "surface_pressure": ("PRES", "surface"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.members <= PERTURBED + 1:
            raise ValueError(f"data.members: expected 1 to {PERTURBED + 1}, the control first; got {self.members}.")
        if "specific_humidity" in self.fields and "temperature" not in self.fields:
            raise ValueError("data.fields: gefs derives specific_humidity, for which it needs temperature too.")

    @property
    def opening(self) -> dict[str, Any]:
        """Members are a dimension where there are several."""
        return {"members": "number"} if self.members > 1 else {}

    def file(self, time: np.datetime64) -> str:
        """Return the address of the primary file of the control."""
        return self.files(time)[0][0]

    def files(self, time: np.datetime64) -> list[list[str]]:
        """Return the addresses of the primary and the secondary file of each member."""
        date = time.item()
        folder = f"{self.address.rstrip('/')}/gefs.{date:%Y%m%d/%H}/atmos"
        names = ["gec00", *(f"gep{number:02d}" for number in range(1, self.members))]
        return [[f"{folder}/pgrb2{kind}p5/{name}.t{date:%H}z.pgrb2{kind}.0p50.f000" for kind in "ab"] for name in names]

    def index_address(self, file: str) -> str:
        """Return the address of the index of a file."""
        return f"{file}.idx"

    def index(self, text: str) -> list[Message]:
        """Return the messages that an index lists."""
        return noaa_index(text)

    def level_name(self, level: int) -> str:
        """Return how the index writes a pressure level."""
        return f"{level} mb"
