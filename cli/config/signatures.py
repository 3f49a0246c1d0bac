"""Read from source text which keys a target takes and of which type, without importing it.

A configuration names its parts by dotted path (`emulators.models.sfno.SFNO`). The module's file is found by path and
parsed; the class's `__init__`, its dataclass fields, or the function's parameters are the schema of its keys.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from data_pipelines.conventions.suggestions import nearest_name
from emul.config.annotations import accepts, in_words, value_in_words
from emul.config.source_text import definition, is_installed, module_file, module_tree
from emul.terminal.findings import Finding, offer

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
    found = definition(module, name)
    if found is None:
        if module.partition(".")[0] in ("emulators", "data_pipelines", "emul"):
            raise ValueError(target)
        return None
    node, home = found
    if isinstance(node, ast.ClassDef):
        return _class_signature(node, home)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return _function_signature(node.args, home, bound=False)
    return None


# Classes that wrap every part of a group; their keyword-only parameters are further keys of each part.
WRAPPERS = {"loss": "emulators.training.loss_terms.Term"}


def wrapping(group: str) -> tuple[Parameter, ...]:
    """Return the keys that every part of a group takes, whatever its class."""
    known = signature(WRAPPERS[group]) if group in WRAPPERS else None
    return tuple(p for p in known.parameters if p.keyword_only) if known else ()


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
        found = definition(module, base.id) if isinstance(base, ast.Name) else None
        if found and isinstance(found[0], ast.ClassDef) and depth < 8:
            bases.append(_class_signature(found[0], found[1], depth + 1))
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
        known = signature(target)
    except ValueError:
        return [Finding(where, "a class or function that exists", target, _nearest_target(target))]
    if known is None:
        return []
    found = []
    known = replace(known, parameters=(*known.parameters, *wrapping(key.partition(".")[0])))
    by_name = {parameter.name: parameter for parameter in known.parameters}
    given = {name: value for name, value in node.items() if name not in HYDRA_KEYS}
    for name, value in given.items():
        parameter = by_name.get(name)
        if parameter is None:
            if not known.open:
                free = [n for n in known.names if n not in given and (alone or not _is_handed(by_name[n], known))]
                fix = offer(name, free or known.names) or "leave it out"
                found.append(Finding(f"{key}.{name}", f"a key of {target.rpartition('.')[2]}", name, fix))
        elif not (_is_open(value) or accepts(parameter.annotation, value, parameter.module)):
            assert parameter.annotation is not None
            expected = in_words(parameter.annotation, parameter.module)
            found.append(Finding(f"{key}.{name}", expected, value_in_words(value), _hint(expected, value)))
    if node.get("_partial_") or "_args_" in node:
        return found
    for parameter in known.parameters:
        if parameter.required and parameter.name not in given and (alone or not _is_handed(parameter, known)):
            expected = in_words(parameter.annotation, parameter.module) if parameter.annotation else "a value"
            found.append(Finding(f"{key}.{parameter.name}", expected, "nothing", f"set {key}.{parameter.name}=..."))
    return found


def _is_open(value: Any) -> bool:
    """True for a value that is not known yet: a part, `???`, or `${...}`, which is read when it is used."""
    return _holds_part(value) or (isinstance(value, str) and (value == "???" or "${" in value))


def _is_handed(parameter: Parameter, known: Signature) -> bool:
    """True for what the caller of `build` passes: `world`, a logger's `place`, and what stands before a `*`."""
    return parameter.name in ("world", "place") or (known.has_keyword_only and not parameter.keyword_only)


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


def tree_faults(config: dict[str, Any]) -> list[Finding]:
    """Find the faults of every mapping with a `_target_`, and every value still to be given."""
    return list(_walk("", config, alone=False))


def _walk(key: str, node: Any, alone: bool) -> Iterator[Finding]:
    if node == "???":
        yield Finding(key, "a value", "nothing", f"set {key}=...")
    if isinstance(node, dict):
        if "_target_" in node:
            yield from node_faults(key, node, alone)
        for name, value in node.items():
            yield from _walk(f"{key}.{name}" if key else str(name), value, alone if key else name in ALONE)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _walk(f"{key}[{index}]", value, alone)
