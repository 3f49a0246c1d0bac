"""Compute the length of a classic NetCDF file from its header: the library reads zeros beyond a truncated end.

    length = max over variables of begin + (records - 1) * record length + length of one slab

NetCDF classic format specification (Unidata), versions 1, 2 and 5.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}  # bytes, by type


class _Header:
    """Read the header's big-endian numbers, whose width depends on the version."""

    def __init__(self, file: BinaryIO, version: int) -> None:
        self.file = file
        self.count_width = 8 if version == 5 else 4
        self.offset_width = 4 if version == 1 else 8

    def number(self, width: int = 4) -> int:
        return struct.unpack(">I" if width == 4 else ">Q", self.file.read(width))[0]

    def count(self) -> int:
        return self.number(self.count_width)

    def skip(self, size: int) -> None:
        """Skip `size` bytes, padded to four."""
        self.file.seek(-(-size // 4) * 4, 1)

    def name(self) -> None:
        self.skip(self.count())

    def attributes(self) -> None:
        self.number()
        for _ in range(self.count()):
            self.name()
            kind = self.number()
            self.skip(SIZES[kind] * self.count())

    def dimensions(self) -> list[int]:
        self.number()
        lengths = []
        for _ in range(self.count()):
            self.name()
            lengths.append(self.count())
        return lengths


def expected_bytes(path: str | Path) -> int | None:
    """Return the least length of a classic file in bytes; None for other formats and files still being written."""
    with open(path, "rb") as file:
        magic = file.read(4)
        if magic[:3] != b"CDF" or magic[3] not in (1, 2, 5):
            return None
        header = _Header(file, magic[3])
        records = header.count()
        if records == 2 ** (8 * header.count_width) - 1:
            return None
        dimensions = header.dimensions()
        header.attributes()
        header.number()
        fixed, slabs = [0], []
        for _ in range(header.count()):
            header.name()
            shape = [dimensions[header.count()] for _ in range(header.count())]
            header.attributes()
            size = SIZES[header.number()]
            header.count()  # the stored size, which overflows for large variables
            begin = header.number(header.offset_width)
            of_records = bool(shape) and shape[0] == 0
            slab = size * math.prod(shape[1:] if of_records else shape)
            if of_records:
                slabs.append((begin, slab))
            else:
                fixed.append(begin + slab)
    record = sum(-(-slab // 4) * 4 for _, slab in slabs) if len(slabs) > 1 else sum(slab for _, slab in slabs)
    ends = [begin + (records - 1) * record + slab for begin, slab in slabs] if records else []
    return max([*fixed, *ends])
