"""Local GRIB files as a dataset, read through cfgrib (the extra `emul[grib]`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import xarray as xr

from data_pipelines.conventions.attributes import with_ecmwf_fluxes
from data_pipelines.opening.file_source import FileSource


@dataclass(frozen=True)
class Grib(FileSource):
    """Read GRIB files.

    filter: GRIB keys to select by, such as {typeOfLevel: isobaricInhPa}, for files with several kinds of level. Other
    keys: see `data_pipelines.opening.file_source.FileSource`.
    """

    _: KW_ONLY
    filter: Mapping[str, Any] | None = None

    engine = "grib"

    @property
    def opening(self) -> dict[str, Any]:
        """Return further arguments of `data_pipelines.opening.datasets.open_dataset`."""
        return {"filter": self.filter}

    def dataset(self) -> xr.Dataset:
        """Open the files lazily as one canonical dataset."""
        return with_ecmwf_fluxes(super().dataset())
