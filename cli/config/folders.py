"""Where configurations lie, and what options each group has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig


def conf_folder() -> Path:
    """The folder of configurations: inside the installed package, or beside it in the repository."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "conf", here.parent / "conf"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"Expected the folder of configurations at {here / 'conf'}; reinstall emul.")


def groups() -> list[str]:
    """The groups of options, each a folder of conf/."""
    return sorted(path.name for path in conf_folder().iterdir() if path.is_dir())


def options_of(group: str) -> list[str]:
    """The options of a group, each a YAML file of its folder; empty where there is no such group."""
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))


def folder(config: DictConfig, verb: str) -> Path:
    """outputs/<verb>/<name> of a composed config."""
    return Path(config.output) / verb / config.name
