"""A limited area of any data source: what lies within its sides, with the zone at them that is known from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

from data_pipelines.conventions.suggestions import options_under
from data_pipelines.derived.shaping import limited
from data_pipelines.opening.derived_source import DerivedSource


@dataclass(frozen=True)
class LimitedArea(DerivedSource):
    """Cut a limited area out of a data source, whose store is made and kept whole.

    source: any data source; its splits are those of the area.
    latitude, longitude, boundary, prescribe: see `data_pipelines.derived.shaping.limited`.
    """

    latitude: Sequence[float]
    longitude: Sequence[float]
    boundary: float = 0.0
    prescribe: Sequence[str] = ()

    def changed(self, dataset: xr.Dataset) -> xr.Dataset:
        """Cut the area out of a dataset."""
        with options_under("data."):
            return limited(dataset, self.latitude, self.longitude, self.boundary, self.prescribe)
