"""Find the overrides that do not compose, all at once, and what to write instead.

A key that a part takes but its YAML leaves to the default is added without the `+` that Hydra asks for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data_pipelines.conventions.suggestions import ConfigErrors, Finding, nearest_name
from data_pipelines.options.folders import advised_folder, groups, key_of, options_of
from data_pipelines.options.keys import known_keys, may_be_added
from data_pipelines.options.signatures import takes_list, tree_faults
from emul.config.saved import plain_mapping

# What other frameworks call it, and what is written here.
ELSEWHERE = {
    **dict.fromkeys(("epochs", "max_epochs"), "training.steps=... (optimiser steps, not passes)"),
    **dict.fromkeys(("max_steps", "iterations", "num_steps"), "training.steps=..."),
    **dict.fromkeys(("learning_rate", "base_lr"), "optimizer.lr=..."),
    **dict.fromkeys(("gpus", "num_gpus", "ngpus"), "hardware=gpu hardware.devices=..."),
    "run": "name=... and the other words of that training, and it goes on; from_checkpoint=... starts from its weights",
    "num_workers": "loader.ahead=..., batches made ready beforehand",
    **dict.fromkeys(("ckpt_path", "checkpoint_path", "pretrained"), "from_checkpoint=..."),
    **dict.fromkeys(("arch", "architecture", "network"), "model=... (`emul models` lists them)"),
}
Composer = Callable[[list[str]], DictConfig]


def diagnosed(verb: str, composer: Composer, overrides: list[str]) -> list[str]:
    """Return the overrides of a verb, amended so that they compose. Raises ConfigErrors with all that cannot be."""
    good = list(overrides)
    bad: list[tuple[str, Exception]] = []
    while True:
        try:
            config = composer(good)
            break
        except ConfigErrors:
            raise
        except Exception as error:
            culprit = _culprit(error, good)
            if culprit is None:
                message = str(error).splitlines()[0]
                raise ConfigErrors(
                    [*_findings(verb, bad, {}), Finding("configuration", "one that composes", message)]
                ) from error
            good.remove(culprit)
            bad.append((culprit, error))
    with suppress(OmegaConfBaseException):  # a faulty interpolation is reported where it is resolved next
        OmegaConf.resolve(config)
    plain = plain_mapping(config)
    amended = {text: f"++{text.lstrip('+')}" for text, error in bad if may_be_added(key_of(text), plain)}
    absent = tuple(f"{key_of(text)}." for text, error in bad if isinstance(error, MissingConfigException))
    reported = [(t, error) for t, error in bad if t not in amended and not key_of(t).startswith(absent)]
    findings = _findings(verb, reported, plain)
    if findings:
        raise ConfigErrors([*findings, *tree_faults(plain)], config)
    return [amended.get(text, text) for text in overrides]


def assignment(key: str, value: object) -> str:
    """Return the override that sets a key to a text, whatever characters it holds."""
    text = str(value).replace("'", "\\'")
    return f"{key}='{text}'"


def _culprit(error: Exception, overrides: list[str]) -> str | None:
    """Return the override that caused an error of composition; None where a file did."""
    if isinstance(error, OverrideParseException):
        return error.override if error.override in overrides else None
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return next((o for o in overrides if key_of(o) == group and option in o.partition("=")[2]), None)
    for quoted in re.findall(r"'([^']+)'", str(error)):
        for override in overrides:
            if override == quoted or key_of(override) == key_of(quoted):
                return override
    return next(
        (o for o in overrides if f"{key_of(o)} " in str(error) or "must be a string or a list" in str(error)), None
    )


def _findings(verb: str, bad: list[tuple[str, Exception]], config: dict[str, Any]) -> list[Finding]:
    return [_finding(verb, text, error, config) for text, error in bad]


def _finding(verb: str, override: str, error: Exception, config: dict[str, Any]) -> Finding:
    """Describe the fault of one override."""
    key, value = key_of(override), override.partition("=")[2]
    if isinstance(error, MissingConfigException):
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = sorted(error.options or options_of(group))
        best = nearest_name(option, [name for name in options if name not in re.findall(r"\w+", value)])
        fix = advised_folder(group, option) or _in_place_of(override, best)
        expected = f"an option of {group}" if fix else f"one of {', '.join(options)}"
        return Finding(group, expected if options else "a group with options", option, fix)
    if "Could not override" in str(error) or "Could not delete" in str(error):
        key, value = _absent(key, value, config)
        return Finding(key, "a key that exists", key, _other_key(verb, key, value, config))
    if isinstance(error, OverrideParseException):
        fix = (
            "quote values that hold brackets, commas or spaces" if "=" in override else _key_for(verb, override, config)
        )
        return Finding(override, "key=value", override, fix)
    message = re.sub(r"\s+", " ", str(error).split("\n1. ")[0]).strip()
    fix = "to try several values add --multirun" if "Ambiguous" in message else ""
    if fix and key in groups() and takes_list(key):
        fix = f"write '{key}=[{value}]'; {fix}"
    return Finding(key, "an override that composes", message.splitlines()[0], fix)


def _absent(key: str, value: str, config: dict[str, Any]) -> tuple[str, str]:
    """The key that is absent and its value: within a mapping, that of the first key that the configuration lacks."""
    node, given = OmegaConf.select(OmegaConf.create(config), key), yaml.safe_load(value) if value else None
    if not OmegaConf.is_dict(node) or not isinstance(given, dict):
        return key, value
    name = next((name for name in given if name not in node), None)
    return (key, value) if name is None else (f"{key}.{name}", str(given[name]))


def _in_place_of(override: str, best: str | None) -> str:
    """Suggest an option in place of the misspelled one, alone or in a list."""
    if best is None:
        return ""
    return f"write {best} in its place" if "," in override else f"write {key_of(override)}={best}"


def _key_for(verb: str, word: str, config: dict[str, Any]) -> str:
    """Suggest the assignment that a word without `=` stands for: a run, an option of a group, or a key."""
    runs = [folder for folder in (Path(word), Path(config.get("output", "outputs"), "train", word)) if folder.is_dir()]
    if "run" in config and runs:
        return f"write run={runs[0]}"
    matches = [group for group in groups() if group in config and word in options_of(group)]
    if matches:
        return f"write {matches[0]}={word}"
    best = nearest_name(word, known_keys(config))
    return f"write {best}=..." if best else listed(verb)


def listed(verb: str) -> str:
    """Say where the keys of a verb are listed."""
    return f"`emul {verb} --cfg job` lists the keys"


def _other_key(verb: str, key: str, value: str, config: dict[str, Any]) -> str:
    """Suggest the nearest key that takes the value, else those of the same parent, else where keys are listed."""
    keys = list(known_keys(config))
    if key.rpartition(".")[2] in ELSEWHERE:
        return f"write {ELSEWHERE[key.rpartition('.')[2]]}"
    best = nearest_name(key, keys)
    listed_value = f"[{value}]" if value and value[0] not in "[{" else value  # a key of lists, given one item
    if best and not _takes(config, best, value) and _takes(config, best, listed_value):
        value = listed_value
    if best and _takes(config, best, value):
        last = key.rpartition(".")[2]
        same = [dotted for dotted in keys if dotted.rpartition(".")[2] == last and _takes(config, dotted, value)]
        several = same if "." in key and best in same else [best]  # under other parents, none is the nearest
        return "write " + " or ".join(f"{dotted}={value}" if value else dotted for dotted in several[:3])
    parent = key.rpartition(".")[0]
    beside = [name for name in keys if parent and name.rpartition(".")[0] == parent]
    return f"there is {', '.join(beside)}" if beside else listed(verb)


def _takes(config: dict[str, Any], key: str, value: str) -> bool:
    """Whether a configuration has no fault at `key` once it holds the value there."""
    candidate = OmegaConf.create(config)
    OmegaConf.update(candidate, key, yaml.safe_load(value) if value else None, force_add=True)
    return not value or all(finding.key != key for finding in tree_faults(plain_mapping(candidate)))
