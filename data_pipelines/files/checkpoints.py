"""Checkpoints on disk: plain tensors, numbers and strings, written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_pipelines.files.atomic import atomic_file, bytes_text, flush_to_disk, room_text
from data_pipelines.files.seals import refuse_damaged_archive

FORMAT = 2
PREVIOUS = "previous.ckpt"


def save(path: str | Path, content: dict[str, Any], *, keep_previous: bool = False) -> None:
    """Write a checkpoint atomically and flush it to the disk: a kill or a full disk leaves the old one.

    keep_previous: the one that it replaces stays, as `previous.ckpt`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_file(path) as unfinished:
            with open(unfinished, "wb") as file:
                torch.save(content, file)
            flush_to_disk(unfinished)  # before the old one loses its name
            if keep_previous and path.exists():
                _link(path, path.with_name(PREVIOUS))
    except (OSError, RuntimeError) as error:
        said = f"{error}; it needs {bytes_text(_size(content))}, {room_text(path)}"
        raise OSError(f"Could not write checkpoint {path} ({said}); the previous one is untouched.") from error


def _size(node: Any) -> int:
    """Return the bytes of all tensors in nested mappings and lists."""
    if isinstance(node, torch.Tensor):
        return node.nbytes
    below = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
    return sum(map(_size, below))


def _link(path: Path, other: Path) -> None:
    """Make `other` a second name of the file at `path`, atomically; do nothing on file systems without hard links."""
    with suppress(OSError), atomic_file(other) as unfinished:
        os.link(path, unfinished)


def newest(folder: Path) -> tuple[Path, dict[str, Any], str | None] | None:
    """Find the newest readable checkpoint in `folder`: path, content, and what was wrong with a newer one.

    None where there is none at all; ValueError where none can be read.
    """
    faults: list[ValueError] = []
    for name in ("last.ckpt", PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            content = load(path)
        except ValueError as error:
            faults.append(error)
            continue
        return path, content, str(faults[0]) if faults else None
    if faults:
        raise ValueError(f"{' '.join(map(str, faults))} Remove {folder} to train anew.") from faults[0]
    return None


def load(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint to the CPU and compare the checksum of every tensor.

    FileNotFoundError or ValueError says what is wrong with the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No checkpoint at {path}; train first, or name a run that has one.")
    refuse_damaged_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        said = type(error).__name__
        raise ValueError(f"{path} cannot be read as a checkpoint ({said}); it may be truncated.") from error
    card = content.get("emul") if isinstance(content, dict) else None
    if not isinstance(card, dict):
        raise ValueError(f"Expected a checkpoint of emul; {path} is something else.")
    if card.get("format") != FORMAT:
        raise ValueError(f"{path} is in format {card.get('format')}; this version of emul reads {FORMAT}: train anew.")
    return content


@dataclass(frozen=True)
class CheckpointFolder:
    """Write and read the checkpoints of one training: last.ckpt, the one before it, and best.ckpt."""

    path: Path

    def save_last(self, content: dict[str, Any]) -> None:
        """Replace last.ckpt and keep it as `previous.ckpt`."""
        save(self.path / "last.ckpt", content, keep_previous=True)

    def save_best(self, content: dict[str, Any]) -> None:
        """Replace best.ckpt."""
        save(self.path / "best.ckpt", content)

    def load(self, path: str | Path) -> dict[str, Any]:
        """The content of a checkpoint."""
        return load(path)
