"""Analyses of NOAA's ensemble GEFS from its open data, https://registry.opendata.aws/noaa-gefs.

They are the forecasts at hour 0 of the control and of 30 perturbed members, on 0.5 degrees. The fields of a member are
spread over two files, the primary and the secondary ones. Geopotential is its height times 9.80665 m s-2, and specific
humidity is derived from relative humidity and temperature.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from data_pipelines.opening.open_analyses import NoaaAnalyses

PERTURBED = 30


@dataclass(frozen=True)
class Gefs(NoaaAnalyses):
    """Fetch analyses of the GEFS; further keys: see `data_pipelines.opening.open_analyses.OpenAnalyses`.

    members: how many, the control first.
    """

    _: KW_ONLY
    members: int = 1

    service: ClassVar[str] = "gefs"
    derived: ClassVar[tuple[str, ...]] = ("geopotential", "specific_humidity")
    at_pressure: ClassVar[dict[str, str]] = {**NoaaAnalyses.at_pressure, "specific_humidity": "RH"}  # derived from it

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
