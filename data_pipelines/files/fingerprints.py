"""Digests of what is stored: checksums compared whenever content is read, and cheap fingerprints of whole data sets.

A checksum is stored beside its content when that is finished:

JSON          a key `digest`, the sha256 of the rest
Zarr store    such a digest in the consolidated metadata, which says too that every chunk is written
chunk, file   its crc32c in four bytes behind it (the codec `crc32c` of the Zarr v3 specification)
NetCDF        an attribute `digest` of all variables and attributes, and a crc32c of the file behind its end
archive       the CRC-32 of each part, which zip files of NumPy and PyTorch hold

`fingerprint` reads at most a few megabytes of a dataset, so that it can be taken whenever data are opened;
`data_differences` compares two.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from data_pipelines.files.archives import AGAIN
from data_pipelines.files.atomic import write_file
from data_pipelines.files.identity import digest, short

if TYPE_CHECKING:
    import xarray as xr


DIGEST = "digest"
CRC_BYTES = 4


def crc32c(content: Any) -> bytes:
    """Return the crc32c of bytes or of a contiguous array, as it is stored behind a chunk."""
    return google_crc32c.value(np.frombuffer(content, dtype=np.uint8)).to_bytes(CRC_BYTES, "little")


def refuse_damage(content: Any, stored: Any) -> None:
    """Raise OSError if `content` does not have the checksum stored behind it."""
    if crc32c(content) != bytes(stored):
        raise OSError("its checksum is wrong")


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the sha256 of what JSON can hold, without its own entry `digest`."""
    return digest({name: value for name, value in content.items() if name != DIGEST})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON with its digest, atomically. ValueError if it holds NaN."""
    write_file(path, json_text(content).encode(), durable=True)


def json_text(content: Mapping[str, Any]) -> str:
    """Return a mapping as JSON with its digest. ValueError if it holds NaN."""
    return json.dumps({**content, DIGEST: digest_of(content)}, indent=1, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Read a mapping from JSON, without its digest. ValueError if it is damaged; without a digest, it is as it is."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); {AGAIN}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected a mapping in {path}; got {type(content).__name__}.")
    checksum = digest_of(content)
    misnamed = DIGEST not in content and _digest_has_another_name(content)
    if misnamed or content.pop(DIGEST, checksum) != checksum:
        raise ValueError(f"{path} differs from its checksum; {AGAIN}.")
    return content


def _digest_has_another_name(content: Mapping[str, Any]) -> bool:
    """Return whether the last value is the digest of the rest, whose name has been damaged."""
    *rest, last = content or ("",)
    return bool(rest) and content[last] == digest_of({name: content[name] for name in rest})


def is_sealed_json(path: Path) -> bool:
    """Return whether a JSON file has a digest."""
    return DIGEST in json.loads(path.read_bytes())


def every_chunk() -> AbstractContextManager[None]:
    """Have zarr write also the chunks that hold nothing but the fill value, as a sealed store has all of them."""
    import zarr

    return zarr.config.set({"array.write_empty_chunks": True})


def seal_store(folder: Path) -> None:
    """Consolidate the metadata of a Zarr v3 store all of whose chunks are written, and seal it, in one atomic step."""
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata of Zarr 3 is young; restart files are not its concern
        zarr.consolidate_metadata(folder)
    write_sealed(folder, json.loads((folder / "zarr.json").read_bytes()))


def write_sealed(folder: Path, root: dict[str, Any]) -> None:
    """Replace the zarr.json at the root of a store by `root`, with the digest of all of it."""
    root["consolidated_metadata"].pop(DIGEST, None)
    root["consolidated_metadata"][DIGEST] = digest_of(root)
    write_file(folder / "zarr.json", json.dumps(root, indent=2).encode(), durable=True)


def sealed_root(folder: Path) -> dict[str, Any] | None:
    """Return the zarr.json of a sealed store; None if it is not sealed. ValueError if it is damaged."""
    try:
        root = json.loads((folder / "zarr.json").read_bytes())
        stored = root["consolidated_metadata"].pop(DIGEST)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{folder / 'zarr.json'} cannot be read as JSON ({error}); {AGAIN}.") from error
    except (KeyError, TypeError, AttributeError):
        return None
    if stored != digest_of(root):
        raise ValueError(f"{folder / 'zarr.json'} differs from its checksum; {AGAIN}.")
    return root


def arrays_of(root: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metadata of each array of a store by its path, from its consolidated metadata."""
    nodes = root["consolidated_metadata"]["metadata"]
    return {name: node for name, node in nodes.items() if node["node_type"] == "array"}


def chunk_files(name: str, array: Mapping[str, Any]) -> Iterator[str]:
    """Yield the path of each chunk of an array, relative to the store."""
    sizes = array["chunk_grid"]["configuration"]["chunk_shape"]
    encoding = array["chunk_key_encoding"]
    separator = encoding.get("configuration", {}).get("separator", "/" if encoding["name"] == "default" else ".")
    counts = [-(-length // size) for length, size in zip(array["shape"], sizes, strict=True)]
    prefix = ["c"] if encoding["name"] == "default" else []
    for place in itertools.product(*map(range, counts)):
        yield f"{name}/{separator.join([*prefix, *map(str, place)]) or '0'}"


def is_checked(array: Mapping[str, Any]) -> bool:
    """Return whether the chunks of an array end with their checksum."""
    return bool(array["codecs"]) and array["codecs"][-1]["name"] == "crc32c"


def refuse_lost_coordinates(folder: Path, root: Mapping[str, Any]) -> None:
    """Raise ValueError if a chunk of an array of one dimension is missing, which would be read as zeros."""
    for name, array in arrays_of(root).items():
        if len(array["shape"]) > 1:
            continue
        lost = [file for file in chunk_files(name, array) if not (folder / file).is_file()]
        if lost:
            raise ValueError(f"{folder / lost[0]} is missing; {AGAIN}.")


def store_faults(folder: Path) -> list[str] | None:
    """Check every chunk of a sealed store; a sentence for each fault. None if the store is not sealed."""
    try:
        root = sealed_root(folder)
    except ValueError as error:
        return [str(error)]
    if root is None:
        return None
    return [fault for name, array in arrays_of(root).items() for fault in _array_faults(folder, name, array)]


def _array_faults(folder: Path, name: str, array: Mapping[str, Any]) -> Iterator[str]:
    metadata_file = folder / name / "zarr.json"
    try:
        if json.loads(metadata_file.read_bytes()) != array:
            yield f"{name}/zarr.json differs from the metadata at the root"
    except (OSError, ValueError) as error:
        yield f"{name}/zarr.json cannot be read ({error})"
    for file in chunk_files(name, array):
        try:
            content = (folder / file).read_bytes()
            if is_checked(array):
                refuse_damage(content[:-CRC_BYTES], content[-CRC_BYTES:])
        except FileNotFoundError:
            yield f"{file} is missing"
        except OSError as error:
            yield f"{file}: {error}"


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

    path: as of a data source. files, bytes: how many. content: digest of the metadata and of evenly spread blocks of
    the content; whole: whether these are all of it. written: latest modification, ns since 1970. Of addresses only
    `dataset` is told: times, grid, and variables with their units. What cannot be read is left out.
    """
    facts: dict[str, str | int | bool] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):  # files in no order that is known tell nothing
        facts = _of_files(files) if (files := _files(path)) else {}
    return facts | ({} if dataset is None else _of_dataset(dataset))


def _files(path: str | Path | Sequence[str | Path] | None) -> list[Path]:
    """Return the local files and stores that match `path`, sorted as they are opened; of other folders, all files."""
    if path is None:
        return []
    if not isinstance(path, str | Path):
        return [file for item in path for file in _files(item)]
    text = str(path)
    if "://" in text or "::" in text:
        return []
    text = os.path.expanduser(text)
    if os.path.isdir(text) and not any(os.path.exists(os.path.join(text, name)) for name in METADATA):
        return sorted(file for file in Path(text).rglob("*") if file.is_file())
    return [Path(text)] if os.path.exists(text) else [Path(name) for name in sorted(glob.glob(text, recursive=True))]


def _of_files(paths: Sequence[Path]) -> dict[str, str | int | bool]:
    """Return the fingerprint of local files and stores."""
    files = [file for path in paths for file in (_store_parts(path) if path.is_dir() else [path])]
    sizes = {file: file.stat() for file in files if file.is_file()}
    total = sum(stat.st_size for stat in sizes.values())
    is_whole = total <= WHOLE_BYTES and all(path.is_file() for path in paths)
    step = max(1, -(-len(files) // MOST_FILES))
    blocks = max(3, BLOCKS // max(1, len(files)))
    content = hashlib.sha256()
    for file in files[::step]:
        size = sizes[file].st_size if file in sizes else -1
        everything = is_whole or file.name in METADATA
        content.update(f"{size} {_sampled(file, size, 0 if everything else blocks)}\n".encode())
    return {
        "files": len(files),
        "bytes": total,
        "content": content.hexdigest(),
        "whole": is_whole,
        "written": max((stat.st_mtime_ns for stat in sizes.values()), default=0),
    }


def _sampled(path: Path, size: int, blocks: int) -> str:
    """Return the digest of evenly spread blocks of a file, the first and the last among them; 0: of all of it.

    It is no CRC: that of a chunk together with the CRC behind it is the same whatever the chunk holds.
    """
    hasher = hashlib.blake2b(digest_size=8)
    if size < 0:
        return hasher.hexdigest()
    with open(path, "rb", buffering=0) as file:
        if not blocks or size <= blocks * BLOCK_BYTES:
            hasher.update(file.read())
        else:
            for start in np.linspace(0, size - BLOCK_BYTES, blocks).astype(np.int64).tolist():
                hasher.update(os.pread(file.fileno(), BLOCK_BYTES, start))
    return hasher.hexdigest()


def _store_parts(store: Path) -> list[Path]:
    """Return the metadata files of a Zarr store and some chunks of each array."""
    metadata = [store / name for name in METADATA if (store / name).is_file()]
    arrays = _arrays(store)
    chunks = [store / name / key for name, array in arrays.items() for key in _chunk_keys(array)]
    array_metadata = [store / name / file for name in arrays for file in METADATA if (store / name / file).is_file()]
    return [*metadata, *array_metadata, *chunks[:: max(1, -(-len(chunks) // MOST_CHUNKS))]]


def _arrays(store: Path) -> dict[str, dict[str, Any]]:
    """Return the metadata of the arrays of a Zarr store by name, consolidated or not."""
    root = _json(store / "zarr.json")
    consolidated = root.get("consolidated_metadata") or {}
    if consolidated:
        return {
            name: metadata
            for name, metadata in sorted(consolidated["metadata"].items())
            if metadata.get("node_type") == "array"
        }
    legacy = _json(store / ".zmetadata").get("metadata", {})
    if legacy:
        return {
            name.removesuffix("/.zarray"): metadata
            for name, metadata in sorted(legacy.items())
            if name.endswith("/.zarray")
        }
    inside = {path.name: path for path in sorted(store.iterdir()) if path.is_dir()}
    metadata = {name: _json(path / "zarr.json") or _json(path / ".zarray") for name, path in inside.items()}
    return {name: array for name, array in metadata.items() if "shape" in array}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


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
    paths = [[*([prefix] if prefix else []), *map(str, key or ([] if prefix else ["0"]))] for key in keys]
    return [separator.join(path) for path in paths]


def _of_dataset(dataset: xr.Dataset) -> dict[str, str | int | bool]:
    """Return what a dataset tells of itself, without reading its fields."""
    facts: dict[str, str | int | bool] = {}
    if "time" in dataset.coords:
        times = np.atleast_1d(dataset["time"].values).astype("datetime64[s]")
        facts["times"] = f"{times.size} from {times[0]} to {times[-1]}" if times.size else "none"
        facts["times_digest"] = hashlib.sha256(times.astype("<i8").tobytes()).hexdigest()[:16]
    axes = [dataset[name].values for name in ("level", "latitude", "longitude") if name in dataset.coords]
    facts["grid"] = digest([np.round(axis.astype(float), 4) for axis in axes])[:16]
    fields = sorted((str(name), str(field.attrs.get("units", ""))) for name, field in dataset.data_vars.items())
    facts["variables"] = ", ".join(f"{name} ({units})" for name, units in fields)
    return facts


def stable(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return a fingerprint without the times at which files were written, which copies do not keep."""
    return {key: value for key, value in entries.items() if key not in ("written", "whole")}


WORDS = {"files": "number of files", "bytes": "bytes", "times_digest": "times"}


def data_differences(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """List what differs between two fingerprints, as sentences without a full stop; empty where either is unknown.

    A modification time alone is no difference: files may be copied. See `is_rewritten`.
    """
    if not before:
        return []
    keys = [key for key in stable(before) if key in after and before[key] != after[key]]
    sentences = []
    for key in keys:
        if key in ("content", "times_digest", "grid"):
            sentences.append(f"other {WORDS.get(key, key)}")
        else:
            sentences.append(f"{WORDS.get(key, key)} was {short(before[key])}, is {short(after[key])}")
    return sentences


def is_rewritten(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> bool:
    """Return whether data of equal samples were written again, where the samples are not all of their content."""
    are_dated = bool(before) and "written" in (before or {}) and "written" in after
    return are_dated and before["written"] != after["written"] and not after.get("whole", False)  # type: ignore[index]


def written_text(print_: Mapping[str, Any]) -> str:
    """Return the time of the latest modification in a fingerprint, in UTC."""
    return datetime.fromtimestamp(int(print_.get("written", 0)) / 1e9, UTC).isoformat(timespec="seconds")
