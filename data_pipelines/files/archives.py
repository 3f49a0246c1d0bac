"""Refuse damaged zip archives, as which NumPy and PyTorch write arrays: each part carries a CRC-32.

A flipped bit may also change how a part claims to be packed, and every decompressor fails in a way of its own.
"""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AGAIN = "it was changed or damaged after it was written"
FAULTS = (
    ValueError, KeyError, RuntimeError, EOFError, SyntaxError, tokenize.TokenError, struct.error,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip


@contextmanager
def refusing_damage(path: str | Path) -> Iterator[None]:
    """Raise ValueError that names the file where an archive read inside cannot be read; other OSErrors pass."""
    try:
        yield
    except FAULTS as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); {AGAIN}.") from error
    except OSError as error:
        if error.errno is not None:  # of the disk, not of the bytes: bz2 raises one without a number
            raise
        raise ValueError(f"{path} is damaged or truncated ({error}); {AGAIN}.") from error


def refuse_damaged_archive(path: Path) -> None:
    """Raise ValueError if a part of a zip archive, such as a tensor in a file of PyTorch, differs from its CRC-32."""
    with refusing_damage(path), zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{path}: the checksum of its part {damaged} is wrong; {AGAIN}.")
