"""Zarr stores in the layout of WeatherBench 2, ARCO-ERA5 or anemoi-datasets, on disk or in the cloud, as a dataset.

Rasp et al. 2024 (arXiv 2308.15560); Carver & Merose 2023, ARCO-ERA5; `data_pipelines.opening.file_kinds`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import xarray as xr

from data_pipelines.conventions.attributes import with_ecmwf_fluxes
from data_pipelines.opening.file_source import FileSource


@dataclass(frozen=True)
class WeatherBench2(FileSource):
    """Read a Zarr store.

    path: a folder or an address such as gs://weatherbench2/...; Zarr format 2 or 3, consolidated or not.
    storage_options: of fsspec; default anonymous access. cache_gigabytes: size of the cache on this machine for a
    remote store; None: no cache. Other keys: see `data_pipelines.opening.file_source.FileSource`.
    """

    _: KW_ONLY
    storage_options: Mapping[str, Any] | None = None
    cache_gigabytes: float | None = None

    engine = "zarr"

    @property
    def opening(self) -> dict[str, Any]:
        """Return further arguments of `data_pipelines.opening.datasets.open_dataset`."""
        return {"storage_options": self.storage_options, "cache_gigabytes": self.cache_gigabytes}

    def dataset(self) -> xr.Dataset:
        """Open the store lazily as a canonical dataset."""
        return with_ecmwf_fluxes(super().dataset())
