"""Check the keys of a configuration outside its parts against those that the YAML files declare."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.conventions.suggestions import nearest_name
from emul.config.annotations import value_in_words
from emul.config.folders import conf_folder, groups, option_files
from emul.config.overrides import plain_mapping
from emul.config.places import EXPECTED, name_fault
from emul.config.signatures import tree_faults
from emul.terminal.findings import Finding


def faults(config: DictConfig) -> list[Finding]:
    """Return every fault of names and types: keys against signatures, values against annotations."""
    plain = plain_mapping(config)
    return [*name_findings(plain), *undeclared_keys(plain), *settings_without_part(plain), *tree_faults(plain)]


def name_findings(config: dict[str, Any]) -> list[Finding]:
    """Find names under which no result may lie, and seeds that no generator takes."""
    found = []
    name, seed = config.get("name"), config.get("seed")
    fault = "" if "name" not in config or (name is None and "run" in config) else name_fault(name)
    if fault:
        fix = f"put it in quotes: name=\"'{name}'\"" if name is not None and not isinstance(name, str) else ""
        found.append(Finding("name", EXPECTED, fault, fix))
    if type(seed) is int and not 0 <= seed < 2**63:
        found.append(Finding("seed", "a whole number from 0", str(seed)))
    return found


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def undeclared_keys(config: dict[str, Any]) -> list[Finding]:
    """Find top keys that no primary declares, keys that no file of their group declares, and values of another type."""
    declared = _top_keys()
    known = {*groups(), *declared}
    found = [_undeclared(key, value, known) for key, value in config.items() if key not in known]
    for key, value in config.items():
        kinds = declared.get(key, set())
        if value is None and NoneType in kinds:
            continue
        kinds = kinds - {NoneType}
        if len(kinds) == 1 and (kind := next(iter(kinds))) in KINDS and not _is_of(kind, value):
            found.append(Finding(key, KINDS[kind], value_in_words(value)))
    for group in groups():
        found += _undeclared_in(group, config.get(group))
    return found


def _is_of(kind: type, value: Any) -> bool:
    return "${" in str(value) or type(value) is kind or (kind is float and type(value) is int)


def _undeclared_in(group: str, node: Any) -> list[Finding]:
    """Find undeclared keys in a group's mapping; parts have signatures instead."""
    if not isinstance(node, dict) or "_target_" in node:
        return []
    files = [_loaded(path) for path in option_files(group).values()]
    if not files or any("_target_" in str(file) for file in files):
        return []
    files += [file[group] for file in map(_loaded, conf_folder().glob("*.yaml")) if isinstance(file.get(group), dict)]
    known = {f"{group}.{key}" for file in files for key in file}
    return [_undeclared(f"{group}.{key}", value, known) for key, value in node.items() if f"{group}.{key}" not in known]


def settings_without_part(config: dict[str, Any]) -> list[Finding]:
    """Find settings of parts that are chosen by list, constraint=[...], where the list lacks the part."""
    found = []
    for group in groups():
        node = config.get(group)
        if not isinstance(node, dict) or "_target_" in node:
            continue
        bare = [name for name, one in node.items() if isinstance(one, dict) and "_target_" not in one]
        if bare and _is_list(group):
            found += [_without_part(group, name, node[name]) for name in bare]
    return found


def _without_part(group: str, name: str, keys: dict[str, Any]) -> Finding:
    return Finding(
        f"{group}.{name}", "keys of a part", f"{', '.join(keys)} without one", f"add {name} to {group}=[...]"
    )


def _is_list(group: str) -> bool:
    """True for a group of which any number of parts are chosen, each under its name."""
    files = [_loaded(path) for path in option_files(group).values()]
    return all(isinstance(node, dict) and "_target_" in node for file in files for node in file.values())


def _undeclared(key: str, value: Any, known: set[str]) -> Finding:
    best = nearest_name(key, known)
    fix = f"write {best}" if best else "leave it out"
    return Finding(key, "a key the configuration knows", value_in_words(value), fix)


@cache
def _top_keys() -> dict[str, set[type]]:
    """Every top key of every primary with the types of its values: text for `${...}`, none for those of a group."""
    found: dict[str, set[type]] = defaultdict(set)
    for path in conf_folder().glob("*.yaml"):
        for key, value in _loaded(path).items():
            found[key] |= set() if re.fullmatch(r"\$\{[^{}]*\}", str(value)) else {type(value)}
        entries: list[Any] = OmegaConf.to_container(OmegaConf.load(path))["defaults"]  # type: ignore[index, call-overload, assignment]
        for entry in entries:  # such as `forecast@_global_: default`
            group, _, package = next(iter(entry)).partition("@")
            if package == "_global_":
                found |= {key: found[key] for key in _loaded(conf_folder() / group / "default.yaml")}
    return dict(found)


@cache
def _loaded(path: Path) -> dict[str, Any]:
    """Return a YAML file as plain values, without its list of defaults."""
    loaded = OmegaConf.load(path)
    plain = OmegaConf.to_container(loaded) if isinstance(loaded, DictConfig) else {}
    return {str(key): value for key, value in dict(plain).items() if key not in ("defaults", "hydra")}  # type: ignore[arg-type]
