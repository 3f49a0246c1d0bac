"""Find configurations and the options of each group: those of this package and those of the user's own folders.

A folder of one's own holds groups as conf/ does (loss/curvature.yaml) and the Python files that they name
(curvature.py). It is given by `--config-dir`, by the environment variable EMUL_CONF (several with `:`), or by an
installed package with an entry point of the group `emul.conf`, whose value is the dotted path of the folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from emul.config.source_text import definition, module_file, module_tree
from emul.trust.remembered import remember, remembered

VARIABLE = "EMUL_CONF"


@cache
def conf_folder() -> Path:
    """The folder of configurations: inside the installed package, or beside it in the repository."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "conf", here.parent / "conf"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"Expected the folder of configurations at {here / 'conf'}; reinstall emul.")


def user_folders() -> list[Path]:
    """The user's own folders, absolute: those of EMUL_CONF, then those of installed packages."""
    return list(dict.fromkeys([*_named_folders(), *_installed_folders(tuple(sys.path))]))


def _named_folders() -> list[Path]:
    return [Path(name).absolute() for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


@cache
def part_targets() -> frozenset[str]:
    """Every `_target_` that conf/ names: the dotted paths of our own parts."""
    texts = (path.read_text(encoding="utf-8") for path in conf_folder().rglob("*.yaml"))
    return frozenset(name for text in texts for name in re.findall(r"_target_: *([\w.]+)", text))


def installed_packages() -> list[str]:
    """The installed packages that bring parts, by their entry points of the group `emul.conf`."""
    return [name.partition(".")[0] for name in _entry_points(tuple(sys.path))]


@cache
def _entry_points(search_path: tuple[str, ...]) -> tuple[str, ...]:
    from importlib.metadata import entry_points

    return tuple(entry.value for entry in entry_points(group="emul.conf"))


@cache
def _installed_folders(search_path: tuple[str, ...]) -> tuple[Path, ...]:
    """The folders that installed packages name, found without importing the packages."""
    found = []
    for name in _entry_points(search_path):
        first, *rest = name.split(".")
        spec = importlib.util.find_spec(first)
        places = spec.submodule_search_locations if spec else None
        found += [Path(place, *rest) for place in places or () if Path(place, *rest).is_dir()][:1]
    return tuple(found)


def use_folders(folders: Iterable[str | Path] = ()) -> None:
    """Add folders to EMUL_CONF, and all folders of EMUL_CONF to the import path of this process and those it starts."""
    named = dict.fromkeys([*(Path(folder).absolute() for folder in folders), *_named_folders()])
    if named:
        os.environ[VARIABLE] = os.pathsep.join(map(str, named))
    for folder in map(str, named):
        if folder not in sys.path:
            sys.path.append(folder)
            importlib.invalidate_caches()
            module_file.cache_clear()
            module_tree.cache_clear()
            definition.cache_clear()


def use_saved_folders(saved: object) -> None:
    """Use those folders that a run has saved which the user trusts: a run that was moved may name any."""
    known = {*map(str, user_folders()), *remembered("folders")}
    use_folders(folder for folder in str(saved or "").split(os.pathsep) if folder in known and os.path.isdir(folder))


@contextmanager
def folders_in_use(folder: str | None) -> Iterator[None]:
    """Use the folder of `--config-dir` and those of EMUL_CONF within a command, and remember that they are trusted.

    Raises FileNotFoundError where one is missing.
    """
    before = os.environ.get(VARIABLE)
    try:
        use_folders([] if folder is None else [folder])
        for named in _named_folders():
            if not named.is_dir():
                raise FileNotFoundError(f"Expected a folder of options at {named} (--config-dir, {VARIABLE}).")
        remember("folders", map(str, _named_folders()))
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def groups() -> list[str]:
    """The groups of options, each a folder of conf/."""
    return sorted(path.name for path in conf_folder().iterdir() if path.is_dir())


def option_files(group: str) -> dict[str, Path]:
    """The options of a group by name, each a YAML file; ours go before those of the user that have the same name."""
    folders = [conf_folder(), *user_folders()]
    found = {path.stem: path for folder in reversed(folders) for path in (folder / group).glob("*.yaml")}
    return dict(sorted(found.items()))


def options_of(group: str) -> list[str]:
    """The names of the options of a group; empty where there is no such group."""
    return list(option_files(group))
