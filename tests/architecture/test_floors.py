"""The house plan, enforced: imports go down only.

    4  cli/                    knows Hydra, OmegaConf, rich; holds no mathematics
    3  emulators/{step, training, verification, ...}.py  |  data_pipelines/   (never import each other)
    2  emulators/{models, constraints, losses, metrics, objectives}/*.py    one part a file, no part imports another
    1  emulators/{sphere, physics, layers}/*, scores, weights, normalise, regions, rollout, ...    small modules
    0  emulators/{constants, grid, variables, state, world}.py    the words: numpy and torch only

data_pipelines sees floors 0 and 1. A rollout is a pure function of anything that steps, hence on floor 1: objectives
use it as training and forecasts do. Imports under `if TYPE_CHECKING` are words for the reader and do not count.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOUSE = {"emulators", "data_pipelines", "emul"}
WORDS = {"constants", "grid", "variables", "state", "world"}
SMALL = {"sphere", "physics", "layers", "scores", "weights", "normalise", "regions", "climatology", "rollout"}
SMALL |= {"spectral_errors", "spectral_shape", "bootstrap", "daily_climatology", "climate_scores"}
SMALL |= {"paths", "metric", "area_means", "channels", "ensemble_scores", "event_scores"}
PARTS = {"models", "constraints", "losses", "metrics", "objectives"}
TRAINING = ("emulators/training", "data_pipelines/loader.py", "cli/train.py", "cli/callbacks.py")
TRAINING += ("cli/trainer.py", "cli/loggers.py")
PLACES: dict[str, tuple[str, ...]] = {  # where a library may be imported
    "xarray": (
        "data_pipelines/",
        "emulators/verification.py",
        "emulators/climate_verification.py",
        "emulators/spectral_verification.py",
        "emulators/init_statistics.py",
        "emulators/ledger.py",
    ),
    **dict.fromkeys(("zarr", "netCDF4", "dask", "fsspec", "cfgrib"), ("data_pipelines/",)),
    "pytorch_lightning": TRAINING,
    **dict.fromkeys(("hydra", "omegaconf", "rich", "matplotlib"), ("cli/",)),
    **dict.fromkeys(("lightning", "scipy", "pandas"), ()),
}


def sources() -> list[Path]:
    return sorted(p for folder in ("cli", "emulators", "data_pipelines") for p in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("emul", *parts[1:]) if parts[0] == "cli" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sources()}


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names a module imports, not those under TYPE_CHECKING; `from a import b` gives a.b where that exists."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)
        yield from imports(node)


def floor(module: str) -> int:
    """The floor of a module of the house."""
    top, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    if top == "emul":
        return 4
    if top == "data_pipelines":
        return 3
    return 0 if room in WORDS else 1 if room in SMALL else 2 if room in PARTS else 3


def faults_of(module: str, imported: str) -> str | None:
    """Why `module` may not import `imported`, or None."""
    top, into = module.partition(".")[0], imported.partition(".")[0]
    if imported in ("emulators", "data_pipelines", "emul"):
        return "packages are only docstrings"
    if floor(imported) > floor(module):
        return "imports go down only"
    if top == "data_pipelines" and into == "emulators" and floor(imported) > 1:
        return "data_pipelines sees floors 0 and 1"
    if top == "emulators" and into == "data_pipelines":
        return "emulators and data_pipelines never import each other"
    if floor(module) == floor(imported) == 2:
        return "parts do not import parts"
    return None


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module: str) -> None:
    path = MODULES[module]
    for imported in imports(ast.parse(path.read_text(encoding="utf-8"))):
        library = imported.partition(".")[0]
        if library in HOUSE:
            why = faults_of(module, imported)
            assert why is None, f"{module} imports {imported}: {why}"
        elif library in PLACES:
            place = path.relative_to(ROOT).as_posix()
            assert place.startswith(PLACES[library] or ("nowhere",)), f"{library} does not belong in {place}"
        if floor(module) == 0 and library not in HOUSE:
            assert library in ("numpy", "torch") or library in __import__("sys").stdlib_module_names


def test_the_table_would_see_a_climb() -> None:
    assert faults_of("emulators.grid", "emulators.world") is None
    assert faults_of("emulators.grid", "emulators.scores")
    assert faults_of("emulators.models.sfno", "emulators.models.unet")
    assert faults_of("data_pipelines.windows", "emulators.step")
    assert faults_of("emulators.step", "data_pipelines.windows")
    assert faults_of("emulators.step", "emul.build")


def test_no_circles() -> None:
    """Modules can be put in an order in which each imports only earlier ones, imports inside functions included."""
    needs = {
        module: {name for name in imports(ast.parse(path.read_text(encoding="utf-8"))) if name in MODULES} - {module}
        for module, path in MODULES.items()
    }
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
