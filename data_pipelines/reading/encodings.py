"""Encode the numbers in chunks of a packed store: single or half precision, plain or compressed.

    half precision:    stored = (x - offset) / scale,    |error| <= scale |stored| 2^-11 (float16), 2^-9 (bfloat16)

offset is the mean where that lies more than two standard deviations from zero, else 0, so that a zero stays a zero and
nothing positive turns negative; scale is the standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

STORED: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "bfloat16": np.dtype("<u2")}
COMPRESSIONS = ("none", "lz4", "zstd")
ZSTD_LEVEL = 3


@dataclass(frozen=True, eq=False)
class Encoding:
    """Encode and decode chunks as float32, float16 or bfloat16 (as uint16), with none, lz4 (bitshuffle) or zstd.

    offset, scale: float32 (channel,), for half precision only.
    """

    stored_as: str = "float32"
    compression: str = "none"
    offset: np.ndarray | None = None
    scale: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.stored_as not in STORED or self.compression not in COMPRESSIONS:
            raise ValueError(
                f"Expected dtype {', '.join(STORED)} and compression {', '.join(COMPRESSIONS)} or auto; got "
                f"dtype={self.stored_as}, compression={self.compression}."
            )

    @property
    def itemsize(self) -> int:
        return STORED[self.stored_as].itemsize

    @property
    def is_plain(self) -> bool:
        """True if a chunk's bytes are the numbers themselves."""
        return self.stored_as == "float32" and self.compression == "none"

    @cached_property
    def codec(self) -> Any:
        """The compressor, or None."""
        from numcodecs import Blosc, Zstd

        if self.compression == "lz4":
            return Blosc("lz4", clevel=5, shuffle=Blosc.BITSHUFFLE, typesize=self.itemsize)
        return Zstd(level=ZSTD_LEVEL) if self.compression == "zstd" else None

    def zarr_codecs(self) -> list[Any]:
        """Return the codecs for zarr, without the checksum that follows them."""
        from zarr.codecs import BloscCodec, BytesCodec, ZstdCodec

        packer: dict[str, list[Any]] = {
            "none": [],
            "lz4": [BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=self.itemsize)],
            "zstd": [ZstdCodec(level=ZSTD_LEVEL)],
        }
        return [BytesCodec(), *packer[self.compression]]

    def stored(self, fields: np.ndarray) -> np.ndarray:
        """Convert float32 fields (channel, *grid) to the numbers to store; ValueError if one does not fit."""
        if self.offset is None or self.scale is None:
            return np.ascontiguousarray(fields, dtype=STORED[self.stored_as])
        column = (-1, *[1] * (fields.ndim - 1))
        scaled = (fields - self.offset.reshape(column)) / self.scale.reshape(column)
        with np.errstate(over="ignore"):
            half = scaled.astype(np.float16) if self.stored_as == "float16" else _bits(scaled)
        bad = np.isfinite(scaled) & ~np.isfinite(_single(half))
        if bad.any():
            raise ValueError(
                f"Channel {int(np.nonzero(bad)[0][0])} has a number {abs(scaled[bad]).max():.3g} standard deviations "
                f"off, too large for {self.stored_as}; take dtype=float32."
            )
        return half

    def bytes_of(self, stored: np.ndarray) -> Any:
        """Compress a chunk, without its checksum."""
        return stored.data.cast("B") if self.codec is None else self.codec.encode(stored)

    def decoded(self, content: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Decompress a chunk to its stored numbers, (channel, *grid)."""
        raw = content if self.codec is None else self.codec.decode(content)
        return np.frombuffer(raw, dtype=STORED[self.stored_as]).reshape(shape)

    def spread(self, stored: np.ndarray, channels: slice, out: np.ndarray) -> None:
        """Convert the stored numbers of some channels to float32, into `out`."""
        if self.stored_as == "bfloat16":
            np.left_shift(stored, 16, out=out.view(np.uint32), dtype=np.uint32, casting="unsafe")
        else:
            out[...] = stored
        if self.offset is not None and self.scale is not None:
            column = (-1, *[1] * (out.ndim - 1))
            out *= self.scale[channels].reshape(column)
            out += self.offset[channels].reshape(column)


def half_precision(stored_as: str, compression: str, mean: np.ndarray, std: np.ndarray) -> Encoding:
    """Return the encoding in half precision for channels with these means and standard deviations."""
    far = np.abs(mean) > 2.0 * std
    scale = np.where(std > 0, std, np.where(far & (mean != 0), np.abs(mean), 1.0))
    return Encoding(stored_as, compression, np.where(far, mean, 0.0).astype("<f4"), scale.astype("<f4"))


def _bits(values: np.ndarray) -> np.ndarray:
    """Round float32 to bfloat16, to nearest even; returns its bits."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype("<u2")


def _single(half: np.ndarray) -> np.ndarray:
    """Convert float16, or the bits of bfloat16, to float32."""
    return (half.astype(np.uint32) << np.uint32(16)).view(np.float32) if half.dtype.kind == "u" else half.astype("f4")
