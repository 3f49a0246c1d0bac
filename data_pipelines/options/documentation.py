"""Read the documentation of options: the comment beside each key of the YAML files, found without composing anything.

An option of a part is documented once: a further file with the same `_target_` may leave its comment out. A part is
described by the comment that its file opens with, else by the docstring of its target, whose source is not imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from data_pipelines.conventions.suggestions import nearest_name
from data_pipelines.options.folders import conf_folder, groups, option_files, read_yaml
from data_pipelines.options.source_text import definition, module_tree

LINE = re.compile(r"""^( *)([A-Za-z_][\w.]*):(?: +((?:[^#'"]|"[^"]*"|'[^']*'|(?<! )#)*))?(?:# ?(.*))?$""")
SETTINGS = ("experiment",)  # groups whose files only set options of others
CITED = re.compile(
    r"(?:([A-Z][\w'-]+(?: et al\.| & [A-Z][\w'-]+)? \d{4}),? )?(arXiv \d{4}\.\d{4,5}|doi 10\.[^\s;,)]+[^\s;,).])"
)


@dataclass(frozen=True)
class Option:
    """Describe one option.

    key: dotted, as on the command line. default: as written. group: of conf/, or the verb. file: its YAML, without the
    ending. target: dotted path of the class or function that takes it, if any.
    """

    key: str
    default: str
    comment: str
    group: str
    file: str
    target: str | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """What is documented once: the parameter of a target, else the key."""
        return (self.target, self.key.rpartition(".")[2]) if self.target else (self.group, self.key)


def scanned(path: Path) -> list[tuple[str, str, str, str | None]]:
    """Key, value as written, comment and `_target_` beside it, of every key in a YAML file in block style."""
    stack: list[tuple[int, str]] = []
    rows: list[list[str]] = []
    targets: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = LINE.match(line)
        if match is None:
            further = re.match(r"^ {4,}# ?(.*)$", line)
            if further and rows and rows[-1][2]:
                rows[-1][2] += f" {further[1].strip()}"
            elif rows and (item := re.match(r"^ +- (.*)$", line)) and not rows[-1][1].startswith("["):
                rows[-1][1] = f"{rows[-1][1]}, {item[1]}".removeprefix(", ")
            continue
        indent, name, value, comment = len(match[1]), match[2], (match[3] or "").strip(), (match[4] or "").strip()
        while stack and stack[-1][0] >= indent:
            stack.pop()
        parent = ".".join(key for _, key in stack)
        stack.append((indent, name))
        if name == "_target_":
            targets[parent] = value
        elif (parent or name).partition(".")[0] not in ("defaults", "hydra"):
            rows.append([f"{parent}.{name}" if parent else name, value, comment])
    return [(key, value, comment, targets.get(key.rpartition(".")[0])) for key, value, comment in rows]


def opening_comment(path: Path) -> str:
    """Return the comment with which a YAML file opens, in one line."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#") or not line.strip("# "):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines)


def options_in_file(group: str, path: Path) -> Iterator[Option]:
    """The options that a file of a group declares; what it sets in other groups is declared there."""
    text = path.read_text(encoding="utf-8")
    is_global = "@package _global_" in text and group != "eval"
    rows = scanned(path)
    holders = {key.rpartition(".")[0] for key, *_ in rows} | _target_holders(path)
    for key, value, comment, target in rows:
        dotted = key if is_global else f"{group}.{key}"
        is_mapping = key in holders and not value
        if dotted.partition(".")[0] == group and "." in dotted and not (is_mapping and not comment):
            yield Option(dotted, value, comment, group, f"{group}/{path.stem}", target)


def _target_holders(path: Path) -> set[str]:
    """Keys of the mappings that have a `_target_` and nothing else."""
    names = re.findall(r"^( *)([A-Za-z_]\w*): *(?:#.*)?\n\1 +_target_:", path.read_text(encoding="utf-8"), re.M)
    return {name for _, name in names}


def options_of_primaries() -> Iterator[Option]:
    """The options of train.yaml, forecast.yaml and eval.yaml themselves."""
    for path in sorted(conf_folder().glob("*.yaml")):
        rows = scanned(path)
        holders = {key.rpartition(".")[0] for key, *_ in rows}
        for key, value, comment, target in rows:
            if key not in holders or value:
                yield Option(key, value, comment, path.stem, path.stem, target)


def options() -> list[Option]:
    """Every option of every verb and part, with its default and comment, in the order of the files."""
    entries = list(options_of_primaries())
    for group in groups():
        if group not in SETTINGS:
            for path in option_files(group).values():
                entries += options_in_file(group, path)
    texts: dict[tuple[str, str], str] = {}
    for option in entries:
        if option.comment:
            texts.setdefault(option.identity, option.comment)
            texts.setdefault((option.group, option.key), option.comment)  # for files that change one of another file
    return [option if option.comment else replace(option, comment=texts.get(option.identity, "")) for option in entries]


def matching_options(entries: list[Option], key: str) -> list[Option]:
    """The options that a key, the beginning of keys, or a part names. Raises ValueError for a key that none has."""
    of_verbs = [option for option in entries if option.file.removesuffix("/default") in ("train", "forecast", "eval")]
    if not key:
        return of_verbs
    file = key.replace(".", "/", 1)
    hits = [option for option in entries if option.file == file]
    hits = hits or [option for option in entries if option.key == key or option.key.startswith(f"{key}.")]
    hits = hits or [o for o in of_verbs if f"{o.key.partition('.')[2]}.".startswith(f"{key}.")]  # of the verb itself
    if not hits:
        groups = [o.key.rpartition(".")[0] for o in entries if "." in o.key]
        names = dict.fromkeys([*groups, *(o.key for o in entries), *(o.file.replace("/", ".") for o in entries)])
        best = nearest_name(key, names)
        raise ValueError(
            f"There is no option '{key}'; {f'did you mean {best}?' if best else '`emul options` lists all.'}"
        )
    return hits


@cache
def comments() -> dict[tuple[str, str], str]:
    """The comment of each option by its identity."""
    return {option.identity: option.comment for option in options() if option.comment}


def with_comments(text: str, verb: str) -> str:
    """A composed configuration as YAML, with the comment of each option beside it."""
    lines, stack, targets = text.splitlines(), list[tuple[int, str]](), dict[str, str]()
    keys: list[str | None] = []
    for line in lines:
        match = re.match(r"^( *)([A-Za-z_][\w.]*):(?: (.*))?$", line)
        if match is None:
            keys.append(None)
            continue
        while stack and stack[-1][0] >= len(match[1]):
            stack.pop()
        parent = ".".join(key for _, key in stack)
        stack.append((len(match[1]), match[2]))
        keys.append(f"{parent}.{match[2]}" if parent else match[2])
        if match[2] == "_target_":
            targets[parent] = str(match[3])
    described, commented = comments(), []
    for line, key, following in zip(lines, keys, [*lines[1:], ""], strict=True):
        parent, _, name = (key or "").rpartition(".")
        group = parent.partition(".")[0]
        places = [(targets.get(parent, ""), name), (verb, key), (group, key), (verb, f"{verb}.{key}")]
        comment = next((described[place] for place in places if place in described), "")  # type: ignore[index]
        spans = bool(following) and not re.match(r" *(- |[A-Za-z_][\w.]*:)", following)  # a long value goes on below
        commented.append(f"{line}  # {comment}" if key and comment and not spans else line)
    return "\n".join(commented) + "\n"


def description(path: Path) -> str:
    """Return the first sentence of a YAML file's opening comment, else of what its target says of itself."""
    return _first_sentence(opening_comment(path)) or _docstring(_target(read_yaml(path)) or "")


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[^.\d])\. (?=[A-Z])", " ".join(text.split()))[0].rstrip(".")


def _target(node: Any) -> str | None:
    """The first `_target_` in a file."""
    if not isinstance(node, dict):
        return None
    if "_target_" in node:
        return str(node["_target_"])
    return next((target for value in node.values() if (target := _target(value))), None)


def _docstring(target: str) -> str:
    """The first sentence of what a target says of itself; where that is of its keys, what its module says."""
    module, _, name = target.rpartition(".")
    defined = definition(module, name) if module else None
    docstring = (
        ast.get_docstring(defined[0]) if defined and isinstance(defined[0], ast.ClassDef | ast.FunctionDef) else None
    )
    tree = module_tree(module) if module else None
    if (not docstring or re.match(r"\w+: ", docstring)) and tree is not None:
        docstring = ast.get_docstring(tree)
    return _first_sentence((docstring or "").split("\n\n")[0])


def paper(name: str, target: str) -> str:
    """Return what is cited for a model: by its YAML or that of the full size, else by its module; empty for nothing."""
    files = option_files("model")
    texts = [opening_comment(files[stem]) for stem in (name, name.removesuffix("_small")) if stem in files]
    tree = module_tree(target.rpartition(".")[0])
    texts.append(" ".join((ast.get_docstring(tree) or "").split()) if tree else "")
    matches = (CITED.search(text) for text in texts)
    return next((" ".join(filter(None, match.groups())) for match in matches if match), "")
