"""A packed store, as `emul data convert` writes it, as a data source: read as fast as the disk allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import xarray as xr

from data_pipelines.interfaces import Progress
from data_pipelines.reading.packed_store import PackedStore
from data_pipelines.reading.packed_view import packed_dataset


class Packed:
    """path: the store. splits: name -> [start, end], both inclusive; one that is null is that of the data packed."""

    def __init__(self, path: str, splits: Mapping[str, Sequence[str | int] | None] | None = None) -> None:
        self.path, self._given = path, dict(splits or {})

    @cached_property
    def store(self) -> PackedStore:
        return PackedStore(self.path)

    @property
    def splits(self) -> dict[str, Sequence[str | int] | None]:
        """Name -> [start, end]."""
        return {**self.store.attributes["splits"], **{name: period for name, period in self._given.items() if period}}

    def prepare(self, progress: Progress | None = None) -> None:
        """Nothing is made; raises FileNotFoundError or ValueError now where there is no packed store."""
        self.dataset()

    def template(self) -> xr.Dataset:
        """The dataset; its fields are not read until asked for."""
        return self.dataset()

    def dataset(self) -> xr.Dataset:
        """The store as a canonical dataset."""
        return packed_dataset(self.store)
