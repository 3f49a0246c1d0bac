"""Decide which `_target_` may become code: our own parts, and those of trusted packages and folders.

A name is judged before anything is imported, and the class or function that it leads to after: a trusted module also
holds what it has imported (`my_parts.os.system`), which is not trusted with it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emul.terminal.findings import Finding
from emul.trust.remembered import remembered

OURS = ("emul", "emulators", "data_pipelines")
PURE = "emulators."  # opens no file and starts no process: all its classes are parts


@dataclass(frozen=True)
class Trusted:
    """Hold what is trusted. parts: dotted names of our own; packages: dotted names; folders: with Python files."""

    parts: Collection[str]
    packages: Sequence[str]
    folders: Sequence[Path]

    def refusal(self, target: object) -> str | None:
        """Say why a target is refused by its name; None where it may be imported. Imports nothing."""
        if not isinstance(target, str) or not _is_dotted(target):
            return "is not the dotted path of a class or function"
        first = target.partition(".")[0]
        if target in self.parts or target.startswith(PURE) or self._package(target):
            return None
        if first in OURS:
            return "is none of the parts of emul"
        return None if self._lies_in_folder(first) else "is of a package that is not trusted"

    def foreign(self, target: str, found: Any) -> bool:
        """True where what a target led to is not defined in the trusted package or folder that the name belongs to."""
        home = str(getattr(found, "__module__", None) or "")
        if target in self.parts:
            return home.partition(".")[0] not in OURS
        if target.startswith(PURE):
            return not (isinstance(found, type) and home.startswith(PURE))
        package = self._package(target)
        if package is not None:
            return not f"{home}.".startswith(f"{package}.")
        file = getattr(sys.modules.get(home), "__file__", None)
        return file is None or not _within(Path(file), self.folders)

    def _package(self, target: str) -> str | None:
        return next((name for name in self.packages if target.startswith(f"{name}.")), None)

    def _lies_in_folder(self, module: str) -> bool:
        """True where the import system finds a top module in a trusted folder."""
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return False
        if spec is None:
            return False
        places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.has_location else [])]
        return bool(places) and all(_within(Path(place), self.folders) for place in map(str, places))


def trusted(parts: Collection[str], folders: Sequence[Path], packages: Sequence[str]) -> Trusted:
    """What is trusted: the arguments, and what the user's file remembers."""
    more = [Path(name) for name in remembered("folders")]
    return Trusted(parts, [*packages, *remembered("packages")], [*folders, *more])


def targets(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of every `_target_` of plain values, at every depth."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield f"{key}._target_" if key else "_target_", node["_target_"]
        for name, value in node.items():
            yield from targets(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from targets(value, f"{key}[{index}]")


def finding(key: str, target: object, why: str) -> Finding:
    """The finding of a refused target, and how it is trusted."""
    package = str(target).partition(".")[0]
    fix = f"if you trust its author add --trust {package}, or --trust <folder> for a folder with its Python file"
    if package in OURS or package in sys.stdlib_module_names or not package.isidentifier():
        fix = "`emul models`, `emul losses`, ... list the parts; nothing was run"
    return Finding(key, "a part of emul, or of a trusted package or folder", f"{target}, which {why}", fix)


def _is_dotted(text: str) -> bool:
    names = text.split(".")
    return len(names) > 1 and all(name.isidentifier() and not name.startswith("__") for name in names)


def _within(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)
