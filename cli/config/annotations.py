"""Compare values from YAML with type annotations read as source text, and describe annotations in words."""

from __future__ import annotations

import ast
from typing import Any

from emul.config.source_text import definition

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
            found = definition(module, name)
            if found and isinstance(found[0], ast.Assign | ast.AnnAssign) and found[0].value is not None:
                return accepts(found[0].value, value, found[1], below)
            if found and isinstance(found[0], ast.ClassDef):
                return not isinstance(value, bool | int | float) or _is_enumeration(found[0])
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
    parts = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
    if name == "Literal":
        return any(isinstance(p, ast.Constant) and p.value == value and type(p.value) is type(value) for p in parts)
    if name == "Optional":
        return value is None or accepts(inner, value, module, depth)
    if name == "Union":
        return any(accepts(part, value, module, depth) for part in parts)
    if name in ("Annotated", "Final"):
        return accepts(parts[0], value, module, depth)
    if name in SEQUENCES:
        return isinstance(value, list | tuple) and all(accepts(parts[0], item, module, depth) for item in value)
    if name in ("tuple", "Tuple"):
        if not isinstance(value, list | tuple):
            return False
        if len(parts) == 2 and ast.unparse(parts[1]) in ("...", "Ellipsis"):
            return all(accepts(parts[0], item, module, depth) for item in value)
        return len(parts) == len(value) and all(
            accepts(part, item, module, depth) for part, item in zip(parts, value, strict=True)
        )
    if name in MAPPINGS:
        return isinstance(value, dict) and all(accepts(parts[-1], item, module, depth) for item in value.values())
    return True


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
            found = definition(module, name)
            if found and isinstance(found[0], ast.Assign | ast.AnnAssign) and found[0].value is not None:
                return in_words(found[0].value, found[1])
        case ast.Subscript(value=origin, slice=inner):
            name = ast.unparse(origin).rpartition(".")[2]
            parts = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
            if name == "Literal":
                return " or ".join("null" if p.value is None else str(p.value) for p in parts)  # type: ignore[attr-defined]
            if name in SEQUENCES or name in ("tuple", "Tuple"):
                shown = [in_words(p, module) for p in parts if ast.unparse(p) != "..."]
                return "a list of " + (shown[0] if len(set(shown)) == 1 else f"({', '.join(shown)})")
            if name in MAPPINGS:
                return f"a mapping to {in_words(parts[-1], module)}"
    return ast.unparse(annotation)


def choices(annotation: ast.expr, module: str) -> list[str]:
    """Return the values of a Literal or a bool, for completion; none for other types."""
    text = ast.unparse(annotation)
    if isinstance(annotation, ast.Name):
        found = definition(module, annotation.id)
        if found and isinstance(found[0], ast.Assign | ast.AnnAssign) and found[0].value is not None:
            return choices(found[0].value, found[1])
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
