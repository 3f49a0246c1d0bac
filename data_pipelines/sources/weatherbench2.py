"""Any Zarr store in the WeatherBench 2 or ARCO-ERA5 layout as a data source, on disk or in the cloud.

Rasp et al. 2024 (arXiv 2308.15560); Carver & Merose 2023, ARCO-ERA5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from data_pipelines.fluxes import ecmwf
from data_pipelines.store import open_dataset, shaped


@dataclass(frozen=True)
class WeatherBench2:
    """path: a folder or an address such as gs://weatherbench2/...; Zarr format 2 or 3, consolidated or not.

    splits: name -> [start, end], both inclusive. storage_options: for fsspec; default anonymous access.
    rename, select: see `data_pipelines.conventions.canonical`.
    levels, fill, derive, timestep: see `data_pipelines.store.shaped`.
    """

    path: str | Sequence[str]
    splits: Mapping[str, Sequence[str | int] | None] = field(default_factory=dict)
    storage_options: Mapping[str, Any] | None = None
    rename: Mapping[str, str] | None = None
    select: Mapping[str, Any] | None = None
    levels: Sequence[float] | None = None
    fill: Mapping[str, float] | None = None
    derive: Sequence[str] | None = None
    timestep: str | None = None

    def prepare(self, progress: Callable[[str, float], None] | None = None) -> None:
        """Nothing is made; raises FileNotFoundError or ValueError now where the store cannot be used."""
        self.dataset()

    def template(self) -> xr.Dataset:
        """The dataset; its fields are not read until asked for."""
        return self.dataset()

    def dataset(self) -> xr.Dataset:
        """The store as a canonical dataset."""
        opened = open_dataset(
            self.path, engine="zarr", storage_options=self.storage_options, rename=self.rename, select=self.select
        )
        return ecmwf(shaped(opened, levels=self.levels, fill=self.fill, derive=self.derive, timestep=self.timestep))
