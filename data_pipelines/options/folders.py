"""Find configurations and the options of each group, of this package and of the user; and the folders of results.

A folder of one's own holds groups as conf/ does (loss/curvature.yaml) and the Python files that they name
(curvature.py). It is given by `--config-dir`, by the environment variable EMUL_CONF (several with `:`), or by an
installed package with an entry point of the group `emul.conf`, whose value is the dotted path of the folder.

`run_name` and `result_folder` are the only places where a name becomes a folder of results.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from glob import escape
from pathlib import Path
from typing import Any

from data_pipelines.conventions.suggestions import nearest_name
from data_pipelines.files.identity import digest, name_within, refuse_name
from data_pipelines.options.source_text import definition, module_file, module_tree
from data_pipelines.options.trust import remember, remembered, targets

VARIABLE = "EMUL_CONF"
_GIVEN: ContextVar[str] = ContextVar("folder that --config-dir names", default="")
_BEFORE: ContextVar[str] = ContextVar("folders that EMUL_CONF named before", default="")


@cache
def conf_folder() -> Path:
    """The folder of configurations: inside the installed package, or beside it in the repository."""
    here = Path(__file__).resolve().parents[2]
    for folder in (here / "emul" / "conf", here / "conf"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"Expected the folder of configurations at {here / 'emul' / 'conf'}; reinstall emul.")


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
    paths = []
    for name in _entry_points(search_path):
        first, *rest = name.split(".")
        spec = importlib.util.find_spec(first)
        places = spec.submodule_search_locations if spec else None
        paths += [Path(place, *rest) for place in places or () if Path(place, *rest).is_dir()][:1]
    return tuple(paths)


def use_folders(folders: Iterable[str | Path] = ()) -> None:
    """Add folders to EMUL_CONF, and all folders of EMUL_CONF to the import path of this process and those it starts."""
    paths = dict.fromkeys([*(Path(folder).absolute() for folder in folders), *_named_folders()])
    if paths:
        os.environ[VARIABLE] = os.pathsep.join(map(str, paths))
    for folder in map(str, paths):
        if folder not in sys.path:
            sys.path.append(folder)
            importlib.invalidate_caches()
            module_file.cache_clear()
            module_tree.cache_clear()
            definition.cache_clear()


def use_saved_folders(saved: dict[str, Any]) -> None:
    """Use those folders of a saved configuration which the user trusts, or has trained the same parts of.

    saved: plain values. A run of somebody else may name any folder.
    """
    folders = str(saved.get("config_dir") or "").split(os.pathsep)
    trusted = {*map(str, user_folders()), *remembered("folders")}
    if any(folder not in trusted for folder in folders) and _recipe(saved) in remembered("recipes"):
        trusted |= set(folders)
    use_folders(folder for folder in folders if folder in trusted and os.path.isdir(folder))


def remember_folders(config: dict[str, Any]) -> None:
    """Remember which parts a composed configuration takes from which folders, for later commands on its run."""
    if config.get("config_dir"):
        remember("recipes", [_recipe(config)])


def _recipe(config: dict[str, Any]) -> str:
    """A digest of the folders of a configuration and of the parts in it that are not ours."""
    part_names = sorted({str(name) for _, name in targets(config)} - part_targets())
    return digest([str(config.get("config_dir")), *part_names])


def folder_words(folder: Path | None = None) -> list[str]:
    """The words of a command that uses the same folder: none where a later command finds it by itself.

    folder: of options; None: that of the command in hand, if --config-dir named one.
    """
    directory = _GIVEN.get() if folder is None else str(folder)
    inherited = [Path(name).absolute() for name in _BEFORE.get().split(os.pathsep) if name]
    return ["--config-dir", directory] if directory and Path(directory).absolute() not in inherited else []


@contextmanager
def folders_in_use(folder: str | None) -> Iterator[None]:
    """Use the folder of `--config-dir` and those of EMUL_CONF within a command.

    Raises FileNotFoundError where one is missing, ValueError where a few lines of one stand for millions of values.
    """
    before = os.environ.get(VARIABLE)
    given_token, outside = _GIVEN.set(folder or ""), _BEFORE.set(before or "")
    try:
        use_folders([] if folder is None else [folder])
        for path in _named_folders():
            if not path.is_dir():
                raise FileNotFoundError(f"Expected a folder of options at {path} (--config-dir, {VARIABLE}).")
            for text in (file.read_text(encoding="utf-8") for file in path.glob("*/*.yaml")):
                refuse_expansion(text)
        yield
    finally:
        _GIVEN.reset(given_token)
        _BEFORE.reset(outside)
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
    files = {path.stem: path for folder in reversed(folders) for path in (folder / group).glob("*.yaml")}
    return dict(sorted(files.items()))


def options_of(group: str) -> list[str]:
    """The names of the options of a group; empty where there is no such group."""
    return list(option_files(group))


def result_folder(output: str | Path, verb: str, name: Any) -> Path:
    """Return <output>/<verb>/<name>. Raises ValueError for a bad name, or one within another result."""
    root = Path(output) / verb
    folder = root / refuse_name(name)
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
    file = folder / "config.yaml"
    saved = read_yaml(file) if file.is_file() else {}
    parts = Path(str(saved.get("name") or folder.name)).parts
    return "/".join(parts) if folder.parts[-len(parts) :] == parts else folder.name


def absent_run(path: Path, results: Path = Path("outputs/train")) -> FileNotFoundError:
    """Return the error for a run that is not there, with the one that may be meant."""
    if (results / path / "config.yaml").is_file():
        return FileNotFoundError(f"No run at {path}; write run={results / path}.")
    runs = {
        str(file.parent): file.parent.name
        for folder in dict.fromkeys((path.parent, results))
        for file in sorted(folder.glob("*/config.yaml"))
        if (file.parent / "checkpoints").is_dir()
    }
    best = nearest_name(path.name, runs.values())
    meant = next((run for run, name in runs.items() if name == best), None)
    hint = f"there are {', '.join(list(runs)[:6])}." if runs else "`emul train` makes one, in outputs/train/<name>."
    return FileNotFoundError(f"No run at {path}; {f'did you mean run={meant}?' if meant else hint}")


MOST = 1_000_000  # values of a saved configuration


@cache
def _yaml_loader() -> Any:
    """Return a loader that reads YAML as OmegaConf does: 1e-3 is a number, a date stays text."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Read YAML with the numbers of YAML 1.2."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    number = re.compile(r"([-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789."))
    return Loader


def read_yaml(file: Path) -> dict[str, Any]:
    """Return a YAML file as plain values; empty for one without a mapping. Raises ValueError as `refuse_expansion`."""
    import yaml

    text = file.read_text(encoding="utf-8")
    refuse_expansion(text)
    loaded = yaml.load(text, Loader=_yaml_loader())
    return {str(key): value for key, value in loaded.items()} if isinstance(loaded, dict) else {}


def refuse_expansion(text: str) -> None:
    """Raise ValueError for YAML whose aliases stand for millions of values, which a few lines can hold."""
    if "&" not in text:
        return
    import yaml

    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MOST + 1  # of a node within itself
            values = [] if isinstance(node, yaml.ScalarNode) else node.value
            sizes[id(node)] = 1 + sum(
                size(child) for pair in values for child in (pair if type(pair) is tuple else [pair])
            )
        return sizes[id(node)]

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and size(root) > MOST:
        raise ValueError(f"its aliases stand for more than {MOST:,} values")


def key_of(override: str) -> str:
    """The key of an override, without `+`, `~` and a package."""
    return re.split(r"[=@]", override.lstrip("+~"), maxsplit=1)[0].strip()


def advised_folder(group: str, option: str) -> str:
    """Advise the folder of options here that holds an option of this name, as `emul init` and `emul new` write them."""
    paths = sorted(Path().glob(f"*/{group}/{escape(option)}.yaml"))
    return f"add --config-dir {paths[0].parents[len(Path(group).parts)]}" if paths else ""
