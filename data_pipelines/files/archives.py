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
END_SIZE, MANY = 22, 0xFFFF  # bytes of the record at the end of an archive; its count where that does not fit
FAULTS = (
    ValueError, KeyError, RuntimeError, EOFError, SyntaxError, tokenize.TokenError, struct.error,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip


@contextmanager
def refusing_damage(path: str | Path) -> Iterator[None]:
    """Raise ValueError that names the file where an archive read inside cannot be read; other OSErrors pass."""
    try:
        _refuse_lost_parts(Path(path))
        yield
    except FAULTS as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); {AGAIN}.") from error
    except OSError as error:
        if error.errno is not None:  # of the disk, not of the bytes: bz2 raises one without a number
            raise
        raise ValueError(f"{path} is damaged or truncated ({error}); {AGAIN}.") from error


def _refuse_lost_parts(path: Path) -> None:
    """Raise BadZipFile if the list of parts at the end of an archive holds other than as many as it says.

    A flipped bit in the length of a comment swallows what follows it in the list, of which zipfile says nothing.
    """
    if not path.is_file() or not zipfile.is_zipfile(path):
        return
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        listed = len(archive.infolist())
        file.seek(-END_SIZE, 2)
        end = file.read()
    count = int.from_bytes(end[10:12], "little")
    if end.startswith(b"PK\5\6") and count not in (listed, MANY):
        raise zipfile.BadZipFile(f"it lists {listed} of {count} parts")


def refuse_damaged_archive(path: Path) -> None:
    """Raise ValueError if a part of a zip archive, such as a tensor in a file of PyTorch, differs from its CRC-32."""
    with refusing_damage(path), zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{path}: the checksum of its part {damaged} is wrong; {AGAIN}.")
