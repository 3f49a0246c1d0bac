"""A data source made of another, changed as it is read; nothing is stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from data_pipelines.interfaces import Progress, Source


@dataclass(frozen=True)
class DerivedSource(ABC):
    """Provide the dataset of `source` as `changed` returns it, with the places and splits of the source."""

    source: Source

    @abstractmethod
    def changed(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return the dataset, or the template, of the source with the change, lazily."""

    @property
    def path(self) -> str | Path | Sequence[str]:
        """Return where the data of the source are."""
        return self.source.path

    @property
    def splits(self) -> Mapping[str, Sequence[str | int] | None]:
        """Return first and last time of each split by name."""
        return self.source.splits

    def prepare(self, progress: Progress | None = None) -> None:
        """Make the data of the source where they are missing, and check that they can be changed."""
        self.source.prepare(progress)
        self.dataset()

    def template(self) -> xr.Dataset:
        """Return the template of the source, changed."""
        return self.changed(self.source.template())

    def dataset(self) -> xr.Dataset:
        """Return the dataset of the source, changed."""
        return self.changed(self.source.dataset())
