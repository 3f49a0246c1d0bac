"""Where things lie: results by the name of their run, and the data of a run that was moved or is opened from elsewhere.

`run_name`, `forecast_folder` and `result_folder` are the only places where a name becomes a folder of results.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.files.identity import PLACES
from emul.trust.saved import read_saved

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


def result_folder(config: DictConfig, verb: str, name: str | None = None) -> Path:
    """Return <output>/<verb>/<name> of a configuration. ValueError: a bad name, or one within another result.

    name: default that of the configuration.
    """
    root = Path(config.output) / verb
    folder = root / refuse_name(config.name if name is None else name)
    for parent in folder.parents:
        if parent == root:
            break
        if (parent / "config.yaml").is_file():
            raise ValueError(f"name: {folder} would lie within the run {parent}; choose another name.")
    return folder


def run_name(run: str | Path, output: str | Path) -> str:
    """Return the name of a trained run, under which its forecasts and scores lie in <output>.

    That is its path within <output>/train; of a run that lies elsewhere the name it was trained under, where its path
    still ends so, else the name of its folder.
    """
    folder = Path(run).resolve()
    if within := name_within(folder, Path(output) / "train"):
        return within
    parts = Path(str(_saved(folder).get("name") or folder.name)).parts
    return "/".join(parts) if folder.parts[-len(parts) :] == parts else folder.name


def name_within(folder: Path, root: Path) -> str:
    """Return the name of a result whose folder lies in `root`; empty for one that lies elsewhere."""
    folder, root = folder.resolve(), root.resolve()
    return folder.relative_to(root).as_posix() if root in folder.parents else ""


def _saved(run: Path) -> DictConfig:
    """Return the config.yaml of a run; empty where there is none."""
    file = run / "config.yaml"
    return read_saved(file, given=["data"]) if file.is_file() else OmegaConf.create()


def forecast_folder(config: DictConfig) -> Path:
    """Return the folder of the forecast of `config.run`: <output>/forecast/<name of the run>."""
    return Path(config.output) / "forecast" / run_name(config.run, config.output)


def absolute_places(data: Any) -> dict[str, Any]:
    """Return the absolute paths of a data source whose paths are relative, by dotted key."""
    return {key: _mapped(value, _absolute) for key, value in _places(data) if _mapped(value, _absolute) != value}


def located(data: Any, places: Mapping[str, Any], run: Path, trained_in: Any) -> Any:
    """Return the settings of a run's data with paths that exist here.

    places: as `absolute_places` gave them when the run was trained, in the folder `trained_in`. In order are tried:
    the absolute path; the same place relative to the run folder, where both were moved; the path as it was typed.
    """
    found = OmegaConf.create(data)
    for key, typed in _places(data):
        absolute = places[key] if _is_path(places.get(key)) else typed
        moved = absolute
        if isinstance(trained_in, str):
            moved = _mapped(absolute, lambda text: _beside(text, Path(trained_in), run))
        there = next((one for one in (absolute, moved, typed) if _exists(one)), typed)
        OmegaConf.update(found, key, there)
    return OmegaConf.to_container(found)


def _beside(text: str, before: Path, now: Path) -> str:
    """Return where a path lies that kept its place relative to a folder that moved."""
    if "://" in text or not os.path.isabs(text):
        return text
    return os.path.normpath(now.resolve() / os.path.relpath(text, before))


def _places(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return (dotted key, path or list of paths) of all places in the settings of a data source."""
    if not isinstance(node, Mapping):
        return []
    found = [(f"{prefix}{key}", value) for key, value in node.items() if key in PLACES and _is_path(value)]
    return found + [place for key, value in node.items() for place in _places(value, f"{prefix}{key}.")]


def _is_path(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    return [change(one) for one in value] if isinstance(value, list) else change(value)


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
