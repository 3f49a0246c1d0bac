"""The keys that a configuration may have: those of its YAML, those that parts take, and those of the user's choice."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from data_pipelines.options.folders import conf_folder, read_yaml
from data_pipelines.options.signatures import signature, wrapping


def known_keys(node: Any, key: str = "") -> Iterator[str]:
    """Yield every dotted key of a configuration, those included that parts take but leave to their defaults."""
    if not isinstance(node, dict):
        return
    names = [str(name) for name in node if name != "_target_"]
    names += [name for name in _parameters(node, key) if name not in node and name != "world"]
    for name in names:
        dotted = f"{key}.{name}" if key else name
        yield dotted
        yield from known_keys(node.get(name), dotted)


def may_be_added(key: str, config: dict[str, Any]) -> bool:
    """True where the first name of `key` that the configuration lacks is a parameter of its part, or a free choice.

    Where it lacks none, true of a mapping that a part takes as one value: it has keys of the user's choice.
    """
    parent, node = {}, config
    for name in key.split("."):
        if not isinstance(node, dict):
            return False
        if name not in node:
            return name in _parameters(node, key)
        if name in open_mappings():
            return True
        parent, node = node, node[name]
    return isinstance(node, dict) and "_target_" not in node and name in _parameters(parent, key)


def _parameters(node: dict[str, Any], key: str) -> list[str]:
    """The keys that the part at `key` takes."""
    try:
        callee = signature(str(node["_target_"])) if "_target_" in node else None
    except ValueError:
        callee = None
    return [*callee.names, *(parameter.name for parameter in wrapping(key.partition(".")[0]))] if callee else []


@cache
def open_mappings() -> set[str]:
    """Names of options that hold a mapping with keys of the user's choice: `{}` in a default.yaml."""
    files = map(read_yaml, conf_folder().glob("*/default.yaml"))
    return {str(key) for file in files for key, value in file.items() if value == {}}
