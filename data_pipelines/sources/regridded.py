"""Any data source on another grid, regridded as it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import xarray as xr

from data_pipelines.derived.regridding import regridded
from data_pipelines.interfaces import Progress, Source
from emulators.grid import Grid
from emulators.grids.catalogue import named_grid


@dataclass(frozen=True)
class Regridded:
    """Regrid a data source as it is read; nothing is stored.

    source: any data source; its splits are those of the result. grid: the name of the new grid, 64x32_gaussian, O32,
    healpix:8; see `emulators.grids.catalogue.named_grid`. method: see `data_pipelines.derived.regridding.regridded`.
    """

    source: Source
    grid: str
    method: str = "conservative"

    @cached_property
    def target(self) -> Grid:
        """Return the new grid."""
        return named_grid(self.grid)

    @property
    def path(self) -> str | Path | Sequence[str]:
        """Return where the data of the source are."""
        return self.source.path

    @property
    def splits(self) -> Mapping[str, Sequence[str | int] | None]:
        """Return first and last time of each split by name."""
        return self.source.splits

    def prepare(self, progress: Progress | None = None) -> None:
        """Make the data of the source where they are missing, and check that they can be regridded."""
        self.source.prepare(progress)
        self.dataset()

    def template(self) -> xr.Dataset:
        """Regrid the template of the source, lazily."""
        return regridded(self.source.template(), self.target, self.method)

    def dataset(self) -> xr.Dataset:
        """Regrid the dataset of the source, lazily."""
        return regridded(self.source.dataset(), self.target, self.method)
