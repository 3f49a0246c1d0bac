"""Read configurations that were saved: a run's config.yaml and checkpoint, a manifest, the attributes of a score file.

Whoever wrote them is not known. `${...}` in them is refused, as it would read this machine's environment, and so is a
`_target_` that is not trusted: nothing is built from them before both were looked for at every depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from emul.terminal.findings import ConfigErrors, Finding


def read_saved(file: Path) -> DictConfig:
    """Read a saved YAML file. Raises ValueError where it is damaged, ConfigErrors where it holds `${...}`."""
    return saved_config(file.read_text(encoding="utf-8"), str(file))


def saved_config(content: Any, origin: str) -> DictConfig:
    """Return a configuration of YAML text or plain values without `${...}`. origin: what the errors name."""
    try:
        config = OmegaConf.create(content)
    except (YAMLError, ValueError, TypeError) as error:
        raise ValueError(f"Expected a configuration in {origin}, got other content: {_line(error)}") from error
    if not isinstance(config, DictConfig):
        raise ValueError(f"Expected a mapping of settings in {origin}, got {type(content).__name__}.")
    refuse_interpolations(OmegaConf.to_container(config, resolve=False), origin)
    return config


def refuse_interpolations(plain: Any, origin: str) -> None:
    """Raise ConfigErrors where a text, at any depth, holds `${`: it is never resolved in what was saved."""
    found = [
        Finding(key, f"a value, in {origin}", text, f"give it with this command: {key}=...")
        for key, text in texts(plain)
        if "${" in text
    ]
    if found:
        raise ConfigErrors(found)


def texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the value of every text in plain values, keys of mappings included."""
    if isinstance(node, dict):
        for name, value in node.items():
            here = f"{key}.{name}" if key else str(name)
            yield here, str(name)
            yield from texts(value, here)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from texts(value, f"{key}[{index}]")
    elif isinstance(node, str):
        yield key, node


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
