"""Local GRIB files as a data source, read through cfgrib (the extra `emul[grib]`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import xarray as xr

from data_pipelines.conventions.fluxes import with_ecmwf_fluxes
from data_pipelines.opening.file_source import FileSource


@dataclass(frozen=True)
class Grib(FileSource):
    """filter: GRIB keys to keep, such as {typeOfLevel: isobaricInhPa}, for files that hold several kinds of level.

    Further keys: see `data_pipelines.opening.file_source.FileSource`.
    """

    _: KW_ONLY
    filter: Mapping[str, Any] | None = None

    engine = "grib"

    @property
    def opening(self) -> dict[str, Any]:
        return {"filter": self.filter}

    def dataset(self) -> xr.Dataset:
        """The files as one canonical dataset."""
        return with_ecmwf_fluxes(super().dataset())
