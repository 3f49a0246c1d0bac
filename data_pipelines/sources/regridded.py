"""Any data source on another grid, regridded as it is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import xarray as xr

from data_pipelines.derived.regridding import regridded
from data_pipelines.opening.derived_source import DerivedSource
from emulators.grid import Grid
from emulators.grids.catalogue import named_grid


@dataclass(frozen=True)
class Regridded(DerivedSource):
    """Regrid a data source as it is read; nothing is stored.

    source: any data source; its splits are those of the result. grid: the name of the new grid, 64x32_gaussian, O32,
    healpix:8; see `emulators.grids.catalogue.named_grid`. method: see `data_pipelines.derived.regridding.regridded`.
    """

    grid: str
    method: str = "conservative"

    @cached_property
    def target(self) -> Grid:
        """Return the new grid."""
        return named_grid(self.grid)

    def changed(self, dataset: xr.Dataset) -> xr.Dataset:
        """Regrid a dataset, lazily."""
        return regridded(dataset, self.target, self.method)
