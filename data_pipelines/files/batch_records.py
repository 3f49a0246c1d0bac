"""Records of finished batches of work, so that an interruption costs no more than the current one.

A record, one small file, holds arrays, such as sums, and the checksums of the batch's files; it is written after them.
It counts only as long as every file it names still has its checksum.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_pipelines.files.archives import refusing_damage
from data_pipelines.files.atomic import sha256, write_file


def open_batch_records(folder: Path, settings: Mapping[str, object]) -> BatchRecords:
    """Open the records in `folder`; those of work with other settings are removed first."""
    settings_file, text = Path(folder) / "settings.json", json.dumps(settings, sort_keys=True, default=str)
    if not settings_file.is_file() or settings_file.read_text(encoding="utf-8") != text:
        shutil.rmtree(folder, ignore_errors=True)
        Path(folder).mkdir(parents=True)
        write_file(settings_file, text.encode())
    return BatchRecords(folder)


class BatchRecords:
    """Read and write the records of finished batches in the subfolder `progress`."""

    def __init__(self, folder: Path) -> None:
        self.root, self.folder = Path(folder), Path(folder) / "progress"
        self.folder.mkdir(parents=True, exist_ok=True)

    def _path(self, part: int | str) -> Path:
        return self.folder / (f"{part:06d}.npz" if isinstance(part, int) else f"{part}.npz")

    def write(self, part: int | str, arrays: Mapping[str, np.ndarray], checksums: Mapping[str, str]) -> None:
        """Record batch `part`, a number or a name, as finished. checksums: sha256 by path relative to the folder."""
        content = io.BytesIO()
        np.savez(content, checksums=np.array(json.dumps(dict(checksums))), **arrays)  # type: ignore[arg-type]
        write_file(self._path(part), content.getvalue(), durable=True)

    def read(self, part: int | str, *, check: bool = True) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
        """Return (arrays, checksums) of a finished batch; None if it is not finished or its files have changed.

        check: whether to compare the checksums of its files.
        """
        try:
            path = self._path(part)
            with refusing_damage(path), np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            checksums = json.loads(str(arrays.pop("checksums")))
        except (OSError, ValueError, KeyError):
            return None
        for name, expected in checksums.items() if check else ():
            path = self.root / name
            if not path.is_file() or sha256(path) != expected:
                return None
        return arrays, checksums

    def forget(self, part: int | str) -> None:
        """Remove the record of a batch."""
        self._path(part).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all records."""
        shutil.rmtree(self.folder, ignore_errors=True)
