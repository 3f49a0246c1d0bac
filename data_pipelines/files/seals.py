"""Seals: checksums of content, stored beside it when it is finished and compared whenever it is read.

JSON          a key `digest`, the sha256 of the rest
Zarr store    such a digest in the consolidated metadata, which says too that every chunk is written
chunk, file   its crc32c in four bytes behind it (the codec `crc32c` of the Zarr v3 specification)
NetCDF        an attribute `digest` of all variables and attributes (`data_pipelines.files.netcdf`)
archive       the CRC-32 of each part, which zip files of NumPy and PyTorch hold
"""

from __future__ import annotations

import itertools
import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from data_pipelines.files.atomic import write_file
from data_pipelines.files.identity import digest

DIGEST = "digest"
CRC_BYTES = 4
AGAIN = "it was changed or damaged after it was written"


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
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); {AGAIN}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected a mapping in {path}; got {type(content).__name__}.")
    if content.pop(DIGEST, found := digest_of(content)) != found:
        raise ValueError(f"{path} differs from its checksum; {AGAIN}.")
    return content


def is_sealed_json(path: Path) -> bool:
    """Return whether a JSON file has a digest."""
    return DIGEST in json.loads(path.read_bytes())


def refuse_damaged_archive(path: Path) -> None:
    """Raise ValueError if a part of a zip archive, such as a tensor in a file of PyTorch, differs from its CRC-32."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or truncated ({error}).") from error
    if damaged is not None:
        raise ValueError(f"{path}: the checksum of its part {damaged} is wrong; {AGAIN}.")


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
    own = folder / name / "zarr.json"
    try:
        if json.loads(own.read_bytes()) != array:
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
