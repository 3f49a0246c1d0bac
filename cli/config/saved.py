"""Save configurations without secrets, and read those that were saved: config.yaml, checkpoints, manifests, scores.

Whoever wrote them is not known. `${...}` in them is refused, as it would read this machine's environment, unless this
user has composed the same settings before: `${oc.env:TOKEN}` of one's own run is resolved when that run is used again.
So it is with folders that data are written to (`data.folder`): those of others are left out, for the user's own cache.

Secrets are passwords, tokens, `storage_options` and values of the environment. A value from `${oc.env:NAME}` stays that
text in the composed configuration and is resolved where it is used; a secret that was typed is replaced by `***` in
every file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.resolvers import oc
from yaml import YAMLError

from data_pipelines.conventions.suggestions import HIDDEN, ConfigErrors, Finding
from data_pipelines.options.folders import refuse_expansion
from data_pipelines.options.signatures import faults
from data_pipelines.options.trust import LEAST, OWN, masked, remember, remembered, shown, texts, typed_secrets

FOLDER = "folder"  # the option of a data source


def read_saved(file: Path, given: Iterable[str] = ()) -> DictConfig:
    """Read a saved YAML file, as `saved_config` does."""
    return saved_config(file.read_text(encoding="utf-8"), str(file), given)


def saved_config(content: Any, origin: str, given: Iterable[str] = (), group: str = "") -> DictConfig:
    """Return the configuration of YAML text or plain values. origin: what the errors name.

    given: keys that the command line sets, or that are not used; `${...}` in them becomes `***`. group: the key that
    the content is the value of. Raises ValueError for other content, ConfigErrors where another key holds `${...}`.
    """
    try:
        if isinstance(content, str):
            refuse_expansion(content)
        config = OmegaConf.create(content)
    except (YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"Expected a configuration in {origin}, got other content: {_line(error)}") from error
    if not isinstance(config, DictConfig):
        raise ValueError(f"Expected a mapping of settings in {origin}, got {type(content).__name__}.")
    plain: Any = OmegaConf.to_container(config, resolve=False)
    keys, missing = tuple(given), []
    for key, text in texts(plain):
        full_key = f"{group}.{key}" if group else key
        if "${" not in text or _is_known(plain, key, group):
            continue
        if any(f"{full_key}.".startswith(f"{given_key}.") for given_key in keys):
            OmegaConf.update(config, key, HIDDEN)
        else:
            missing.append(
                Finding(full_key, f"a value, in {origin}", text, f"give it with this command: {full_key}=...")
            )
    if missing:
        raise ConfigErrors(missing)
    for key, text in _folders(plain, group):
        if _digest(FOLDER, text) not in remembered("recipes"):
            OmegaConf.update(config, key, None)
    return config


def remember_settings(config: DictConfig) -> None:
    """Remember the groups of a composed configuration that hold `${...}`, so that they are resolved when saved."""
    plain = saved_plain(config)
    remember("recipes", [_digest(FOLDER, text) for _, text in _folders(plain)])
    remember("settings", [_digest(str(key), value) for key, value in plain.items() if "${" in str(value)])


def _folders(plain: Any, group: str = "") -> list[tuple[str, str]]:
    """Key and path of the folders into which the data sources of a configuration write what they simulate."""
    data = plain if group == "data" else {"data": plain.get("data")} if not group else {}
    return [(key, text) for key, text in texts(data) if key.rpartition(".")[2] == FOLDER and text != FOLDER]


def _is_known(plain: dict[Any, Any], key: str, group: str) -> bool:
    """True where this user has composed the group of a key, with these values of the environment and no other call."""
    name = group or key.partition(".")[0].partition("[")[0]
    value = plain if group else plain[name]
    calls = re.sub(r"\$\{oc\.env:\w+(,[^${}]*)?\}", "", json.dumps(value))
    return "${" not in calls and _digest(name, value) in remembered("settings")


def _digest(name: str, value: Any) -> str:
    return hashlib.sha256(json.dumps([name, value], sort_keys=True).encode()).hexdigest()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


_read: list[str] = []  # variables that oc.env gave since it was emptied


def _environment(key: str, *default: Any) -> Any:
    """The resolver `oc.env`, which notes what it was asked for."""
    value = os.environ.get(key)
    if value is None:
        return oc.env(key, *default)
    if key not in OWN:
        _read.append(key)
        if len(value) >= LEAST:
            shown[value] = f"${{oc.env:{key}}}"
    return value


def resolve(config: DictConfig) -> None:
    """Resolve every `${...}` in place, except texts that come from the environment, which stay interpolations."""
    OmegaConf.register_new_resolver("oc.env", _environment, replace=True)
    environment_texts = []
    for node, key in _interpolations(config):
        _read.clear()
        value = node[key]
        if _read and isinstance(value, str):
            environment_texts.append((node, key, OmegaConf.to_container(node, resolve=False)[key]))  # type: ignore[call-overload, index]
    OmegaConf.resolve(config)
    for node, key, text in environment_texts:
        node[key] = text
    for value in typed_secrets(OmegaConf.to_container(config, resolve=False)):
        shown[value] = HIDDEN


def _interpolations(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the container and the key of every interpolation."""
    if not isinstance(node, DictConfig | ListConfig) or node._is_none() or node._is_missing():
        return
    keys: list[Any] = list(node.keys()) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        if OmegaConf.is_interpolation(node, key):
            yield node, key
        elif isinstance(child := node._get_node(key), DictConfig | ListConfig):
            yield from _interpolations(child)


def saved_plain(config: Any) -> Any:
    """The configuration as plain values for a file: without secrets, values of the environment as `${oc.env:NAME}`."""
    return masked(OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else config)


def saved_text(config: Any) -> str:
    """The configuration as YAML for a file, as `saved_plain`."""
    return OmegaConf.to_yaml(OmegaConf.create(saved_plain(config)))


def plain_mapping(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain dicts, lists, numbers and strings."""
    return cast(dict[str, Any], OmegaConf.to_container(config))


def plain(value: Any) -> Any:
    """A value without OmegaConf containers."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def config_faults(config: DictConfig) -> list[Finding]:
    """Return every fault of names and types of a composed configuration, as `signatures.faults`."""
    return faults(plain_mapping(config))
