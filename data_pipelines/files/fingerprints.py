"""Cheap fingerprints of data: what their files and their coordinates tell without being read whole.

`fingerprint` reads at most a few megabytes of a dataset, so that it can be taken whenever data are opened;
`data_differences` compares two.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from data_pipelines.files.identity import digest, short

if TYPE_CHECKING:
    import xarray as xr

WHOLE_BYTES = 2**22  # of all files together, up to which they are read whole
BLOCK_BYTES = 2**14  # of one sample
BLOCKS = 32  # samples of a single file
CHUNKS = 4  # sampled chunks of each array of a Zarr store
MOST_CHUNKS = 256  # of a store
MOST_FILES = 512  # of many, whose content is sampled
METADATA = ("zarr.json", ".zmetadata", ".zgroup", ".zattrs", ".zarray")


def fingerprint(
    path: str | Path | Sequence[str | Path] | None, dataset: xr.Dataset | None = None
) -> dict[str, str | int | bool]:
    """Return a fingerprint of the data at `path`: plain values by name, for `data_differences`.

    path: as of a data source. files, bytes: how many. sampled: digest of the metadata and of evenly spread blocks of
    the content; whole: whether these are all of it. written: latest modification, ns since 1970. Of addresses only
    `dataset` is told: times, grid, and variables with their units. What cannot be read is left out.
    """
    told: dict[str, str | int | bool] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):  # files in no order that is known tell nothing
        told = _of_files(found) if (found := _files(path)) else {}
    return told | ({} if dataset is None else _of_dataset(dataset))


def _files(path: str | Path | Sequence[str | Path] | None) -> list[Path]:
    """Return the local files and stores that match `path`, sorted as they are opened."""
    if path is None:
        return []
    if not isinstance(path, str | Path):
        return [file for one in path for file in _files(one)]
    text = str(path)
    if "://" in text or "::" in text:
        return []
    text = os.path.expanduser(text)
    return [Path(text)] if os.path.exists(text) else [Path(name) for name in sorted(glob.glob(text, recursive=True))]


def _of_files(paths: Sequence[Path]) -> dict[str, str | int | bool]:
    """Return the fingerprint of local files and stores."""
    parts = [part for path in paths for part in (_store_parts(path) if path.is_dir() else [path])]
    sizes = {part: part.stat() for part in parts if part.is_file()}
    total = sum(stat.st_size for stat in sizes.values())
    whole = total <= WHOLE_BYTES and all(path.is_file() for path in paths)
    step = max(1, -(-len(parts) // MOST_FILES))
    blocks = max(3, BLOCKS // max(1, len(parts)))
    content = hashlib.sha256()
    for part in parts[::step]:
        size = sizes[part].st_size if part in sizes else -1
        everything = whole or part.name in METADATA
        content.update(f"{size} {_sampled(part, size, 0 if everything else blocks)}\n".encode())
    return {
        "files": len(parts),
        "bytes": total,
        "sampled": content.hexdigest(),
        "whole": whole,
        "written": max((stat.st_mtime_ns for stat in sizes.values()), default=0),
    }


def _sampled(path: Path, size: int, blocks: int) -> int:
    """Return the crc32c of evenly spread blocks of a file, the first and the last among them; 0: of all of it."""
    if size < 0:
        return 0
    with open(path, "rb", buffering=0) as file:
        if not blocks or size <= blocks * BLOCK_BYTES:
            return int(google_crc32c.value(file.read()))
        found = 0
        for start in np.linspace(0, size - BLOCK_BYTES, blocks).astype(np.int64).tolist():
            found = int(google_crc32c.extend(found, os.pread(file.fileno(), BLOCK_BYTES, start)))
    return found


def _store_parts(store: Path) -> list[Path]:
    """Return the metadata files of a Zarr store and some chunks of each array."""
    found = [store / name for name in METADATA if (store / name).is_file()]
    arrays = _arrays(store)
    chunks = [store / name / key for name, array in arrays.items() for key in _chunk_keys(array)]
    own = [store / name / file for name in arrays for file in METADATA if (store / name / file).is_file()]
    return [*found, *own, *chunks[:: max(1, -(-len(chunks) // MOST_CHUNKS))]]


def _arrays(store: Path) -> dict[str, dict[str, Any]]:
    """Return the metadata of the arrays of a Zarr store by name, consolidated or not."""
    root = _json(store / "zarr.json")
    known = root.get("consolidated_metadata") or {}
    if known:
        return {name: told for name, told in sorted(known["metadata"].items()) if told.get("node_type") == "array"}
    legacy = _json(store / ".zmetadata").get("metadata", {})
    if legacy:
        return {
            name.removesuffix("/.zarray"): told for name, told in sorted(legacy.items()) if name.endswith("/.zarray")
        }
    inside = {path.name: path for path in sorted(store.iterdir()) if path.is_dir()}
    told = {name: _json(path / "zarr.json") or _json(path / ".zarray") for name, path in inside.items()}
    return {name: array for name, array in told.items() if "shape" in array}


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _chunk_keys(array: Mapping[str, Any]) -> list[str]:
    """Return the paths of some chunks of an array, evenly spread along its first axis, in the middle of the others."""
    shape = array["shape"]
    chunk = array.get("chunks") or array["chunk_grid"]["configuration"]["chunk_shape"]
    encoding = array.get("chunk_key_encoding", {"name": "v2"})
    options = encoding.get("configuration", {})
    prefix, separator = ("c", "/") if encoding["name"] == "default" else ("", array.get("dimension_separator", "."))
    separator = options.get("separator", separator)
    counts = [-(-size // length) for size, length in zip(shape, chunk, strict=True)]
    if 0 in counts:
        return []
    firsts = sorted(set(np.linspace(0, counts[0] - 1, CHUNKS).astype(int).tolist())) if counts else [None]
    keys = [[first, *(count // 2 for count in counts[1:])] if counts else [] for first in firsts]
    parts = [[*([prefix] if prefix else []), *map(str, key or ([] if prefix else ["0"]))] for key in keys]
    return [separator.join(part) for part in parts]


def _of_dataset(dataset: xr.Dataset) -> dict[str, str | int | bool]:
    """Return what a dataset tells of itself, without reading its fields."""
    told: dict[str, str | int | bool] = {}
    if "time" in dataset.coords:
        times = np.atleast_1d(dataset["time"].values).astype("datetime64[s]")
        told["times"] = f"{times.size} from {times[0]} to {times[-1]}" if times.size else "none"
        told["times_digest"] = hashlib.sha256(times.astype("<i8").tobytes()).hexdigest()[:16]
    axes = [dataset[name].values for name in ("level", "latitude", "longitude") if name in dataset.coords]
    told["grid"] = digest([np.round(axis.astype(float), 4) for axis in axes])[:16]
    fields = sorted((str(name), str(field.attrs.get("units", ""))) for name, field in dataset.data_vars.items())
    told["variables"] = ", ".join(f"{name} ({units})" for name, units in fields)
    return told


WORDS = {"sampled": "content", "files": "number of files", "bytes": "bytes", "times_digest": "times"}


def data_differences(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """List what differs between two fingerprints, as sentences without a full stop; empty where either is unknown.

    A modification time alone is no difference: files may be copied. See `is_rewritten`.
    """
    if not before:
        return []
    keys = [key for key in before if key in after and key not in ("written", "whole") and before[key] != after[key]]
    found = []
    for key in keys:
        if key in ("sampled", "times_digest", "grid"):
            found.append(f"other {WORDS.get(key, key)}")
        else:
            found.append(f"{WORDS.get(key, key)} was {short(before[key])}, is {short(after[key])}")
    return found


def is_rewritten(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> bool:
    """Return whether data of equal samples were written again, where the samples are not all of their content."""
    told = bool(before) and "written" in (before or {}) and "written" in after
    return told and before["written"] != after["written"] and not after.get("whole", False)  # type: ignore[index]


def written_text(print_: Mapping[str, Any]) -> str:
    """Return the time of the latest modification in a fingerprint, in UTC."""
    return datetime.fromtimestamp(int(print_.get("written", 0)) / 1e9, UTC).isoformat(timespec="seconds")
