"""Score pairs of forecast and truth in one pass, with sums on disk: an evaluation that was killed goes on, and those of
shares of the initial times add up.

<folder>/sums/<share>_of_<shares>.npz: the arrays of each accumulator, and how many blocks are in them
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.files.atomic import write_file
from data_pipelines.files.locks import lock_or_refuse, wait_for_turn
from data_pipelines.verification.odd_values import OddValues
from data_pipelines.verification.pairs import Pairs
from data_pipelines.verification.truth import CachedClimatology
from emulators.scores.interfaces import Accumulator, PairAccumulators

ODD = "odd values"  # the name of their counts among the sums


def score_pairs(
    pairs: Pairs,
    evaluation: PairAccumulators,
    *,
    climatology: CachedClimatology | None = None,
    odd: OddValues | None = None,
    sums: PartialSums | None = None,
    report: Callable[[str, float], None] | None = None,
    resumed: Callable[[int, int], None] | None = None,
) -> None:
    """Add the pairs to an evaluation, those of the share of `sums`; begins after the blocks that are saved in `sums`.

    odd: counts of missing and impossible values, to which the pairs are added too.
    report(text, fraction): called as it goes. resumed(done, total): called where pairs were scored by an earlier run.
    """
    blocks = pairs.blocks(*(sums.share if sums is not None else (1, 1)))
    accumulators = evaluation.accumulators() | ({} if odd is None else {ODD: odd})
    complete = sums.restore(accumulators) if sums is not None else 0
    done, total = sum(map(pairs.count, blocks[:complete])), sum(map(pairs.count, blocks))
    if complete and resumed is not None:
        resumed(done, total)
    for pair in pairs.of(blocks[complete:]):
        if odd is not None:
            odd.add(pair)
        evaluation.add(pair, {} if climatology is None else climatology.named(pair.target.time))
        done += len(pair.inits)
        if report is not None:
            report(f"{done} of {total} pairs", done / total)
        if pair.last and sums is not None:
            complete += 1
            sums.save(accumulators, complete, len(blocks))
    if not blocks and sums is not None:  # the others wait for this share, too
        sums.save(accumulators, 0, 0)


class PartialSums:
    """Save and restore the sums of one share of an evaluation.

    settings: all that the sums depend on; sums saved with other settings are not used. every: seconds between one save
    and the next; 0 saves after every block.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], share: tuple[int, int], every: float) -> None:
        self.folder, self.share, self.every = folder / "sums", share, every
        self.settings = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self._saved = time.monotonic()

    def path(self, share: int) -> Path:
        """The file of a share."""
        return self.folder / f"{share}_of_{self.share[1]}.npz"

    def restore(self, accumulators: Mapping[str, Accumulator]) -> int:
        """Add what an earlier run of the same evaluation saved; the number of blocks in it. accumulators: empty."""
        found = self._read(self.share[0])
        if found is None:
            return 0
        _add(accumulators, found)
        return int(found["blocks"])

    def save(self, accumulators: Mapping[str, Accumulator], blocks: int, of: int) -> None:
        """Save the sums of the first `blocks` blocks of a share, if it is time or they are the last."""
        if blocks < of and time.monotonic() - self._saved < self.every:
            return
        content: dict[str, Any] = {"settings": self.settings, "blocks": blocks, "of": of}
        for name, accumulator in accumulators.items():
            content |= {f"{name}/{key}": array for key, array in accumulator.partial().items()}
        file = io.BytesIO()
        np.savez(file, **content)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(self.path(self.share[0]), file.getbuffer(), durable=True)
        self._saved = time.monotonic()

    def add_others(self, accumulators: Mapping[str, Accumulator]) -> list[int]:
        """Add the sums of the other shares if all are complete; else return those that are not."""
        count = self.share[1]
        others = [share for share in range(1, count + 1) if share != self.share[0]]
        found = {share: self._read(share) for share in others}
        absent = [share for share, sums in found.items() if sums is None or sums["blocks"] < sums["of"]]
        for sums in found.values() if not absent else ():
            assert sums is not None
            _add(accumulators, sums)
        return absent

    def remove(self) -> None:
        """Remove the sums, once the scores are written: all at once, so that a kill leaves all or none."""
        removed = self.folder.with_name(f".{self.folder.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)

    @property
    def is_merged(self) -> bool:
        """Whether the process of another share has written the scores since this one saved its sums."""
        return not self.path(self.share[0]).exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this share; ValueError names the process that scores it already."""
        share, shares = self.share
        with lock_or_refuse(self.folder.parent, f".share_{share}_of_{shares}.lock", "scoring"):
            yield

    def turn(self) -> AbstractContextManager[None]:
        """Wait until no other share merges or writes the scores."""
        return wait_for_turn(self.folder.parent)

    def _read(self, share: int) -> dict[str, np.ndarray] | None:
        """The saved arrays of a share; None where there are none of this evaluation."""
        try:
            with np.load(self.path(share)) as arrays:
                return dict(arrays) if str(arrays["settings"]) == self.settings else None
        except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError, EOFError):
            return None


def _add(accumulators: Mapping[str, Accumulator], arrays: Mapping[str, np.ndarray]) -> None:
    for name, accumulator in accumulators.items():
        accumulator.add_partial({k.removeprefix(f"{name}/"): a for k, a in arrays.items() if k.startswith(f"{name}/")})
