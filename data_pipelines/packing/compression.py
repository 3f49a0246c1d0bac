"""Measure how fast each compression is read: seconds for a gigabyte of fields, from the disk and decoding."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.reading.encodings import COMPRESSIONS, Encoding

PROBE_BYTES = 32_000_000


class Candidate(NamedTuple):
    """Hold the compression ratio (share of bytes that remain) and the seconds to read and decode a gigabyte."""

    name: str
    share: float
    seconds: float


def candidates(chunks: Sequence[np.ndarray], dtype: str, folder: Path) -> list[Candidate]:
    """Try each compression on some stored chunks, with files on the disk of `folder`."""
    size, rate = sum(chunk.nbytes for chunk in chunks), disk_rate(folder)
    found = []
    for name in COMPRESSIONS:
        encoding = Encoding(dtype, name)
        packed = [np.frombuffer(encoding.bytes_of(chunk), dtype=np.uint8) for chunk in chunks]
        out, seconds = np.empty_like(chunks[0]), []
        for _ in range(3):
            begun = time.perf_counter()
            for content in packed:
                np.copyto(out, encoding.decoded(content, out.shape))
            seconds.append(time.perf_counter() - begun)
        share = sum(content.nbytes for content in packed) / size
        found.append(Candidate(name, share, 1e9 * (share / rate + min(seconds) / size)))
    return found


def disk_rate(folder: Path) -> float:
    """Bytes a second read from the disk of `folder`, not from memory."""
    path = folder / ".probe"
    try:
        with open(path, "wb") as file:
            file.write(os.urandom(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with open(path, "rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            begun, memory = time.perf_counter(), bytearray(4_000_000)
            while file.readinto(memory):
                pass
            return PROBE_BYTES / (time.perf_counter() - begun)
    finally:
        path.unlink(missing_ok=True)
