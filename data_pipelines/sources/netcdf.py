"""Local NetCDF files, one or many, as a data source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from data_pipelines.store import open_dataset, shaped


@dataclass(frozen=True)
class NetCDF:
    """path: a file, a pattern such as `era5_*.nc`, or a list. splits: name -> [start, end], both inclusive.
    rename, select: see `data_pipelines.conventions.canonical`.
    levels, fill, derive, timestep: see `data_pipelines.store.shaped`.
    """

    path: str | Sequence[str]
    splits: Mapping[str, Sequence[str | int] | None] = field(default_factory=dict)
    rename: Mapping[str, str] | None = None
    select: Mapping[str, Any] | None = None
    levels: Sequence[float] | None = None
    fill: Mapping[str, float] | None = None
    derive: Sequence[str] | None = None
    timestep: str | None = None

    def prepare(self, progress: Callable[[str, float], None] | None = None) -> None:
        """Nothing is made; raises FileNotFoundError or ValueError now where the files cannot be used."""
        self.dataset()

    def template(self) -> xr.Dataset:
        """The dataset; its fields are not read until asked for."""
        return self.dataset()

    def dataset(self) -> xr.Dataset:
        """The files as one canonical dataset."""
        opened = open_dataset(self.path, engine="netcdf", rename=self.rename, select=self.select)
        return shaped(opened, levels=self.levels, fill=self.fill, derive=self.derive, timestep=self.timestep)
