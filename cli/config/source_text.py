"""Find modules and definitions by dotted path in source text, without importing them."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path


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
    found, queue = [], list(tree.body)
    while queue:
        statement = queue.pop(0)
        found.append(statement)
        if isinstance(statement, ast.If | ast.Try):
            queue[:0] = [*statement.body, *statement.orelse]
    return found


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
