"""Print the structure of the product, row by row, against its bars: folders, imports, sizes, and what a verb runs.

    python tests/benchmarks/house.py [--static] [--root DIR]

The rows on imports come from the syntax trees of `cli`, `data_pipelines` and `emulators`. Imports are of three kinds:
at module level, inside functions, and under TYPE_CHECKING. Import depth is the number of modules in the longest chain
of the first kind; single importers count the first two; circles, of modules and of folders, count all three.

The rows on verbs come from `emul train`, `forecast` and `eval` on lorenz96, each traced in a process of its own: the
files of which a function ran (module and class bodies, lambdas and comprehensions do not count), and the frames of
these files on the stack when the loss, the network or the area mean is entered. There comprehensions do count: Python
3.12 and later inline them, which makes a stack shorter by up to three frames than in 3.11.

--static leaves out the verbs and takes seconds. --root measures another checkout, which must be the one installed in
this Python where verbs run. The figure is the number of rows that hold; below the bar the exit code is 1.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

PACKAGES = {"cli": "emul", "data_pipelines": "data_pipelines", "emulators": "emulators"}  # folder: import name
CATALOGUES = {"models", "objectives", "losses", "constraints", "metrics", "samplers", "sources"}
FILES_OF_VERB = {"train": 55, "forecast": 50, "eval": 40}
ARITHMETIC = {  # where it is found in the path of a file, and the functions that do it
    "train": ("emulators/losses/", ("forward", "__call__")),
    "forecast": ("emulators/models/", ("forward", "__call__")),
    "eval": ("/area_means.py", ("sums",)),
}
Graph = Mapping[str, Collection[str]]
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Row(NamedTuple):
    """One line of the table. The row holds where the figure is at most the bar; worst: what to change first."""

    name: str
    figure: float
    bar: float
    worst: list[str] = []  # noqa: RUF012  never changed

    @property
    def holds(self) -> bool:
        return self.figure <= self.bar


class Import(NamedTuple):
    """An import of the module `target`. kind: `load`, `local` or `type`.

    name: what `from ... import` takes. alias: the name that the module has here, empty where only a part is taken.
    """

    target: str
    kind: str
    name: str
    alias: str


class Module:
    """A source file: its dotted name, path relative to the root, lines and syntax tree; later its imports."""

    def __init__(self, root: Path, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self.path = path.relative_to(root)
        parts = [PACKAGES[self.path.parts[0]], *self.path.with_suffix("").parts[1:]]
        self.is_package = parts[-1] == "__init__"
        self.package = ".".join(parts[:-1])
        self.name = self.package if self.is_package else ".".join(parts)
        self.folder = self.path.parent.as_posix()
        self.lines, self.tree = len(text.splitlines()), ast.parse(text)
        self.imports: list[Import] = []

    def find_imports(self, known: Collection[str], node: ast.AST, kind: str = "load") -> Iterator[Import]:
        """Imports below `node` of the modules in `known`."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield from self._targets(child, known, kind)
            elif isinstance(child, Function):
                yield from self.find_imports(known, child, "type" if kind == "type" else "local")
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from self.find_imports(known, ast.Module(child.body, []), "type")
                yield from self.find_imports(known, ast.Module(child.orelse, []), kind)
            else:
                yield from self.find_imports(known, child, kind)

    def _targets(self, node: ast.Import | ast.ImportFrom, known: Collection[str], kind: str) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in known:
                    yield Import(alias.name, kind, "", alias.asname or alias.name)
            return
        above = self.package.split(".")
        parents = above[: len(above) + 1 - node.level] if node.level else []
        base = ".".join([*parents, *filter(None, [node.module])])
        for alias in node.names:
            full = f"{base}.{alias.name}"
            if full in known:
                yield Import(full, kind, alias.name, alias.asname or alias.name)
            elif base in known and base != self.name:
                yield Import(base, kind, alias.name, "")


def read_modules(root: Path) -> dict[str, Module]:
    """Every module of the product by its dotted name."""
    paths = [path for folder in PACKAGES for path in sorted((root / folder).rglob("*.py"))]
    modules = {module.name: module for module in (Module(root, path) for path in paths)}
    if not modules:
        raise SystemExit(f"No source files in {root}.")
    for module in modules.values():
        module.imports = list(module.find_imports(modules, module.tree))
    return modules


def import_graph(modules: dict[str, Module], kinds: Collection[str]) -> dict[str, list[str]]:
    """The modules that each module imports, sorted."""
    return {name: sorted({i.target for i in module.imports if i.kind in kinds}) for name, module in modules.items()}


def circles(graph: Graph) -> list[list[str]]:
    """Strongly connected components of more than one node."""
    reached = {node: reachable(graph, node) for node in graph}
    groups = {frozenset(other for other in reached[node] if node in reached[other]) for node in graph}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def reachable(graph: Graph, start: str) -> set[str]:
    """Nodes reached from `start` along one edge or more."""
    found: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        if (node := ahead.pop()) not in found:
            found.add(node)
            ahead += graph[node]
    return found


def longest_chain(graph: Graph) -> list[str]:
    """The nodes of a longest path; an edge that would close a circle is skipped."""
    chains: dict[str, list[str]] = {}

    def chain(node: str, above: frozenset[str]) -> list[str]:
        if node not in chains:
            below = [chain(other, above | {node}) for other in graph[node] if other not in above]
            chains[node] = [node, *max(below, key=len, default=[])]
        return chains[node]

    return max((chain(node, frozenset((node,))) for node in graph), key=len)


def folder_rows(modules: dict[str, Module]) -> list[Row]:
    """The largest folder, and circles among folders."""
    files = Counter(module.folder for module in modules.values() if not module.is_package)
    ranked = [(folder, n) for folder, n in files.most_common() if folder.rpartition("/")[2] not in CATALOGUES]
    edges: dict[str, set[str]] = {module.folder: set() for module in modules.values()}
    for module in modules.values():
        edges[module.folder] |= {modules[i.target].folder for i in module.imports} - {module.folder}
    found = circles(edges)
    return [
        Row("files of the largest folder", ranked[0][1], 14, [f"{folder}/ {n}" for folder, n in ranked if n > 14]),
        Row("circles among folders", len(found), 0, ["  ".join(circle) for circle in found]),
    ]


def import_rows(modules: dict[str, Module]) -> list[Row]:
    """Depth, circles, single importers and private names."""
    chain = longest_chain(import_graph(modules, ("load",)))
    found = circles(import_graph(modules, ("load", "local", "type")))
    importers: dict[str, list[str]] = defaultdict(list)
    for name, targets in import_graph(modules, ("load", "local")).items():
        for target in targets:
            importers[target].append(name)
    single = sorted((modules[name].lines, name, of[0]) for name, of in importers.items() if len(of) == 1)
    private = [f"{module.name} uses {name}" for module in modules.values() for name in private_names(module)]
    return [
        Row("import depth", len(chain), 9, [" > ".join(chain)]),
        Row("circles among modules", len(found), 0, ["  ".join(circle) for circle in found]),
        Row("modules with a single importer", len(single), 35, [f"{m} ({n} lines), by {by}" for n, m, by in single]),
        Row("private names of other modules", len(private), 0, private),
    ]


def private_names(module: Module) -> Iterator[str]:
    """Private names that a module imports from another, or reads as its attribute."""
    aliases = {i.alias: i.target for i in module.imports if i.alias}
    yield from (f"{i.target}: {i.name}" for i in module.imports if is_private(i.name))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = aliases.get(ast.unparse(node.value))
            if owner is not None:
                yield f"{owner}: {node.attr}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def size_rows(modules: dict[str, Module]) -> list[Row]:
    """Lines of files and functions, and of the command line."""
    files = sorted(((module.lines, str(module.path)) for module in modules.values()), reverse=True)
    functions = sorted(
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{module.path}:{node.lineno} {node.name}")
        for module in modules.values()
        for node in ast.walk(module.tree)
        if isinstance(node, Function)
    )
    lengths = [lines for lines, _ in functions]
    cli = [(lines, path) for lines, path in files if path.startswith("cli")]
    longest = [f"{where} ({lines})" for lines, where in reversed(functions)]
    return [
        Row("lines of the longest file", files[0][0], 400, [f"{path} ({n})" for n, path in files if n > 400]),
        Row("lines of the longest function", lengths[-1], 60, longest[: sum(n > 60 for n in lengths)]),
        Row("lines of a function, median", statistics.median(lengths), 8, longest),
        Row("lines of a function, 90th percentile", lengths[int(0.9 * len(lengths))], 22, longest),
        Row("lines of cli/", sum(lines for lines, _ in cli), 7500, [f"{path} ({n})" for n, path in cli]),
    ]


def contract_rows(modules: dict[str, Module]) -> list[Row]:
    """Attributes looked up by name, and public classes without a docstring."""
    probes: Counter[str] = Counter()
    bare = []
    for module in modules.values():
        nodes = list(ast.walk(module.tree))
        names = [node for node in nodes if isinstance(node, ast.Name) and node.id in ("hasattr", "getattr")]
        probes[str(module.path)] = len({node.lineno for node in names})
        classes = [node for node in nodes if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
        bare += [f"{module.path}: {node.name}" for node in classes if not ast.get_docstring(node)]
    worst = [f"{path} ({n})" for path, n in probes.most_common()]
    return [
        Row("lines with hasattr or getattr", probes.total(), 15, worst),
        Row("public classes without a docstring", len(bare), 0, bare),
    ]


class Tracer:
    """A trace function: records the functions of the product that run and the deepest stack at the arithmetic."""

    def __init__(self, root: Path, verb: str) -> None:
        self.root, (self.place, self.names) = root, ARITHMETIC[verb]
        self.folders = tuple(f"{root / folder}{os.sep}" for folder in PACKAGES)
        self.paths: dict[str, str] = {}  # from the root, by file name of a code object; empty for libraries
        self.functions: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self.stacks: dict[str, tuple[list[str], int]] = {}  # by function: frames of the product, number of others

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        path = self._path(code.co_filename)
        if path and code.co_flags & inspect.CO_OPTIMIZED and code.co_name[0] != "<":
            self.functions[path].add((code.co_name, code.co_firstlineno))
            if self.place in path:
                self._measure(frame)

    def _path(self, file: str) -> str:
        """The path from the root of a file of the product, else an empty string."""
        if file not in self.paths:
            real = os.path.realpath(file)
            self.paths[file] = Path(real).relative_to(self.root).as_posix() if real.startswith(self.folders) else ""
        return self.paths[file]

    def _measure(self, frame: FrameType) -> None:
        frames: list[tuple[str, str]] = []
        above: FrameType | None = frame
        while above is not None:
            frames.insert(0, (self._path(above.f_code.co_filename), above.f_code.co_name))
            above = above.f_back
        own = [(path, name) for path, name in frames if path]
        if any(self.place in path and name in self.names for path, name in own[:-1]):
            return  # the arithmetic is entered further up
        if any(path.startswith("cli/checks/") for path, _ in own):
            return  # a part that is tried before the run begins
        name = own[-1][1]
        if name not in self.stacks or len(own) > len(self.stacks[name][0]):
            others = len(frames) - frames.index(own[0]) - len(own)
            self.stacks[name] = [f"{path.removesuffix('.py')}:{name}" for path, name in own], others

    def summary(self) -> dict[str, Any]:
        """Functions run by file; the deepest stack at a named function, or at any in that place if none of them ran."""
        named = [stack for name, stack in self.stacks.items() if name in self.names] or list(self.stacks.values())
        stack, others = max(named, key=lambda found: len(found[0]), default=([], 0))
        files = {path: len(functions) for path, functions in self.functions.items()}
        return {"files": files, "stack": stack, "libraries": others}


def trace(root: Path, verb: str, output: Path, arguments: list[str]) -> int:
    """Run a verb under the tracer and write the summary to `output`."""
    import pytorch_lightning  # noqa: F401  libraries load faster without the tracer

    from emul import main

    if not Path(main.__file__).resolve().is_relative_to(root):
        raise SystemExit(f"The installed package emul does not come from {root}; use the Python of that checkout.")
    tracer = Tracer(root, verb)
    threading.settrace(tracer)
    sys.settrace(tracer)
    try:
        code = main.main([verb, *arguments])
    finally:
        sys.settrace(None)
    output.write_text(json.dumps(tracer.summary()), encoding="utf-8")
    return code


def run_verbs(root: Path) -> dict[str, dict[str, Any]]:
    """Summaries of the three verbs, run one after another in a temporary folder."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        output, run = f"output={folder}", f"run={folder}/train/lorenz96_unet"
        commands = {
            "train": ["experiment=lorenz96_unet", "training.steps=20", "training.validation_cases=4", output],
            "forecast": [run, "lead=1d", "every=30d", output],
            "eval": [run, "pictures=false", output],
        }
        for verb, arguments in commands.items():
            summary = Path(folder) / f"{verb}.json"
            words = ["--root", str(root), "--trace", verb, str(summary), *arguments]
            command = [sys.executable, "-P", str(Path(__file__).resolve()), *words]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"emul {' '.join([verb, *arguments])} failed:\n{done.stderr[-3000:]}")
            found[verb] = json.loads(summary.read_text(encoding="utf-8"))
    return found


def verb_rows(root: Path) -> list[Row]:
    """Files that run for each verb, and frames down to the arithmetic."""
    rows, stacks = [], []
    for verb, summary in run_verbs(root).items():
        least = sorted(summary["files"].items(), key=lambda item: item[1])
        worst = [f"{path} (functions run: {n})" for path, n in least]
        rows.append(Row(f"files that run for {verb}", len(worst), FILES_OF_VERB[verb], worst))
        if not summary["stack"]:
            raise SystemExit(f"emul {verb} entered no function in {ARITHMETIC[verb][0]}.")
        chain = " > ".join(summary["stack"])
        stacks.append((len(summary["stack"]), f"{verb} (and {summary['libraries']} of libraries): {chain}"))
    worst = [f"{n} in {text}" for n, text in sorted(stacks, reverse=True)]
    return [*rows, Row("frames from verb to arithmetic", max(stacks)[0], 11, worst)]


def main() -> int:
    """Print the table, the worst offenders of rows that fail, and the figure that has a bar."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="checkout to measure")
    parser.add_argument("--static", action="store_true", help="leave out the rows that run verbs")
    parser.add_argument("--trace", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = options.root.resolve()
    if options.trace:
        verb, output, *arguments = options.trace
        return trace(root, verb, Path(output), arguments)
    modules = read_modules(root)
    rows = [*folder_rows(modules), *import_rows(modules), *size_rows(modules), *contract_rows(modules)]
    rows += [] if options.static else verb_rows(root)
    for row in rows:
        print(f"{row.name:40s} {row.figure:7g}   bar {row.bar:5g}   {'ok' if row.holds else 'FAILS'}")
    for row in rows:
        if not row.holds:
            print(f"\n{row.name}", *row.worst[:5], sep="\n    ")
    figure = sum(row.holds for row in rows)
    print(f"\nhouse: {figure} of {len(rows)} rows hold (bar {len(rows)})")
    return 0 if figure == len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
