"""Read configurations that were saved: a run's config.yaml and checkpoint, a manifest, the attributes of a score file.

Whoever wrote them is not known. `${...}` in them is refused, as it would read this machine's environment, unless this
user has composed the same settings before: `${oc.env:TOKEN}` of one's own run is resolved when that run is used again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from data_pipelines.conventions.addresses import HIDDEN
from emul.terminal.findings import ConfigErrors, Finding
from emul.trust.remembered import remember, remembered
from emul.trust.secrets import saved_plain


def read_saved(file: Path, given: Iterable[str] = ()) -> DictConfig:
    """Read a saved YAML file, as `saved_config` does."""
    return saved_config(file.read_text(encoding="utf-8"), str(file), given)


def saved_config(content: Any, origin: str, given: Iterable[str] = (), group: str = "") -> DictConfig:
    """Return the configuration of YAML text or plain values. origin: what the errors name.

    given: keys that the command line sets, or that are not used; `${...}` in them becomes `***`. group: the key that
    the content is the value of. Raises ValueError for other content, ConfigErrors where another key holds `${...}`.
    """
    try:
        config = OmegaConf.create(content)
    except (YAMLError, ValueError, TypeError) as error:
        raise ValueError(f"Expected a configuration in {origin}, got other content: {_line(error)}") from error
    if not isinstance(config, DictConfig):
        raise ValueError(f"Expected a mapping of settings in {origin}, got {type(content).__name__}.")
    plain: Any = OmegaConf.to_container(config, resolve=False)
    keys, found = tuple(given), []
    for key, text in texts(plain):
        whole = f"{group}.{key}" if group else key
        if "${" not in text or _is_known(plain, key, group):
            continue
        if any(f"{whole}.".startswith(f"{one}.") for one in keys):
            OmegaConf.update(config, key, HIDDEN)
        else:
            found.append(Finding(whole, f"a value, in {origin}", text, f"give it with this command: {whole}=..."))
    if found:
        raise ConfigErrors(found)
    return config


def remember_settings(config: DictConfig) -> None:
    """Remember the groups of a composed configuration that hold `${...}`, so that they are resolved when saved."""
    plain = saved_plain(config)
    remember("settings", [_digest(str(key), value) for key, value in plain.items() if "${" in str(value)])


def _is_known(plain: dict[Any, Any], key: str, group: str) -> bool:
    """True where this user has composed the group of a key, with these values of the environment and no other call."""
    name = group or key.partition(".")[0].partition("[")[0]
    value = plain if group else plain[name]
    calls = re.sub(r"\$\{oc\.env:\w+(,[^${}]*)?\}", "", json.dumps(value))
    return "${" not in calls and _digest(name, value) in remembered("settings")


def _digest(name: str, value: Any) -> str:
    return hashlib.sha256(json.dumps([name, value], sort_keys=True).encode()).hexdigest()


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
