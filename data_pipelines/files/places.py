"""Names under which results may lie, and where the data of a run lie that was moved or is opened from elsewhere."""

from __future__ import annotations

import copy
import glob
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.files.identity import PLACES

LONGEST = 200  # bytes of one part of a name: file systems take 255, and temporary files add to it
EXPECTED = "a name such as baseline or group/baseline"


def name_fault(name: Any) -> str:
    """Return what is wrong with the name of a run; empty for a good one."""
    if not isinstance(name, str):
        return f"{'nothing' if name is None else name}, which is no text"
    if not name.isprintable():
        return f"{name!r}, with a line break or another character that cannot be seen"
    if not name.strip():
        return "an empty name"
    if name.startswith("/"):
        return f"the absolute path {name}; folders of results lie below output=..."
    parts = name.split("/")
    if any(not part or part != part.strip() for part in parts):
        return f"'{name}', with an empty part or spaces at an end"
    if any(part[0] in ".~-" for part in parts) or "\\" in name:
        return f"'{name}', with a backslash or a part that begins with . ~ or -"
    if any(len(part.encode()) > LONGEST for part in parts):
        return f"a part of more than {LONGEST} bytes, {name[:40]}..."
    return ""


def refuse_name(name: Any, key: str = "name") -> str:
    """Return a name that may stand for a folder of results; raise ValueError for one that may not."""
    if fault := name_fault(name):
        raise ValueError(f"{key}: expected {EXPECTED}; got {fault}.")
    return str(name)


def name_within(folder: Path, root: Path) -> str:
    """Return the name of a result whose folder lies in `root`; empty for one that lies elsewhere."""
    folder, root = folder.resolve(), root.resolve()
    return folder.relative_to(root).as_posix() if root in folder.parents else ""


def absolute_places(data: Any) -> dict[str, Any]:
    """Return the absolute paths of a data source whose paths are relative, by dotted key."""
    return {key: _mapped(value, _absolute) for key, value in _places(data) if _mapped(value, _absolute) != value}


def located(data: Any, places: Mapping[str, Any], run: Path, trained_in: Any) -> Any:
    """Return the settings of a run's data with paths that exist here.

    places: as `absolute_places` gave them when the run was trained, in the folder `trained_in`. In order are tried:
    the absolute path; the same place relative to the run folder, where both were moved; the path as it was typed.
    """
    settings = copy.deepcopy(dict(data))
    for key, typed in _places(data):
        absolute = places[key] if _is_path(places.get(key)) else typed
        moved = absolute
        if isinstance(trained_in, str):
            moved = _mapped(absolute, lambda text: _beside(text, Path(trained_in), run))
        place = next((candidate for candidate in (absolute, moved, typed) if _exists(candidate)), typed)
        *parents, last = key.split(".")
        node = settings
        for name in parents:
            node = node[name]
        node[last] = place
    return settings


def _beside(text: str, before: Path, now: Path) -> str:
    """Return where a path lies that kept its place relative to a folder that moved."""
    if "://" in text or not os.path.isabs(text):
        return text
    return os.path.normpath(now.resolve() / os.path.relpath(text, before))


def _places(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return (dotted key, path or list of paths) of all places in the settings of a data source."""
    if not isinstance(node, Mapping):
        return []
    entries = [(f"{prefix}{key}", value) for key, value in node.items() if key in PLACES and _is_path(value)]
    return entries + [place for key, value in node.items() for place in _places(value, f"{prefix}{key}.")]


def _is_path(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    return [change(item) for item in value] if isinstance(value, list) else change(value)


def _absolute(text: str) -> str:
    """Return an absolute path, or pattern, for one that leads somewhere from here."""
    path = os.path.expanduser(text)
    return text if "://" in text or os.path.isabs(path) or not _exists(text) else os.path.abspath(path)


def _exists(value: Any) -> bool:
    """Return whether a path, a pattern, or each of a list, leads to something; addresses always do."""
    if isinstance(value, list):
        return all(map(_exists, value))
    path = os.path.expanduser(value)
    return "://" in value or os.path.exists(path) or bool(glob.has_magic(path) and glob.glob(path, recursive=True))
