"""Decide which `_target_` may become code, our own parts and those that the user trusts; find and hide secrets.

A name is judged before anything is imported, and the class or function that it leads to after: a trusted module also
holds what it has imported (`my_parts.os.system`), which is not trusted with it. Whom a user trusts is remembered in
emul/trusted.json in the folder of configurations (XDG_CONFIG_HOME, default ~/.config), with the settings that hold
`${oc.env:...}`. EMUL_TRUST names more packages and folders for one process and those it starts.

Secrets are passwords, tokens, `storage_options` and values of the environment. One that was typed is replaced by `***`
in every file.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.conventions.suggestions import HIDDEN, Finding, masked_address

VARIABLE = "EMUL_TRUST"
KINDS = ("packages", "folders", "settings", "recipes")


def trust_file() -> Path:
    """The path of the user's file."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(base, "emul", "trusted.json")


def remembered(kind: str) -> list[str]:
    """The names of a kind, `packages`, `folders` or `settings`; those of EMUL_TRUST included."""
    names = [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    by_kind = {"packages": [n for n in names if not is_folder(n)], "folders": [n for n in names if is_folder(n)]}
    return [*by_kind.get(kind, []), *_read().get(kind, [])]


def remember(kind: str, names: Iterable[str]) -> None:
    """Add names to the user's file, for later commands. Where it cannot be written, nothing is remembered."""
    stored = _read()
    new = [name for name in names if name not in stored.get(kind, [])]
    if not new:
        return
    file = trust_file()
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            json.dump(stored | {kind: [*stored.get(kind, []), *new]}, stream, indent=1)
        os.replace(unfinished, file)


def trust(names: Iterable[str]) -> None:
    """Trust packages (dotted) and folders (paths), in this process, those it starts, and later commands.

    Raises ValueError for a name that is neither.
    """
    names = [os.path.abspath(name) if is_folder(name) else name for name in names]
    for name in names:
        if not is_folder(name) and not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"--trust takes a package, such as my_parts, or a folder that exists; got '{name}'.")
    if not names:
        return
    before = os.environ.get(VARIABLE, "").split(os.pathsep)
    os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(filter(None, [*names, *before])))
    remember("packages", [name for name in names if not is_folder(name)])
    remember("folders", [name for name in names if is_folder(name)])


def is_folder(name: str) -> bool:
    """True for the path of a folder: one with a separator, or one that exists."""
    return os.sep in name or os.path.isdir(name)


def _read() -> dict[str, list[str]]:
    """The content of the user's file; empty where there is none, or another kind of file."""
    try:
        content = json.loads(trust_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    stored = content if isinstance(content, dict) else {}
    return {
        kind: [str(name) for name in stored.get(kind) or []] for kind in KINDS if isinstance(stored.get(kind), list)
    }


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

    def foreign(self, target: str, definition: Any) -> bool:
        """True where what a target led to is not defined in the trusted package or folder that the name belongs to."""
        home = str(getattr(definition, "__module__", None) or "")
        if target in self.parts:
            return home.partition(".")[0] not in OURS
        if target.startswith(PURE):
            return not (isinstance(definition, type) and home.startswith(PURE))
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


SECRET = re.compile(
    r"token|passw|passphrase|pwd|secret|credential|bearer|(api|access|private|account|sas)_?key|authorization|cookie"
)
OPTIONS = "storage_options"
PLAIN = {"anon", "endpoint_url", "region_name", "project", "protocol", "account_name"}  # of storage_options
PUBLIC = {"", "anon", "anonymous", "google_default", "cloud", HIDDEN}  # values that are no secrets
OWN = {"EMUL_CONF"}  # variables of the environment whose values are kept
LEAST = 4  # letters of a text that is looked for in messages
shown: dict[str, str] = {}  # by secret: what is shown in its place


def texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the value of every text in plain values, keys of mappings included."""
    if isinstance(node, dict):
        for name, value in node.items():
            here = f"{key}.{name}" if key else str(name)
            yield here, str(name)
            yield from texts(value, here)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from texts(value, f"{key}[{index}]")
    elif isinstance(node, str):
        yield key, node


def redacted(text: str) -> str:
    """A text for messages and files, with `***` or `${oc.env:NAME}` in place of the secrets that are known."""
    for secret in sorted(shown, key=len, reverse=True):
        text = text.replace(secret, shown[secret])
    return masked_address(text)


def hidden(plain: Any) -> list[Finding]:
    """Find values that were left out of a file as secrets, and are needed now."""
    return [
        Finding(key, "a value", f"{HIDDEN}, as secrets are not saved", f"give it with this command: {key}=...")
        for key, value in leaves(plain)
        if isinstance(value, str) and HIDDEN in value
    ]


def refuse_typed(words: Sequence[str], where: str) -> None:
    """Raise ValueError where a secret was typed that would be written to a file. where: which file."""
    for word in words:
        if any(value in word for value, text in shown.items() if text == HIDDEN) or masked_address(word) != word:
            key = word.partition("=")[0]
            raise ValueError(
                f"{key}: expected a secret from the environment, got one on the command line, which would stand in "
                f"{where}; export it as NAME and write '{key}=${{oc.env:NAME}}'."
            )


def masked(node: Any, key: str = "", inside: bool = False) -> Any:
    if isinstance(node, dict):
        inside = inside or key == OPTIONS
        return {name: masked(value, str(name), inside) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [masked(value, key, inside) for value in node]
    if isinstance(node, int | float) and inside and SECRET.search(key.lower()):
        return HIDDEN
    if not isinstance(node, str) or "${" in node:
        return node
    return HIDDEN if is_secret(key, node, inside) else masked_address(node)


def is_secret(key: str, value: str, inside: bool) -> bool:
    suspect = SECRET.search(key.lower()) or (inside and key not in PLAIN)
    return bool(suspect) and value not in PUBLIC and "${" not in value


def typed_secrets(plain: Any) -> Iterator[str]:
    """Yield the secrets in plain values."""
    for key, value in leaves(plain):
        name = key.rpartition(".")[2].partition("[")[0]
        if isinstance(value, str) and len(value) >= LEAST and is_secret(name, value, f".{OPTIONS}." in f".{key}"):
            yield value


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from leaves(value, f"{key}[{index}]")
    else:
        yield key, node
