"""Save a batch of forecasts in segments of leads, each complete on disk before the next begins.

    progress/<batch>_<first>_<stop>.npz   what was gathered of the leads first .. stop - 1, and how to go on from there

A killed rollout goes on after the last of its segments; where a file of one was lost or cut short, from before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.files.batch_records import BatchRecords


@dataclass(frozen=True, order=True)
class Segment:
    """Identify the leads first .. stop - 1, counted from 0, of one batch of initial times."""

    batch: int
    first: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.batch:06d}_{self.first:07d}_{self.stop:07d}"


class Segments:
    """Manage the segments of a forecast of `batches` batches and `steps` leads; several processes may share them."""

    def __init__(self, folder: Path, batches: int, steps: int) -> None:
        self.parts, self.batches, self.steps = BatchRecords(folder), batches, steps
        self.folder, self.remove = self.parts.folder, self.parts.remove
        self._sound: set[Segment] = set()  # made or looked through by this process

    def chains(self) -> dict[int, list[Segment]]:
        """The segments of each batch that are on disk, from lead 0 without a gap."""
        found: dict[int, dict[int, Segment]] = defaultdict(dict)
        for segment in self._listed():
            found[segment.batch][segment.first] = segment
        return {batch: list(self._chain(found[batch])) for batch in range(self.batches)}

    def _listed(self, batch: str = "*") -> Iterator[Segment]:
        for path in self.folder.glob(f"{batch}_*_*.npz"):
            yield Segment(*map(int, path.stem.split("_")))

    @staticmethod
    def _chain(by_first: Mapping[int, Segment]) -> Iterator[Segment]:
        lead = 0
        while lead in by_first:
            yield by_first[lead]
            lead = by_first[lead].stop

    def sound(self, batch: int) -> list[Segment]:
        """The segments of a batch up to the first with a damaged file; later ones are removed."""
        chain = list(self._chain({segment.first: segment for segment in self._listed(f"{batch:06d}")}))
        for number, segment in enumerate(chain):
            if segment not in self._sound and self.parts.read(segment.name) is None:
                for later in chain[number:]:
                    self.parts.forget(later.name)
                return chain[:number]
            self._sound.add(segment)
        return chain

    def ahead(self, batch: int, after: int, length: int) -> Iterator[Segment]:
        """The segments that a batch still needs after `after` leads, each at most `length` long."""
        for first in range(after, self.steps, length):
            yield Segment(batch, first, min(first + length, self.steps))

    def write(self, segment: Segment, arrays: Mapping[str, np.ndarray], checksums: Mapping[str, str]) -> None:
        """Mark a segment as made; arguments as of `Parts.write`."""
        self.parts.write(segment.name, arrays, checksums)
        self._sound.add(segment)

    def read(self, segment: Segment) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """(arrays, checksums) of a segment; OSError where it is gone."""
        found = self.parts.read(segment.name, check=segment not in self._sound)
        if found is None:
            raise OSError(f"{self.parts.folder / segment.name}.npz was whole and is not any more; run this again.")
        return found

    def written(self) -> tuple[int, list[int]]:
        """The number of complete batches, and the leads that others have reached, by the names of files alone."""
        stops = [chain[-1].stop for chain in self.chains().values() if chain]
        return sum(stop == self.steps for stop in stops), [stop for stop in stops if stop < self.steps]

    def absent(self) -> list[int]:
        """The batches that are not complete on disk; once all seem to be, their files are checked."""
        chains = self.chains()
        lacking = [batch for batch, chain in chains.items() if not chain or chain[-1].stop < self.steps]
        if lacking:
            return lacking
        return [batch for batch, chain in chains.items() if {*chain} - self._sound and self.sound(batch) != chain]
