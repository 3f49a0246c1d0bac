"""Local GRIB files as a data source, read through cfgrib (the extra `emul[grib]`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from data_pipelines.fluxes import ecmwf
from data_pipelines.store import open_dataset, shaped


@dataclass(frozen=True)
class Grib:
    """path: a file, a pattern, or a list. splits: name -> [start, end], both inclusive.

    filter: GRIB keys to keep, such as {typeOfLevel: isobaricInhPa}, for files that hold several kinds of level.
    rename, select: see `data_pipelines.conventions.canonical`.
    levels, fill, derive, timestep: see `data_pipelines.store.shaped`.
    """

    path: str | Sequence[str]
    splits: Mapping[str, Sequence[str | int] | None] = field(default_factory=dict)
    filter: Mapping[str, Any] | None = None
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
        opened = open_dataset(self.path, engine="grib", filter=self.filter, rename=self.rename, select=self.select)
        return ecmwf(shaped(opened, levels=self.levels, fill=self.fill, derive=self.derive, timestep=self.timestep))
