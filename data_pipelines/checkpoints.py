"""Checkpoints on disk: plain tensors, numbers and strings, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

FORMAT = 1


def save(path: str | Path, content: dict[str, Any]) -> None:
    """Write to a neighbouring file, flush it to the disk, then rename: a kill or a full disk leaves the old one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        raise OSError(f"Could not write checkpoint {path} ({error}); the previous one is untouched.") from error
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. FileNotFoundError or ValueError says what is wrong with the file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No checkpoint at {path}; train first, or name a run that has one.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        said = type(error).__name__
        raise ValueError(f"{path} cannot be read as a checkpoint ({said}); it may be truncated.") from error
    card = content.get("emul") if isinstance(content, dict) else None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ValueError(f"Expected a checkpoint of emul in format {FORMAT}; {path} is something else.")
    return content
