"""Files of results are written atomically: nothing but `data_pipelines.files` opens one under its final name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from places import ROOT

WRITING = ("write_text", "write_bytes", "to_netcdf", "tofile")
NOT_KEPT = {"data_pipelines/packing/metadata.py"}  # a probe of the disk's speed
PATHS = [
    path
    for folder in ("cli", "emulators", "data_pipelines")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.parent != ROOT / "data_pipelines" / "files" and path.relative_to(ROOT).as_posix() not in NOT_KEPT
]


def first_name(node: ast.AST) -> str:
    """The name that an expression begins with."""
    while isinstance(node, ast.Attribute | ast.Call | ast.BinOp | ast.Subscript):
        node = getattr(node, "value", None) or getattr(node, "func", None) or getattr(node, "left", None)
    return node.id if isinstance(node, ast.Name) else ""


def is_final(node: ast.AST) -> bool:
    return first_name(node) not in ("unfinished", "os")


def writes(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls that write a file which is not the temporary one of `atomic_file`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in WRITING:
            inner = node.func.value
            if is_final(inner if node.func.attr.startswith("write") else (node.args or [inner])[0]):
                yield node
        if isinstance(node.func, ast.Name) and node.func.id == "open" and len(node.args) > 1:
            mode = node.args[1]
            if isinstance(mode, ast.Constant) and set("wx+") & set(str(mode.value)) and is_final(node.args[0]):
                yield node


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_are_written_atomically(path: Path) -> None:
    found = [f"line {node.lineno}" for node in writes(ast.parse(path.read_text(encoding="utf-8")))]
    assert not found, "write with data_pipelines.files.atomic"


def test_the_search_finds_what_it_looks_for() -> None:
    bad = ("a.write_text(x)", "open(b, 'w')", "(c / 'd').write_bytes(x)", "e.to_netcdf(f)", "open(g.h, 'xb')")
    assert all(len(list(writes(ast.parse(line)))) == 1 for line in bad)
    good = ("unfinished.write_text(x)", "open(unfinished, 'wb')", "open(a)", "open(a, 'rb')", "e.to_netcdf(unfinished)")
    assert not any(list(writes(ast.parse(line))) for line in good)
