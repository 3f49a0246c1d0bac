"""Parts: one small file for each finished batch of a forecast, so that a kill costs no more than the batch at hand.

A part holds sums, extremes and the checksums of the batch's chunk files; it is written whole, after them. It counts
only as long as every file it names still has its checksum.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_pipelines.files.atomic import sha256, write_file


def open_batch_records(folder: Path, settings: Mapping[str, object]) -> BatchRecords:
    """The parts in `folder` of a piece of work with these settings; those of work with other settings are removed."""
    told, text = Path(folder) / "settings.json", json.dumps(settings, sort_keys=True, default=str)
    if not told.is_file() or told.read_text(encoding="utf-8") != text:
        shutil.rmtree(folder, ignore_errors=True)
        Path(folder).mkdir(parents=True)
        write_file(told, text.encode())
    return BatchRecords(folder)


class BatchRecords:
    """The folder `progress` beside a forecast that is being made."""

    def __init__(self, folder: Path) -> None:
        self.root, self.folder = Path(folder), Path(folder) / "progress"
        self.folder.mkdir(parents=True, exist_ok=True)

    def _path(self, part: int | str) -> Path:
        return self.folder / (f"{part:06d}.npz" if isinstance(part, int) else f"{part}.npz")

    def write(self, part: int | str, arrays: Mapping[str, np.ndarray], checksums: Mapping[str, str]) -> None:
        """Mark a part, by number or name, as finished. checksums: sha256 by path relative to the forecast's folder."""
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, checksums=np.array(json.dumps(dict(checksums))), **arrays)
        write_file(self._path(part), content.getvalue(), durable=True)

    def read(self, part: int | str, *, check: bool = True) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
        """(arrays, checksums) of a finished part; None where it is not finished or no longer whole.

        check: whether the files that it names are looked through.
        """
        try:
            with np.load(self._path(part), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            checksums = json.loads(str(arrays.pop("checksums")))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        for name, expected in checksums.items() if check else ():
            path = self.root / name
            if not path.is_file() or sha256(path) != expected:
                return None
        return arrays, checksums

    def forget(self, part: int | str) -> None:
        """Take a part for unfinished from now on."""
        self._path(part).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder, once the manifest holds what it held."""
        shutil.rmtree(self.folder, ignore_errors=True)
