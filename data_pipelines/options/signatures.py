"""Find faults of names and types: keys of parts against source text, all others against what the YAML files declare.

A configuration names its parts by dotted path (`emulators.models.sfno.SFNO`). The module's file is found by path and
parsed; the class's `__init__`, its dataclass fields, or the function's parameters are the schema of its keys.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

from data_pipelines.conventions.suggestions import Finding, nearest_name, offer
from data_pipelines.files.identity import EXPECTED, name_fault
from data_pipelines.options.folders import conf_folder, groups, option_files, read_yaml
from data_pipelines.options.source_text import (
    accepts,
    definition,
    entries_refused,
    in_words,
    is_installed,
    module_file,
    module_tree,
    value_in_words,
)

HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}


@dataclass(frozen=True)
class Parameter:
    """Describe one key of a target. annotation: its type as an expression of `module`, or None."""

    name: str
    annotation: ast.expr | None
    required: bool
    keyword_only: bool
    module: str


@dataclass(frozen=True)
class Signature:
    """Hold the keys that a target takes. open: it takes any further key."""

    parameters: tuple[Parameter, ...]
    open: bool = False

    @property
    def names(self) -> list[str]:
        return [parameter.name for parameter in self.parameters]

    @property
    def has_keyword_only(self) -> bool:
        return any(parameter.keyword_only for parameter in self.parameters)


def signature(target: str) -> Signature | None:
    """Return the signature of a dotted target; None where its source is unknown. Raises ValueError: no such target."""
    module, _, name = target.rpartition(".")
    if not module or module_file(module) is None:
        owner, _, kind = module.rpartition(".")
        if owner and module_file(owner) is not None and definition(owner, kind) is not None:
            return None  # a method or a nested name
        if module.partition(".")[0] in ("emulators", "data_pipelines", "emul") or not is_installed(module):
            raise ValueError(target)
        return None
    defined = definition(module, name)
    if defined is None:
        if module.partition(".")[0] in ("emulators", "data_pipelines", "emul"):
            raise ValueError(target)
        return None
    node, home = defined
    if isinstance(node, ast.ClassDef):
        return _class_signature(node, home)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return _function_signature(node.args, home, bound=False)
    return None


# Classes that wrap every part of a group; their keyword-only parameters are further keys of each part.
WRAPPERS = {"loss": "emulators.training.plan.Term"}


def wrapping(group: str) -> tuple[Parameter, ...]:
    """Return the keys that every part of a group takes, whatever its class."""
    wrapper = signature(WRAPPERS[group]) if group in WRAPPERS else None
    return tuple(p for p in wrapper.parameters if p.keyword_only) if wrapper else ()


def _function_signature(arguments: ast.arguments, module: str, bound: bool) -> Signature:
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    parameters = [
        Parameter(argument.arg, argument.annotation, index < first_default, False, module)
        for index, argument in enumerate(positional)
    ][bound:]
    parameters += [
        Parameter(argument.arg, argument.annotation, default is None, True, module)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return Signature(tuple(parameters), open=arguments.kwarg is not None)


def _class_signature(node: ast.ClassDef, module: str, depth: int = 0) -> Signature | None:
    """Read `__init__`, or the fields of a dataclass, or the first base that has either."""
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _function_signature(statement.args, module, bound=True)
    bases = []
    for base in node.bases:
        defined = definition(module, base.id) if isinstance(base, ast.Name) else None
        if defined and isinstance(defined[0], ast.ClassDef) and depth < 8:
            bases.append(_class_signature(defined[0], defined[1], depth + 1))
        else:
            bases.append(None)
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return bases[0] if bases else Signature(())
    fields = {p.name: p for base in reversed(bases) if base for p in base.parameters}
    keyword_only = any("kw_only=True" in ast.unparse(decorator) for decorator in node.decorator_list)
    for statement in node.body:
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        text = ast.unparse(statement.annotation)
        default = ast.unparse(statement.value) if statement.value else ""
        if text == "KW_ONLY" or text.endswith(".KW_ONLY"):
            keyword_only = True
        elif not text.startswith(("ClassVar", "typing.ClassVar")) and "init=False" not in default:
            required = not default or (
                default.startswith(("field(", "dataclasses.field(")) and "default" not in default
            )
            name = statement.target.id
            fields[name] = Parameter(name, statement.annotation, required, keyword_only, module)
    return Signature(tuple(fields.values()))


def node_faults(key: str, node: dict[str, Any], alone: bool) -> list[Finding]:
    """Find the faults of one mapping with a `_target_`. alone: it is built from the mapping only, without a World."""
    target = node["_target_"]
    where = f"{key}._target_"
    if not isinstance(target, str) or "." not in target:
        return [Finding(where, "a dotted path to a class or function", value_in_words(target))]
    try:
        callee = signature(target)
    except ValueError:
        return [Finding(where, "a class or function that exists", target, _nearest_target(target))]
    if callee is None:
        return []
    findings = []
    callee = replace(callee, parameters=(*callee.parameters, *wrapping(key.partition(".")[0])))
    by_name = {parameter.name: parameter for parameter in callee.parameters}
    settings = {name: value for name, value in node.items() if name not in HYDRA_KEYS}
    for name, value in settings.items():
        parameter = by_name.get(name)
        if parameter is None:
            if not callee.open:
                free = [n for n in callee.names if n not in settings and (alone or not _is_handed(by_name[n], callee))]
                fix = offer(name, free or callee.names)
                if not fix.startswith("write"):  # as an experiment sets it for another part
                    fix = "; ".join([*filter(None, [fix]), f"leave it out: '~{key}.{name}'"])
                findings.append(Finding(f"{key}.{name}", f"a key of {target.rpartition('.')[2]}", name, fix))
        elif not (_is_open(value) or accepts(parameter.annotation, value, parameter.module)):
            findings += _of_another_type(f"{key}.{name}", parameter, value)
    if node.get("_partial_") or "_args_" in node:
        return findings
    for parameter in callee.parameters:
        if parameter.required and parameter.name not in settings and (alone or not _is_handed(parameter, callee)):
            expected = in_words(parameter.annotation, parameter.module) if parameter.annotation else "a value"
            findings.append(Finding(f"{key}.{parameter.name}", expected, "nothing", f"set {key}.{parameter.name}=..."))
    return findings


def _of_another_type(key: str, parameter: Parameter, value: Any) -> list[Finding]:
    """Describe a value of another type than annotated; of a mapping the entries that are at fault."""
    annotation, module = parameter.annotation, parameter.module
    assert annotation is not None
    parts = entries_refused(annotation, value, module)
    wrong = {f"{key}.{name}": (value[name], kind) for name, kind in parts.items()} or {key: (value, annotation)}
    findings = []
    for where, (entry, kind) in wrong.items():
        expected = in_words(kind, module)
        fix = _hint(expected, entry)
        if where.startswith("data.splits."):
            fix = f"write the first and the last time: {where}=[{entry},{entry}]"
        elif not fix and isinstance(entry, str | int) and accepts(kind, [entry], module):
            fix = f"write {where}=[{entry}]"
        elif isinstance(entry, dict) and accepts(kind, pairs := [[k, item] for k, item in entry.items()], module):
            fix = f"write {where}={pairs}"
        findings.append(Finding(where, expected, value_in_words(entry), fix))
    return findings


def _is_open(value: Any) -> bool:
    """True for a value that is not known yet: a part, `???`, or `${...}`, which is read when it is used."""
    return _holds_part(value) or (isinstance(value, str) and (value == "???" or "${" in value))


def _is_handed(parameter: Parameter, target: Signature) -> bool:
    """True for what the caller of `build` passes: `world`, a logger's `place`, and what stands before a `*`."""
    return parameter.name in ("world", "place") or (target.has_keyword_only and not parameter.keyword_only)


def _holds_part(value: Any) -> bool:
    """True where a value contains another part, to be built first."""
    if isinstance(value, dict):
        return "_target_" in value or any(_holds_part(item) for item in value.values())
    return isinstance(value, list) and any(_holds_part(item) for item in value)


def _hint(expected: str, value: Any) -> str:
    if isinstance(value, str):
        best = nearest_name(value, [word for word in expected.split(" or ") if " " not in word])
        if best and best not in ("null", "true", "false", "text"):
            return f"write {best}"
    if expected.startswith("a whole number") and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if expected.startswith("text") and isinstance(value, int | float):
        return f"put it in quotes: \"'{value}'\""
    return ""


def _nearest_target(target: str) -> str:
    module, _, name = target.rpartition(".")
    tree = module_tree(module)
    if tree is not None:
        names = [s.name for s in tree.body if isinstance(s, ast.ClassDef | ast.FunctionDef) and s.name[0] != "_"]
        return offer(name, names) or f"{module} defines nothing of its own"
    package, _, missing = module.rpartition(".")
    home = module_file(package) if package else None
    if home is None or home.name != "__init__.py":
        return f"there is no module {module} to import"
    return offer(missing, [path.stem for path in home.parent.glob("*.py") if path.stem != "__init__"])


# Groups whose parts are built from the configuration alone; all others are handed a World or another part.
ALONE = {"data", "variables", "training", "hardware", "metric", "forecast", "eval"}


# What a required value looks like, and where to find one.
EXAMPLES = {
    "run": "outputs/train/<name> (`emul list` lists them)",
    "variables.prognostic": "[...] (`emul init PATH` proposes all)",
    "data.path": "era5/, a folder, file, pattern or store",
}


def tree_faults(config: dict[str, Any]) -> list[Finding]:
    """Find the faults of every mapping with a `_target_`, and every value still to be given."""
    return list(_walk("", config, alone=False))


def _walk(key: str, node: Any, alone: bool) -> Iterator[Finding]:
    if node == "???":
        yield Finding(key, "a value", "nothing", f"set {key}={EXAMPLES.get(key, '...')}")
    if isinstance(node, dict):
        if "_target_" in node:
            yield from node_faults(key, node, alone)
        for name, value in node.items():
            yield from _walk(f"{key}.{name}" if key else str(name), value, alone if key else name in ALONE)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _walk(f"{key}[{index}]", value, alone)


def faults(config: dict[str, Any]) -> list[Finding]:
    """Return every fault of names and types: keys against signatures, values against annotations."""
    return [*name_findings(config), *undeclared_keys(config), *settings_without_part(config), *tree_faults(config)]


def name_findings(config: dict[str, Any]) -> list[Finding]:
    """Find names under which no result may lie, and seeds that no generator takes."""
    findings = []
    name, seed = config.get("name"), config.get("seed")
    fault = "" if "name" not in config or (name is None and "run" in config) else name_fault(name)
    if fault:
        fix = f"put it in quotes: name=\"'{name}'\"" if name is not None and not isinstance(name, str) else ""
        findings.append(Finding("name", EXPECTED, fault, fix))
    if type(seed) is int and not 0 <= seed < 2**63:
        findings.append(Finding("seed", "a whole number from 0", str(seed)))
    return findings


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def undeclared_keys(config: dict[str, Any]) -> list[Finding]:
    """Find top keys that no primary declares, keys that no file of their group declares, and values of another type."""
    declared = _top_keys()
    top_keys = {*groups(), *declared}
    findings = [_undeclared(key, value, top_keys) for key, value in config.items() if key not in top_keys]
    for key, value in config.items():
        kinds = declared.get(key, set())
        if value is None and NoneType in kinds:
            continue
        kinds = kinds - {NoneType}
        if len(kinds) == 1 and (kind := next(iter(kinds))) in KINDS and not _is_of(kind, value):
            findings.append(Finding(key, KINDS[kind], value_in_words(value)))
    for group in groups():
        findings += _undeclared_in(group, config.get(group))
    return findings


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
    declared = {f"{group}.{key}" for file in files for key in file}
    return [
        _undeclared(f"{group}.{key}", value, declared)
        for key, value in node.items()
        if f"{group}.{key}" not in declared
    ]


def settings_without_part(config: dict[str, Any]) -> list[Finding]:
    """Find settings of parts that are chosen by list, constraint=[...], where the list lacks the part."""
    findings = []
    for group in groups():
        node = config.get(group)
        if not isinstance(node, dict) or "_target_" in node:
            continue
        bare = [name for name, value in node.items() if isinstance(value, dict) and "_target_" not in value]
        if bare and takes_list(group):
            findings += [_without_part(group, name, node[name]) for name in bare]
    return findings


def _without_part(group: str, name: str, keys: dict[str, Any]) -> Finding:
    return Finding(
        f"{group}.{name}", "keys of a part", f"{', '.join(keys)} without one", f"add {name} to {group}=[...]"
    )


def takes_list(group: str) -> bool:
    """True for a group of which any number of parts are chosen, each under its name."""
    files = [_loaded(path) for path in option_files(group).values()]
    return all(isinstance(node, dict) and "_target_" in node for file in files for node in file.values())


def _undeclared(key: str, value: Any, names: set[str]) -> Finding:
    best = nearest_name(key, names)
    fix = f"write {best}" if best else "leave it out"
    return Finding(key, "a key the configuration knows", value_in_words(value), fix)


@cache
def _top_keys() -> dict[str, set[type]]:
    """Every top key of every primary with the types of its values: text for `${...}`, none for those of a group."""
    key_types: dict[str, set[type]] = defaultdict(set)
    for path in conf_folder().glob("*.yaml"):
        for key, value in _loaded(path).items():
            key_types[key] |= set() if re.fullmatch(r"\$\{[^{}]*\}", str(value)) else {type(value)}
        for entry in read_yaml(path)["defaults"]:  # such as `forecast@_global_: default`
            group, _, package = next(iter(entry)).partition("@")
            if package == "_global_":
                key_types |= {key: key_types[key] for key in _loaded(conf_folder() / group / "default.yaml")}
    return dict(key_types)


@cache
def _loaded(path: Path) -> dict[str, Any]:
    """Return a YAML file as plain values, without its list of defaults."""
    return {key: value for key, value in read_yaml(path).items() if key not in ("defaults", "hydra")}
