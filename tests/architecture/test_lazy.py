"""Starting is fast: help needs the standard library only, configurations no torch; packages are only docstrings."""

import ast
import subprocess
import sys

import pytest

from places import ROOT

MEASURE = """
import sys
before = set(sys.modules)
from emul.main import main
code = main({arguments!r})
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before - {allowed!r}}}
print("LOADED", *sorted(loaded), file=sys.stderr)
sys.exit(code)
"""


# The modules below cli/ that help and configurations need; they import the standard library only.
LIGHT = {
    "data_pipelines", "data_pipelines.conventions", "data_pipelines.conventions.suggestions", "data_pipelines.files",
    "data_pipelines.files.identity", "data_pipelines.options",
    *(f"data_pipelines.options.{path.stem}" for path in (ROOT / "data_pipelines" / "options").glob("*.py")),
}  # fmt: skip


def loaded_by(*arguments: str) -> set[str]:
    """Top-level modules that a command loads beyond those of a bare interpreter."""
    code = MEASURE.format(arguments=list(arguments), allowed=LIGHT)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode in (0, 2), done.stderr
    return set(done.stderr.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["models", "--help"], ["version"], ["completion", "bash"], ["tarin"]],
)
def test_standard_library_only(arguments: list[str]) -> None:
    foreign = loaded_by(*arguments) - set(sys.stdlib_module_names) - {"emul"}
    assert not foreign


@pytest.mark.parametrize("arguments", [["train", "--cfg", "job"], ["train", "optimizer.lrr=1"], ["forecast", "rum=x"]])
def test_configurations_need_no_torch(arguments: list[str]) -> None:
    heavy = {"torch", "numpy", "xarray", "pytorch_lightning", "matplotlib", "emulators", "data_pipelines"}
    assert not loaded_by(*arguments) & heavy


def test_listing_needs_no_torch() -> None:
    heavy = {"torch", "xarray", "scipy", "pandas", "pytorch_lightning", "hydra", "matplotlib"}
    assert not loaded_by("list", "no_such_folder") & heavy


@pytest.mark.slow
def test_checking_needs_no_compiler() -> None:
    """A network tried on the meta device draws nothing, or torch would import its compiler and sympy."""
    assert not loaded_by("check", "data=planet_tiny", "model=sfno") & {"sympy", "pytorch_lightning", "matplotlib"}


SOURCES = sorted(path.stem for path in (ROOT / "data_pipelines" / "sources").glob("*.py") if path.stem != "__init__")


@pytest.mark.slow
def test_only_planet_sources_load_the_planet() -> None:
    """A training on another dataset pays nothing for the planet's equations and physics."""
    others = [name for name in SOURCES if not name.startswith("planet") and name != "ocean"]  # which its air drives
    code = f"""
import importlib, sys, emul.train
assert "data_pipelines.batches.windows" in sys.modules
for source in {others}:
    importlib.import_module(f"data_pipelines.sources.{{source}}")
    assert "data_pipelines.simulators.planet" not in sys.modules, source
importlib.import_module("data_pipelines.sources.planet")
assert "data_pipelines.simulators.planet" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["cli", "emulators", "data_pipelines"])
def test_packages_are_only_docstrings(package: str) -> None:
    for path in set((ROOT / package).rglob("__init__.py")) - {ROOT / "cli" / "__init__.py"}:  # it hands out emul.api
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1, path
        assert isinstance(body[0], ast.Expr), path
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
