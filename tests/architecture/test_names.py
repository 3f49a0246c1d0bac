"""Names are nouns of the field, files and functions stay short, every module says what it is."""

import ast
import re
from pathlib import Path

import pytest

from places import ROOT

FORBIDDEN = {
    "utils",
    "util",
    "common",
    "base",
    "helpers",
    "helper",
    "core",
    "registry",
    "factory",
    "manager",
    "handler",
}
PATHS = sorted(p for folder in ("cli", "emulators", "data_pipelines") for p in (ROOT / folder).rglob("*.py"))
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PATHS, ids=named)
def test_module(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert not FORBIDDEN & set(re.split(r"[/._]", named(path))), "a name that says nothing"
    assert len(text.splitlines()) <= 400, "longer than 400 lines; divide it"
    assert ast.get_docstring(tree), "a module opens with one sentence"
    for node in ast.walk(tree):
        if isinstance(node, FUNCTION):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines; divide it"
            assert not node.name.startswith(("get_", "compute_")), f"{node.name}: say what it returns"
        if isinstance(node, ast.ClassDef):
            assert not re.search(r"(Manager|Factory|Handler|Helper|Util|Registry)s?$", node.name), node.name


@pytest.mark.parametrize("path", PATHS, ids=named)
def test_nothing_is_left_for_later(path: Path) -> None:
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", ["cli", "emulators", "data_pipelines", "conf"])
def test_no_path_of_a_machine(folder: str) -> None:
    for path in (ROOT / folder).rglob("*"):
        if path.suffix in (".py", ".yaml"):
            assert not re.search(r"/(home|work|root|Users)/", path.read_text(encoding="utf-8")), path


DIALECT = {"found", "told", "known", "chosen", "made", "kept", "there", "own"}


@pytest.mark.parametrize("path", PATHS, ids=named)
def test_names_and_first_sentences_are_plain(path: Path) -> None:
    """Classes and functions are not named by participles; a class docstring begins with what the class does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, FUNCTION | ast.ClassDef):
            assert node.name.lower() not in DIALECT, f"{node.name}: name what it is or returns"
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            sentence = ast.get_docstring(node) or ""
            assert sentence, f"{node.name} has no docstring"
            assert not re.match(r"What |Of |The same|[a-z]", sentence), (
                f"{node.name}: begin with a verb: {sentence[:60]}"
            )
