"""Keep secrets out of what is written and shown: passwords, tokens, `storage_options`, values of the environment.

A value from `${oc.env:NAME}` stays that text in the composed configuration and is resolved where it is used; a secret
that was typed is replaced by `***` in every file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.resolvers import oc

from data_pipelines.conventions.addresses import HIDDEN, masked_address
from emul.terminal.findings import Finding

SECRET = re.compile(r"token|passw|secret|credential|(api|access|private|account)_?key|authorization|cookie")
OPTIONS = "storage_options"
PLAIN = {"anon", "endpoint_url", "region_name", "project", "protocol", "account_name"}  # of storage_options
PUBLIC = {"", "anon", "anonymous", "google_default", "cloud", HIDDEN}  # values that are no secrets
OWN = {"EMUL_CONF"}  # variables of the environment whose values are kept
LEAST = 4  # letters of a text that is looked for in messages

_shown: dict[str, str] = {}  # by secret: what is shown in its place
_read: list[str] = []  # variables that oc.env gave since it was emptied


def _environment(key: str, *default: Any) -> Any:
    """The resolver `oc.env`, which notes what it was asked for."""
    value = os.environ.get(key)
    if value is None:
        return oc.env(key, *default)
    if key not in OWN:
        _read.append(key)
        if len(value) >= LEAST:
            _shown[value] = f"${{oc.env:{key}}}"
    return value


def resolve(config: DictConfig) -> None:
    """Resolve every `${...}` in place, except texts that come from the environment, which stay interpolations."""
    OmegaConf.register_new_resolver("oc.env", _environment, replace=True)
    kept = []
    for node, key in _interpolations(config):
        _read.clear()
        value = node[key]
        if _read and isinstance(value, str):
            kept.append((node, key, OmegaConf.to_container(node, resolve=False)[key]))  # type: ignore[call-overload, index]
    OmegaConf.resolve(config)
    for node, key, text in kept:
        node[key] = text
    for value in _typed(OmegaConf.to_container(config, resolve=False)):
        _shown[value] = HIDDEN


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
    return _masked(OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else config)


def saved_text(config: Any) -> str:
    """The configuration as YAML for a file, as `saved_plain`."""
    return OmegaConf.to_yaml(OmegaConf.create(saved_plain(config)))


def redacted(text: str) -> str:
    """A text for messages and files, with `***` or `${oc.env:NAME}` in place of the secrets that are known."""
    for secret in sorted(_shown, key=len, reverse=True):
        text = text.replace(secret, _shown[secret])
    return masked_address(text)


def hidden(plain: Any) -> list[Finding]:
    """Find values that were left out of a file as secrets, and are needed now."""
    return [
        Finding(key, "a value", f"{HIDDEN}, as secrets are not saved", f"give it with this command: {key}=...")
        for key, value in _leaves(plain)
        if isinstance(value, str) and HIDDEN in value
    ]


def refuse_typed(words: Sequence[str], where: str) -> None:
    """Raise ValueError where a secret was typed that would be written to a file. where: which file."""
    for word in words:
        if any(value in word for value, shown in _shown.items() if shown == HIDDEN) or masked_address(word) != word:
            key = word.partition("=")[0]
            raise ValueError(
                f"{key}: expected a secret from the environment, got one on the command line, which would stand in "
                f"{where}; export it as NAME and write '{key}=${{oc.env:NAME}}'."
            )


def _masked(node: Any, key: str = "", inside: bool = False) -> Any:
    if isinstance(node, dict):
        inside = inside or key == OPTIONS
        return {name: _masked(value, str(name), inside) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [_masked(value, key, inside) for value in node]
    if isinstance(node, int | float) and inside and SECRET.search(key.lower()):
        return HIDDEN
    if not isinstance(node, str) or "${" in node:
        return node
    return HIDDEN if _is_secret(key, node, inside) else masked_address(node)


def _is_secret(key: str, value: str, inside: bool) -> bool:
    named = SECRET.search(key.lower()) or (inside and key not in PLAIN)
    return bool(named) and value not in PUBLIC and "${" not in value


def _typed(plain: Any) -> Iterator[str]:
    """Yield the secrets in plain values."""
    for key, value in _leaves(plain):
        name = key.rpartition(".")[2].partition("[")[0]
        if isinstance(value, str) and len(value) >= LEAST and _is_secret(name, value, f".{OPTIONS}." in f".{key}"):
            yield value


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _leaves(value, f"{key}[{index}]")
    else:
        yield key, node
