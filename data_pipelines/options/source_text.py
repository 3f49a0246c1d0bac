"""Find definitions by dotted path in source text, without importing them, and compare values with their annotations."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any


@cache
def module_file(module: str) -> Path | None:
    """The file of a module, found by path; only the first name is looked up by the import system."""
    first, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and Path(spec.origin).suffix == ".py" else None
    for place in spec.submodule_search_locations or ():
        path = Path(place, *rest)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


@cache
def module_tree(module: str) -> ast.Module | None:
    """The parsed source of a module, or None where there is none to read."""
    path = module_file(module)
    return ast.parse(path.read_text(encoding="utf-8")) if path else None


def _statements(tree: ast.Module) -> list[ast.stmt]:
    """Statements at the top of a module, those inside `if` and `try` too."""
    statements, queue = [], list(tree.body)
    while queue:
        statement = queue.pop(0)
        statements.append(statement)
        if isinstance(statement, ast.If | ast.Try):
            queue[:0] = [*statement.body, *statement.orelse]
    return statements


@cache
def definition(module: str, name: str, depth: int = 0) -> tuple[ast.AST, str] | None:
    """The statement that defines `name` as `module` sees it, and the module it stands in; imports are followed."""
    tree = module_tree(module)
    if tree is None or depth > 8:
        return None
    for statement in _statements(tree):
        match statement:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() if statement.name == name:
                return statement, module
            case ast.Assign(targets=[ast.Name(id=target)]) if target == name:
                return statement, module
            case ast.AnnAssign(target=ast.Name(id=target)) if target == name:
                return statement, module
            case ast.ImportFrom(names=names):
                for alias in names:
                    if (alias.asname or alias.name) == name:
                        return definition(_source_of(statement, module), alias.name, depth + 1)
    return None


def _source_of(statement: ast.ImportFrom, module: str) -> str:
    """The absolute name of the module that a `from ... import` reads."""
    if not statement.level:
        return statement.module or ""
    path = module_file(module)
    parents = module.split(".")
    parents = parents[: len(parents) - statement.level + (path is not None and path.name == "__init__.py")]
    return ".".join([*parents, *([statement.module] if statement.module else [])])


def is_installed(module: str) -> bool:
    """True where the import system finds the first name of `module`."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


SEQUENCES = {"list", "List", "Sequence", "Iterable", "Collection", "set", "frozenset"}
MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping"}


def accepts(annotation: ast.expr | None, value: Any, module: str, depth: int = 0) -> bool:
    """False only where `value`, plain data from YAML, is certainly not of the annotated type."""
    if depth > 12:
        return True
    below = depth + 1
    match annotation:
        case None:
            return True
        case ast.Constant(value=None):
            return value is None
        case ast.Constant(value=str(text)):
            return accepts(ast.parse(text, mode="eval").body, value, module, below)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return accepts(left, value, module, below) or accepts(right, value, module, below)
        case ast.Subscript(value=origin, slice=inner):
            return _accepts_generic(ast.unparse(origin).rpartition(".")[2], inner, value, module, below)
        case ast.Attribute(attr=name):
            return _accepts_name(name, value)
        case ast.Name(id="Any"):
            return True
        case ast.Name(id=name):
            defined = definition(module, name)
            if defined and isinstance(defined[0], ast.Assign | ast.AnnAssign) and defined[0].value is not None:
                return accepts(defined[0].value, value, defined[1], below)
            if defined and isinstance(defined[0], ast.ClassDef):
                return not isinstance(value, bool | int | float) or _is_enumeration(defined[0])
            return _accepts_name(name, value)
    return True


def _is_enumeration(node: ast.ClassDef) -> bool:
    return any("Enum" in ast.unparse(base) for base in node.bases)


def _accepts_name(name: str, value: Any) -> bool:
    kind = type(value)
    if name == "bool":
        return kind is bool
    if name == "int":
        return kind is int
    if name == "float":
        return kind in (int, float)
    if name in ("str", "Path", "PathLike"):
        return kind is str
    if name == "None":
        return value is None
    if name in SEQUENCES or name in ("tuple", "Tuple"):
        return isinstance(value, list | tuple)
    if name in MAPPINGS:
        return isinstance(value, dict)
    return True


def _accepts_generic(name: str, inner: ast.expr, value: Any, module: str, depth: int) -> bool:
    args = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
    if name == "Literal":
        return any(isinstance(p, ast.Constant) and p.value == value and type(p.value) is type(value) for p in args)
    if name == "Optional":
        return value is None or accepts(inner, value, module, depth)
    if name == "Union":
        return any(accepts(arg, value, module, depth) for arg in args)
    if name in ("Annotated", "Final"):
        return accepts(args[0], value, module, depth)
    if name in SEQUENCES:
        return isinstance(value, list | tuple) and all(accepts(args[0], item, module, depth) for item in value)
    if name in ("tuple", "Tuple"):
        if not isinstance(value, list | tuple):
            return False
        if len(args) == 2 and ast.unparse(args[1]) in ("...", "Ellipsis"):
            return all(accepts(args[0], item, module, depth) for item in value)
        return len(args) == len(value) and all(
            accepts(arg, item, module, depth) for arg, item in zip(args, value, strict=True)
        )
    if name in MAPPINGS:
        return isinstance(value, dict) and all(accepts(args[-1], item, module, depth) for item in value.values())
    return True


def entries_refused(annotation: ast.expr | None, value: Any, module: str) -> dict[str, ast.expr]:
    """Return, of a mapping of another type than annotated, the entries that are at fault and the type of each."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return entries_refused(left, value, module) or entries_refused(right, value, module)
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Tuple(elts=[_, of_entry])) if name in MAPPINGS:
            entries = value.items() if isinstance(value, dict) else ()
            return {str(key): of_entry for key, item in entries if not accepts(of_entry, item, module)}
    return {}


def in_words(annotation: ast.expr, module: str) -> str:
    """Describe an annotation: `Literal['a', 'b']` becomes `a or b`, `float | None` `a number or null`."""
    words = {
        "bool": "true or false", "int": "a whole number", "float": "a number", "str": "text", "None": "null",
        "Path": "a path", "Any": "any value",
    }  # fmt: skip
    match annotation:
        case ast.Constant(value=None):
            return "null"
        case ast.Constant(value=str(text)):
            return in_words(ast.parse(text, mode="eval").body, module)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return f"{in_words(left, module)} or {in_words(right, module)}"
        case ast.Name(id=name) if name in words:
            return words[name]
        case ast.Name(id=name):
            defined = definition(module, name)
            if defined and isinstance(defined[0], ast.Assign | ast.AnnAssign) and defined[0].value is not None:
                return in_words(defined[0].value, defined[1])
        case ast.Subscript(value=origin, slice=inner):
            name = ast.unparse(origin).rpartition(".")[2]
            args = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
            if name == "Literal":
                return " or ".join("null" if p.value is None else str(p.value) for p in args)  # type: ignore[attr-defined]
            if name in SEQUENCES or name in ("tuple", "Tuple"):
                items = [in_words(p, module) for p in args if ast.unparse(p) != "..."]
                return "a list of " + (_several(items[0]) if len(set(items)) == 1 else f"({', '.join(items)})")
            if name in MAPPINGS:
                return f"a mapping to {in_words(args[-1], module)}"
    return ast.unparse(annotation)


def _several(words: str) -> str:
    """The plural of what `in_words` says, where it has one."""
    plurals = {"a whole number": "whole numbers", "a number": "numbers", "text": "texts", "a path": "paths"}
    return words.replace("a list of", "lists of", 1) if words.startswith("a list of") else plurals.get(words, words)


def choices(annotation: ast.expr, module: str) -> list[str]:
    """Return the values of a Literal or a bool, for completion; none for other types."""
    text = ast.unparse(annotation)
    if isinstance(annotation, ast.Name):
        defined = definition(module, annotation.id)
        if defined and isinstance(defined[0], ast.Assign | ast.AnnAssign) and defined[0].value is not None:
            return choices(defined[0].value, defined[1])
    if "Literal[" not in text and "bool" not in text.split(" | "):
        return []
    return [word for word in in_words(annotation, module).split(" or ") if " " not in word and word != "text"]


def value_in_words(value: Any) -> str:
    """Describe a value from YAML with its type, shortened."""
    if value is None:
        return "null"
    kinds = {bool: "", int: "the whole number ", float: "the number ", str: "the text ", list: "the list "}
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    if isinstance(value, dict):
        return f"a mapping with {', '.join(map(str, list(value)[:6])) or 'no keys'}"
    return kinds.get(type(value), "") + (text if len(text) < 80 else text[:77] + "...")
