"""Write the reference of the Python functions and classes from source text: nothing is imported to read it."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from building.markdown import inline, prose
from building.parts import joined, toctree

ENGINE = ("emulators", "data_pipelines")
DOOR = ("emul.api", "emul.train", "emul.training.runs", "emul.contracts")  # behind `import emul`; where they exist
CATALOGUES = ("models",)  # on pages of their own
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def pages() -> Iterator[tuple[str, str]]:
    """Yield the path of every page, below the reference, and its text."""
    folders = [folder for package in ENGINE for folder in packages(package) if folder.split(".")[-1] not in CATALOGUES]
    names = ["python/emul", *(f"python/{folder}" for folder in folders)]
    yield (
        "python.md",
        joined(
            [
                "# Python",
                "[`import emul`](python/emul.md) has the functions of the commands. Two packages are behind it: "
                "`emulators` holds World, State, Step, the time loop and all that is computed; `data_pipelines` "
                "reads and writes files. Each package imports only those below it.",
                toctree(names),
            ]
        ),
    )
    yield "python/emul.md", joined([door_text(), *(text for name in DOOR if (text := module_text(name)))])
    for folder in folders:
        yield f"python/{folder}.md", package_page(folder)


def door_text() -> str:
    return "# emul\n\nThe functions that `import emul` offers, and the contracts of parts of your own."


def packages(name: str) -> list[str]:
    """A package and all packages below it, dotted."""
    root = folder_of(name)
    found = sorted(path.parent.relative_to(root).parts for path in root.rglob("__init__.py"))
    return [".".join([name, *parts]) for parts in found]


def folder_of(package: str) -> Path:
    first, *rest = package.split(".")
    spec = importlib.util.find_spec(first)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0], *rest)


def package_page(package: str) -> str:
    """All modules of a package."""
    folder = folder_of(package)
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    modules = [f"{package}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
    return joined([f"# {inline(package)}", prose(said), *(text for name in modules if (text := module_text(name)))])


def module_text(name: str) -> str:
    """A module: what it says of itself, and its public functions and classes; empty where there is no such module."""
    first, *rest = name.split(".")
    path = folder_of(first).joinpath(*rest).with_suffix(".py")
    if not path.is_file():
        return ""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    sections = [f"## {inline(name)}", prose(ast.get_docstring(tree) or "")]
    for node in tree.body:
        if isinstance(node, FUNCTION | ast.ClassDef) and not node.name.startswith("_"):
            sections.append(definition_text(name, node))
    return "\n\n".join(section for section in sections if section)


def definition_text(module: str, node: ast.stmt, colons: int = 4) -> str:
    """A function or a class with its public methods, as a directive of Sphinx's Python domain."""
    said = prose(ast.get_docstring(node) or "")  # type: ignore[arg-type]
    if isinstance(node, FUNCTION):
        return directive("py:function", f"{module}.{node.name}{arguments(node)}", said, colons)
    assert isinstance(node, ast.ClassDef)
    body = [said] if said else []
    for member in node.body:
        if isinstance(member, FUNCTION) and not member.name.startswith("_") and not is_setter(member):
            kind = "py:property" if is_property(member) else "py:method"
            shown = "" if kind == "py:property" else arguments(member, bound=not is_static(member))
            body.append(directive(kind, f"{member.name}{shown}", prose(ast.get_docstring(member) or ""), colons - 1))
    return directive("py:class", f"{module}.{node.name}{constructor(node)}", "\n\n".join(body), colons)


def directive(kind: str, signature: str, body: str, colons: int) -> str:
    fence = ":" * colons
    return f"{fence}{{{kind}}} {signature}\n\n{body}\n{fence}"


def arguments(node: ast.FunctionDef | ast.AsyncFunctionDef, bound: bool = False) -> str:
    """The arguments with their types, and what is returned."""
    signature = ast.parse("def f(): ...").body[0]
    assert isinstance(signature, ast.FunctionDef)
    given = ast.arguments(**{field: getattr(node.args, field) for field in node.args._fields})
    if bound and given.args:
        given.args = given.args[1:]
    signature.args, signature.returns = given, node.returns
    text = ast.unparse(signature).removeprefix("def f").partition(":\n")[0]
    return re.sub(r"\s+", " ", text)


def constructor(node: ast.ClassDef) -> str:
    """The arguments of a class: those of `__init__`, or the fields of a dataclass or NamedTuple."""
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            return arguments(member, bound=True).partition(" -> ")[0]
    marks = [ast.unparse(mark) for mark in (*node.decorator_list, *node.bases)]
    if not any("dataclass" in mark or "NamedTuple" in mark for mark in marks):
        return ""
    fields = [member for member in node.body if isinstance(member, ast.AnnAssign)]
    shown = [ast.unparse(field) for field in fields if "ClassVar" not in ast.unparse(field.annotation)]
    return f"({', '.join(text for text in shown if 'init=False' not in text and 'KW_ONLY' not in text)})"


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(mark) for mark in node.decorator_list)


def is_setter(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(mark).endswith(".setter") for mark in node.decorator_list)


def is_static(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(mark) == "staticmethod" for mark in node.decorator_list)
