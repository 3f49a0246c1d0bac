"""Refuse Zarr stores by their metadata alone: arrays of Python objects, and metadata that contradict each other."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_pipelines.files.archives import refusing_damage
from data_pipelines.files.fingerprints import DIGEST, sealed_root

TEXT = {"vlen-utf8", "vlen-bytes"}  # object arrays that hold text only
OBJECTS = ("pickle", "json2", "msgpack", "vlen-array", "categorize", "dill")


def refuse_objects(path: Path) -> None:
    """Raise ValueError, naming array and codec, where an array of a store on disk holds Python objects.

    path: a folder, a ZIP archive, or a list of references.
    """
    for array, text in _metadata(path):
        try:
            metadata = json.loads(text)
        except ValueError:
            continue  # reported when the store is opened
        names = list(_codecs(metadata)) if isinstance(metadata, dict) else []
        of_objects = [name for name in names if any(word in name.lower() for word in OBJECTS)]
        if isinstance(metadata, dict) and metadata.get("dtype") == "|O" and not TEXT & {*names}:
            of_objects = of_objects or ["no codec of text"]
        if of_objects:
            raise ValueError(
                f"{path}: the array '{array}' holds Python objects ({', '.join(of_objects)}), which would run code of "
                "the store when they are read; write it again as numbers or as text."
            )


def _metadata(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """Yield the name of each array of a store and its metadata as they are stored."""
    with suppress(OSError, ValueError), refusing_damage(path):
        if path.is_dir():
            for file in sorted([*path.glob("*/.zarray"), *path.glob("*/zarr.json")]):
                with suppress(OSError):
                    yield file.parent.name, file.read_bytes()
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.rpartition("/")[2] in (".zarray", "zarr.json"):
                        yield name.rpartition("/")[0], archive.read(name)
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
            for name, text in content.get("refs", content).items():
                if name.rpartition("/")[2] in (".zarray", "zarr.json"):
                    yield name.rpartition("/")[0], text if isinstance(text, str) else json.dumps(text)


def _codecs(metadata: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the codecs of an array, of Zarr format 2 or 3, those in others included."""
    queue: list[Any] = [metadata.get(key) for key in ("compressor", "filters", "codecs")]
    while queue:
        node = queue.pop(0)
        if isinstance(node, list):
            queue += node
        elif isinstance(node, dict):
            yield str(node.get("id") or node.get("name") or "")
            queue += [value for value in node.values() if isinstance(value, dict | list)]


DECISIVE = (  # attributes that values and their meaning depend on
    "units", "calendar", "scale_factor", "add_offset", "_FillValue", "missing_value", "valid_min", "valid_max",
    "valid_range", "_ARRAY_DIMENSIONS",
)  # fmt: skip


def refuse_stale_metadata(store: Path) -> None:
    """Raise ValueError where the consolidated metadata of a store on disk contradict those of one of its arrays.

    The metadata of a sealed store are compared with their checksum instead.
    """
    consolidated = _dict(_content(store / "zarr.json").get("consolidated_metadata"))
    if DIGEST in consolidated:
        sealed_root(store)  # its own checksum says more
        return
    nodes = _dict(consolidated.get("metadata"))
    nodes = {f"{name}/zarr.json": node for name, node in nodes.items() if _dict(node).get("node_type") == "array"}
    legacy = _dict(_content(store / ".zmetadata").get("metadata"))
    for file, node in {**nodes, **{file: node for file, node in legacy.items() if "/" in file}}.items():
        own = _content(store / file)  # empty where it is absent or damaged, which is told when the store is opened
        for key, one, other in _contradictions(_decisive(file, _dict(node)), _decisive(file, own)) if own else ():
            raise ValueError(
                f"{store}: the consolidated metadata say {key} {one} of '{file.rpartition('/')[0]}', its own say "
                f"{other}. If its own are right, write the others again: zarr.consolidate_metadata('{store}')."
            )


def _content(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return _dict(json.loads(file.read_bytes()))
    return {}


def _dict(node: Any) -> dict[str, Any]:
    return node if isinstance(node, dict) else {}


def _decisive(file: str, node: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of an array with no other attributes than those that decide, None where absent."""
    if file.endswith("/.zattrs"):
        return {key: node.get(key) for key in DECISIVE}
    return {**node, "attributes": {key: _dict(node.get("attributes")).get(key) for key in DECISIVE}}


def _contradictions(one: Any, other: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, value, other value) where both documents have a key and differ; what only one says is a default."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() & other.keys()):
            yield from _contradictions(one[name], other[name], name)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        if any(any(_contradictions(*pair)) for pair in zip(one, other, strict=True)):
            yield key, one, other
    elif one != other and json.dumps(one) != json.dumps(other) and (one or other or 0 in (one, other)):
        yield key, one, other
