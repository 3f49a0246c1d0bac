"""Remember per user whom to trust: packages and folders with parts, and settings that hold `${oc.env:...}`.

The file is emul/trusted.json in the user's folder of configurations (XDG_CONFIG_HOME, default ~/.config). EMUL_TRUST
names more packages and folders for one process and those it starts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

VARIABLE = "EMUL_TRUST"
KINDS = ("packages", "folders", "settings")


def trust_file() -> Path:
    """The path of the user's file."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(base, "emul", "trusted.json")


def remembered(kind: str) -> list[str]:
    """The names of a kind, `packages`, `folders` or `settings`; those of EMUL_TRUST included."""
    named = [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    chosen = {"packages": [n for n in named if not is_folder(n)], "folders": [n for n in named if is_folder(n)]}
    return [*chosen.get(kind, []), *_read().get(kind, [])]


def remember(kind: str, names: Iterable[str]) -> None:
    """Add names to the user's file, for later commands. Where it cannot be written, nothing is remembered."""
    known = _read()
    new = [name for name in names if name not in known.get(kind, [])]
    if not new:
        return
    file = trust_file()
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
            json.dump(known | {kind: [*known.get(kind, []), *new]}, opened, indent=1)
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
        found = json.loads(trust_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    kept = found if isinstance(found, dict) else {}
    return {kind: [str(name) for name in kept.get(kind) or []] for kind in KINDS if isinstance(kept.get(kind), list)}
