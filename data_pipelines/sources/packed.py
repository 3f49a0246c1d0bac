"""A packed store, written by `emul data convert`, as a dataset: the fastest to train from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import xarray as xr

from data_pipelines.interfaces import Progress
from data_pipelines.reading.packed_store import PackedStore
from data_pipelines.reading.packed_view import packed_dataset


class Packed:
    """Read a packed store.

    path: of the store. splits: first and last time of each split by name; null for the split saved in the store.
    """

    def __init__(self, path: str, splits: Mapping[str, Sequence[str | int] | None] | None = None) -> None:
        self.path, self._given = path, dict(splits or {})

    @cached_property
    def store(self) -> PackedStore:
        """Open the store."""
        return PackedStore(self.path)

    @property
    def splits(self) -> dict[str, Sequence[str | int] | None]:
        """Return first and last time of each split by name."""
        return {**self.store.attributes["splits"], **{name: period for name, period in self._given.items() if period}}

    def prepare(self, progress: Progress | None = None) -> None:
        """Check that the store can be opened; FileNotFoundError or ValueError if not."""
        self.dataset()

    def template(self) -> xr.Dataset:
        """Return the dataset; its fields are read lazily."""
        return self.dataset()

    def dataset(self) -> xr.Dataset:
        """Open the store lazily as a canonical dataset."""
        return packed_dataset(self.store)
