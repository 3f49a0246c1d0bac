"""Imports go down only: folders stand in one order, and each imports only those before it.

Imports inside functions and under `if TYPE_CHECKING` count too. Parts of a catalogue never import each other.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from places import ROOT

FLOORS = """
emulators
emulators/sphere emulators/physics emulators/scores emulators/statistics emulators/scaling emulators/projections
emulators/meshes emulators/grids
emulators/layers emulators/layers/attention
emulators/models emulators/objectives emulators/losses emulators/constraints emulators/metrics emulators/samplers
emulators/steps
emulators/verification emulators/training
emulators/contracts
data_pipelines
data_pipelines/files data_pipelines/conventions data_pipelines/options
data_pipelines/derived data_pipelines/reading data_pipelines/jobs
data_pipelines/opening data_pipelines/batches data_pipelines/packing data_pipelines/forecasts
data_pipelines/simulators data_pipelines/simulators/planet data_pipelines/simulators/ocean
data_pipelines/sources data_pipelines/inspection
data_pipelines/verification data_pipelines/projections
data_pipelines/display data_pipelines/pictures data_pipelines/reports
data_pipelines/studies
cli/terminal cli/config cli/checks
cli/training cli/evaluation cli/data
cli
""".split()
CATALOGUES = {"models", "objectives", "losses", "constraints", "metrics", "samplers", "sources"}
UPPER = FLOORS[FLOORS.index("emulators/layers") : FLOORS.index("data_pipelines")]  # of these data_pipelines sees none
EXCEPTIONS = {  # but pages show what verification found, and jobs and trials run on the hardware of a training
    "data_pipelines/reports": "emulators/verification",
    "data_pipelines/jobs": "emulators/training",
    "data_pipelines/studies": "emulators/training",
}
PLACES = {  # folders in which a library may be imported
    "xarray": ("data_pipelines", "emulators/verification", "cli"),
    **dict.fromkeys(("zarr", "netCDF4", "dask", "fsspec", "cfgrib"), ("data_pipelines",)),
    "pytorch_lightning": ("emulators/training", "cli/training"),
    **dict.fromkeys(("hydra", "omegaconf", "rich"), ("cli",)),
    "matplotlib": ("data_pipelines/display", "data_pipelines/pictures", "data_pipelines/reports"),
}


def module_name(path: Path) -> str:
    """The dotted name of a file: cli/ installs as emul."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("emul", *parts[1:]) if parts[0] == "cli" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(p for folder in ("cli", "emulators", "data_pipelines") for p in (ROOT / folder).rglob("*.py"))
MODULES = {module_name(path): path for path in FILES}
TOPS = {"emul", "emulators", "data_pipelines"}


def folder_of(module: str) -> str:
    return MODULES[module].parent.relative_to(ROOT).as_posix()


def imports(module: str) -> Iterator[str]:
    """Dotted names that a module imports; `from a import b` gives a.b where that is a module of the house."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)


def fault(importer: str, imported: str) -> str | None:
    """Why a file in one folder may not import a file in another, or None."""
    if importer == imported:
        return "parts do not import parts" if importer.rpartition("/")[2] in CATALOGUES else None
    if FLOORS.index(imported) > FLOORS.index(importer):
        return "imports go down only"
    if importer.startswith("data_pipelines") and imported in UPPER and EXCEPTIONS.get(importer) != imported:
        return "data_pipelines sees the words and pure functions of emulators"
    return None


def test_every_folder_has_its_place() -> None:
    assert {folder_of(module) for module in MODULES} == set(FLOORS)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module: str) -> None:
    here = folder_of(module)
    for imported in imports(module):
        library = imported.partition(".")[0]
        if imported in MODULES:
            why = fault(here, folder_of(imported))
            assert why is None, f"{module} imports {imported}: {why}"
        elif library in PLACES:
            assert here.startswith(PLACES[library]), f"{library} does not belong in {here}"
        if here == "emulators":
            assert imported in MODULES or library in {"numpy", "torch", *sys.stdlib_module_names}


def test_the_order_would_see_a_climb() -> None:
    assert fault("emulators/sphere", "emulators") is None
    assert fault("emulators", "emulators/scores")
    assert fault("emulators/models", "emulators/models")
    assert fault("data_pipelines/batches", "emulators/steps")
    assert fault("emulators/steps", "data_pipelines/batches")
    assert fault("emulators/steps", "cli/config")


def test_no_circles() -> None:
    """Modules can be put in an order in which each imports only earlier ones, for types too."""
    needs = {module: {name for name in imports(module) if name in MODULES} - {module} for module in MODULES}
    while ready := {module for module, others in needs.items() if not others & needs.keys()}:
        needs = {module: others for module, others in needs.items() if module not in ready}
    needed = set().union(*needs.values()) if needs else set()
    while needs and (outer := needs.keys() - needed):  # what only depends on a circle is not in it
        needs = {module: others for module, others in needs.items() if module not in outer}
        needed = set().union(*needs.values())
    assert not needs, f"a circle among {sorted(needs)}"


def test_emulators_open_no_file_and_print_nothing() -> None:
    for module, path in MODULES.items():
        if module.startswith("emulators"):
            calls = [n.func for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
            names = {call.id for call in calls if isinstance(call, ast.Name)}
            assert not names & {"print", "open", "input"}, module


def test_every_folder_is_packaged() -> None:
    import tomllib

    packages = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    assert packages == {module for module, path in MODULES.items() if path.name == "__init__.py"} | {"emul.conf"}


def names_defined(module: str) -> set[str]:
    """Every name that a module binds, at any depth: enough to see an import of what is not there."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
    return names


def test_what_is_imported_exists() -> None:
    """mypy takes a module of the house that does not exist for a foreign one without types."""
    defined = {module: names_defined(module) for module in MODULES}
    for path in [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or str(node.module).partition(".")[0] not in TOPS:
                continue
            assert node.module in MODULES, f"{path}:{node.lineno} imports {node.module}, which does not exist"
            for alias in node.names if node.module != "emul" else ():  # the Python door hands its names out lazily
                there = alias.name in defined[node.module] or f"{node.module}.{alias.name}" in MODULES
                assert there, f"{path}:{node.lineno}: {node.module} has no {alias.name}"
