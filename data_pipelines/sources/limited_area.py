"""A limited area of any data source: what lies within its sides, with the zone at them that is known from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from data_pipelines.conventions.suggestions import options_under
from data_pipelines.derived.shaping import limited
from data_pipelines.interfaces import Progress, Source


@dataclass(frozen=True)
class LimitedArea:
    """Cut a limited area out of a data source, whose store is made and kept whole.

    source: any data source; its splits are those of the area.
    latitude, longitude, boundary, prescribe: see `data_pipelines.derived.shaping.limited`.
    """

    source: Source
    latitude: Sequence[float]
    longitude: Sequence[float]
    boundary: float = 0.0
    prescribe: Sequence[str] = ()

    @property
    def path(self) -> str | Path | Sequence[str]:
        """Return where the data of the source are."""
        return self.source.path

    @property
    def splits(self) -> Mapping[str, Sequence[str | int] | None]:
        """Return first and last time of each split by name."""
        return self.source.splits

    def prepare(self, progress: Progress | None = None) -> None:
        """Make the data of the source where they are missing, and check that they hold the area."""
        self.source.prepare(progress)
        self.dataset()

    def template(self) -> xr.Dataset:
        """Cut the area out of the template of the source."""
        return self._cut(self.source.template())

    def dataset(self) -> xr.Dataset:
        """Cut the area out of the dataset of the source."""
        return self._cut(self.source.dataset())

    def _cut(self, dataset: xr.Dataset) -> xr.Dataset:
        with options_under("data."):
            return limited(dataset, self.latitude, self.longitude, self.boundary, self.prescribe)
