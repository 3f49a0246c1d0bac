"""Refuse Zarr arrays of Python objects: their codecs, such as pickle, would run code that the store brings."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

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
            continue  # told when the store is opened
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
    with suppress(OSError, ValueError, zipfile.BadZipFile):
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
