"""Sums of an evaluation on disk: one that was killed goes on, and those of shares of the initial times add up.

<folder>/sums/<share>_of_<shares>.npz: the arrays of each part of the evaluation, and how many blocks are in them
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data_pipelines.files.atomic import atomic_file


class Part(Protocol):
    """What adds up: a scorecard, maps, spectra, ..."""

    def partial(self) -> Mapping[str, np.ndarray]:
        """The sums so far, arrays without objects."""
        ...

    def add_partial(self, partial: Mapping[str, np.ndarray]) -> Any:
        """Add the sums of another."""
        ...


class Sums:
    """The sums of one share of an evaluation; what: all that decides on them, so that no others are taken for them.

    every: seconds between one save and the next; 0 saves after every block.
    """

    def __init__(self, folder: Path, what: Mapping[str, Any], share: tuple[int, int], every: float) -> None:
        self.folder, self.share, self.every = folder / "sums", share, every
        self.what = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
        self._saved = time.monotonic()

    def path(self, share: int) -> Path:
        """The file of a share."""
        return self.folder / f"{share}_of_{self.share[1]}.npz"

    def restore(self, parts: Mapping[str, Part]) -> int:
        """Add to the empty `parts` what an earlier run of the same evaluation saved; the number of blocks in it."""
        found = self._read(self.share[0])
        if found is None:
            return 0
        _add(parts, found)
        return int(found["blocks"])

    def keep(self, parts: Mapping[str, Part], blocks: int, of: int) -> None:
        """Save the sums of the first `blocks` blocks of a share, if the time has come or they are all there are."""
        if blocks < of and time.monotonic() - self._saved < self.every:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.path(self.share[0])
        content: dict[str, Any] = {"what": self.what, "blocks": blocks, "of": of}
        for name, part in parts.items():
            content |= {f"{name}/{key}": array for key, array in part.partial().items()}
        with atomic_file(target) as unfinished, open(unfinished, "wb") as file:
            np.savez(file, **content)
        self._saved = time.monotonic()

    def add_others(self, parts: Mapping[str, Part]) -> list[int]:
        """Add the sums of the other shares where all are complete; else which are not."""
        count = self.share[1]
        others = [share for share in range(1, count + 1) if share != self.share[0]]
        found = {share: self._read(share) for share in others}
        absent = [share for share, sums in found.items() if sums is None or sums["blocks"] < sums["of"]]
        for sums in found.values() if not absent else ():
            assert sums is not None
            _add(parts, sums)
        return absent

    def remove(self) -> None:
        """Forget the sums, once the scores are written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, share: int) -> dict[str, np.ndarray] | None:
        """The saved arrays of a share; None where there are none of this evaluation."""
        try:
            with np.load(self.path(share)) as arrays:
                return dict(arrays) if str(arrays["what"]) == self.what else None
        except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError, EOFError):
            return None


def _add(parts: Mapping[str, Part], arrays: Mapping[str, np.ndarray]) -> None:
    for name, part in parts.items():
        part.add_partial({k.removeprefix(f"{name}/"): a for k, a in arrays.items() if k.startswith(f"{name}/")})
