"""`emul completion bash|zsh|fish`: a script that completes verbs, groups and their options, keys and their values.

The script asks `emul completion candidates <words>`, which scans conf/ with the standard library only.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path

from data_pipelines.conventions.suggestions import nearest_name
from data_pipelines.options.documentation import options, scanned
from data_pipelines.options.folders import conf_folder, groups, option_files, options_of
from data_pipelines.options.signatures import signature
from data_pipelines.options.source_text import choices
from emul.terminal.verbs import DATA_WORDS, LISTS, all_names, find

SHELLS = ("bash", "zsh", "fish")
FLAGS = ("--help", "--cfg", "--multirun", "--config-dir", "--trust", "--info")
NEW = ("loss", "model", "metric", "constraint", "dataset")
PATHS = ("run", "forecast", "truth", "output", "data.path", "data.folder")


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["candidates"]:
        print("\n".join(candidates(arguments[1:])))
        return 0
    shell = arguments[0] if arguments else "nothing"
    if shell not in SHELLS or len(arguments) > 1:
        best = nearest_name(shell, SHELLS)
        raise ValueError(f"Expected one of {', '.join(SHELLS)}, got {shell}; write emul completion {best or 'bash'}.")
    print(Path(__file__).with_name("completions").joinpath(f"emul.{shell}").read_text(encoding="utf-8"), end="")
    return 0


def candidates(words: list[str]) -> list[str]:
    """What the last of the words after `emul` may become, whole words in order."""
    current = words[-1] if words else ""
    if len(words) < 2:
        return _starting(current, [*all_names(), "help"])
    verb = find(words[0])
    if words[0] == "help":
        return _starting(current, all_names())
    if verb is None or words[0] in LISTS or words[0] == "version":
        return []
    if words[0] == "completion":
        return _starting(current, SHELLS)
    if words[0] == "eval" and len(words) == 2 and current and "compare".startswith(current):
        return ["compare"]
    if words[0] == "options":
        option_names = {text for o in options() for text in (o.key, o.file.replace("/", "."))}
        return _starting(current, sorted(option_names)) if len(words) == 2 else []
    if words[0] == "new":
        return _starting(current, NEW) if len(words) == 2 else []
    if words[0] == "data" and len(words) == 2:
        return _starting(current, DATA_WORDS)
    if words[-2:-1] == ["--cfg"]:
        return _starting(current, ["job", "hydra", "all"])
    if current.startswith("-"):
        return _starting(current, FLAGS if verb.composes else FLAGS[:1])
    primary = words[0] if (conf_folder() / f"{words[0]}.yaml").is_file() else "train"
    keys = keys_with_targets(primary, words)
    if "=" in current:
        return _values(current, keys)
    return _starting(current, _next_parts(current, keys))


def _starting(start: str, names: object) -> list[str]:
    return [name for name in names if name.startswith(start)]  # type: ignore[attr-defined]


def _next_parts(current: str, keys: dict[str, str | None]) -> list[str]:
    """Keys cut after the next dot: `opt` offers `optimizer=` and `optimizer.`, not all that lies below."""
    depth = current.count(".")
    offers = dict.fromkeys(f"{group}=" for group in groups()) if not depth else {}
    for key in keys:
        names = key.split(".")
        if len(names) > depth:
            head = ".".join(names[: depth + 1])
            below = any(longer_key.startswith(f"{head}.") for longer_key in keys)
            offers[f"{head}." if below else f"{head}="] = None
    return list(offers)


def _values(current: str, keys: dict[str, str | None]) -> list[str]:
    """Values of one key: options of a group (inside a list too), choices of a parameter, paths."""
    key, _, value = current.partition("=")
    if key in groups() and not (key in PATHS and "/" in value):
        head, _, last = value.rpartition(",") if value.startswith("[") else ("", "", value)
        start = f"{key}={head}," if head else f"{key}=[" if value.startswith("[") else f"{key}="
        return [f"{start}{option}" for option in _starting(last.removeprefix("["), options_of(key))]
    if key in PATHS or "/" in value:
        paths = sorted(glob.glob(f"{glob.escape(value)}*"))
        return [f"{key}={path}/" if Path(path).is_dir() else f"{key}={path}" for path in paths]
    return [f"{key}={choice}" for choice in _choices(key, keys) if choice.startswith(value)]


def _choices(key: str, keys: dict[str, str | None]) -> list[str]:
    """The literal choices a parameter's annotation names."""
    target, name = keys.get(key), key.rpartition(".")[2]
    try:
        callee = signature(target) if target else None
    except ValueError:
        callee = None
    for parameter in callee.parameters if callee else ():
        if parameter.name == name and parameter.annotation is not None:
            return choices(parameter.annotation, parameter.module)
    return []


def keys_with_targets(primary: str, words: list[str]) -> dict[str, str | None]:
    """Every dotted key of a primary and of the options chosen in `words`, each with the target it is handed to."""
    path = conf_folder() / f"{primary}.yaml"
    targets = {key: target for key, _, _, target in scanned(path)}
    defaults = re.findall(r"^\s*- (?:override )?/?(\w+)(?:@(\w+))?: \[?(\w+)", path.read_text(encoding="utf-8"), re.M)
    selected = {(group, package or group): option for group, package, option in defaults}
    for word in words[1:-1]:
        group, _, option = word.partition("=")
        if group in groups():
            selected[group, group] = option.strip("[]").split(",")[0]
    for (group, package), option in selected.items():
        file = option_files(group).get(option)
        if file and not (package == group and "@package _global_" in file.read_text(encoding="utf-8")):
            targets |= {key if package == "_global_" else f"{package}.{key}": t for key, _, _, t in scanned(file)}
    return targets
