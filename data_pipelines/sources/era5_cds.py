"""Analyses of ERA5 from the Climate Data Store, https://doi.org/10.24381/cds.bd0915c6, a few days behind today.

They come from ECMWF's own client cdsapi, which waits in the queue of the service; it finds the key of the user in
~/.cdsapirc. Everything that networks are trained on is there as they were trained on it, so that nothing is derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_pipelines.conventions.durations import duration
from data_pipelines.files.atomic import atomic_file
from data_pipelines.interfaces import Progress
from data_pipelines.opening.indexed_grib import refuse_absent
from data_pipelines.opening.open_analyses import ECMWF_PRESSURE, OpenAnalyses, ecmwf_surface

PRESSURE, SINGLE = "reanalysis-era5-pressure-levels", "reanalysis-era5-single-levels"
SURFACE = "geopotential_at_surface"  # the Climate Data Store calls it geopotential


@dataclass(frozen=True)
class Era5Cds(OpenAnalyses):
    """Fetch analyses of ERA5; further keys: see `data_pipelines.opening.open_analyses.OpenAnalyses`.

    behind: how long after its time an analysis is there; `dates: latest` is the last one that can be.
    """

    _: KW_ONLY
    behind: str = "6d"

    service: ClassVar[str] = "era5_cds"
    derived: ClassVar[tuple[str, ...]] = ()
    at_pressure: ClassVar[dict[str, str]] = ECMWF_PRESSURE
    at_surface: ClassVar[dict[str, tuple[str, str]]] = {
        **ecmwf_surface("sea_surface_temperature", "sea_ice_cover"),
        "total_cloud_cover": ("tcc", ""),
        "land_sea_mask": ("lsm", ""),
        SURFACE: ("z", ""),
    }

    @property
    def delay(self) -> np.timedelta64:
        """How long after its time an analysis is there."""
        return duration(self.behind)

    def is_there(self, time: np.datetime64) -> bool:
        """Return True: the service is not asked before what it has is fetched."""
        return True

    def fetch(self, time: np.datetime64, path: Path, report: Progress) -> None:
        """Write the fields of both datasets to one file."""
        requests = self.requests(time)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as unfinished:
            for number, (dataset, request) in enumerate(requests.items(), start=1):
                part = Path(f"{unfinished}.part")
                try:
                    self._retrieve(dataset, request, part)
                    with open(unfinished, "ab") as file:
                        file.write(part.read_bytes())
                finally:
                    part.unlink(missing_ok=True)
                report(f"{number} of {len(requests)} requests", number / len(requests))
            stored = held(Path(unfinished))
            if absent := [" ".join(filter(None, name)) for name in self.names if name not in stored]:
                refuse_absent(absent, f"{self.service} of {time}")

    def requests(self, time: np.datetime64) -> dict[str, dict[str, Any]]:
        """Return what is asked of each dataset, in the words of the Climate Data Store."""
        date = time.item()
        shared = {
            "product_type": ["reanalysis"],
            "year": [f"{date:%Y}"],
            "month": [f"{date:%m}"],
            "day": [f"{date:%d}"],
            "time": [f"{date:%H:%M}"],
            "data_format": "grib",
            "download_format": "unarchived",
        }
        above = [name for name in self.fields if name in self.at_pressure]
        single = [name.removesuffix("_at_surface") for name in self.fields if name in self.at_surface]
        levels = {"pressure_level": [str(level) for level in self.levels]}
        return {
            **({PRESSURE: shared | {"variable": above} | levels} if above else {}),
            **({SINGLE: shared | {"variable": single}} if single else {}),
        }

    def _retrieve(self, dataset: str, request: Mapping[str, Any], path: Path) -> None:
        """Fetch what one request asks for; OSError with what the service says, ValueError without its client."""
        try:
            import cdsapi
        except ImportError as error:
            raise ValueError("data=era5_cds needs cdsapi: pip install 'emul[cds]'.") from error
        try:
            client = cdsapi.Client(url=self.address, quiet=True, progress=False, retry_max=5, sleep_max=30)
            client.retrieve(dataset, dict(request), str(path))
        except Exception as error:  # the client raises what its libraries raise, and plain ones without a key
            raise OSError(
                f"{self.service}: {self.address} gave no {dataset} ({' '.join(str(error).split())[:300]}). It wants "
                "your key in ~/.cdsapirc and its licences accepted, and has analyses up to about five days ago: set "
                "data.dates or data.behind."
            ) from error


def held(path: Path) -> set[tuple[str, str]]:
    """Return the fields of a GRIB file, by parameter and pressure level, empty at the surface."""
    import eccodes

    fields = set()
    with open(path, "rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file, headers_only=True)) is not None:
            keys = {key: eccodes.codes_get(handle, key) for key in ("shortName", "typeOfLevel", "level")}
            level = str(keys["level"]) if keys["typeOfLevel"] == "isobaricInhPa" else ""
            fields.add((str(keys["shortName"]), level))
            eccodes.codes_release(handle)
    return fields
