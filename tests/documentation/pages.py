"""Read the pages of the documentation: their commands, blocks of Python, and files, in order."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from places import ROOT

SHELL = ("bash", "sh", "shell", "console")
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.M | re.S)
FILE = re.compile(r"# (my_parts/[\w/.]+)[^\n]*\n(.*)", re.S)


@dataclass(frozen=True)
class Block:
    """One step of a page. kind: command, python or file. file: the path of a file that the page shows."""

    kind: str
    text: str
    file: str = ""


def pages() -> dict[str, Path]:
    """The hand-written pages and the README, by name."""
    folder = ROOT / "docs"
    found = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*.md"))
        if path.relative_to(folder).parts[0] not in ("reference", "_build")
    }
    root = {name: ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING")}
    return {name: path for name, path in (root | found).items() if path.is_file()}


def commands(text: str) -> list[str]:
    """The commands of the fenced shell blocks; lines that end in a backslash are joined, comments left out."""
    return [block.text for block in blocks(text) if block.kind == "command"]


def blocks(text: str) -> list[Block]:
    """The commands, blocks of Python and files of a page, in order."""
    found: list[Block] = []
    for indent, language, content in BLOCK.findall(text):
        body = re.sub(rf"^{indent}", "", content, flags=re.M)
        if language in SHELL:
            found += [Block("command", command) for command in _commands(body)]
        elif (match := FILE.match(body)) is not None:
            found.append(Block("file", match[2], match[1]))
        elif language == "python":
            found.append(Block("python", body))
    return found


def _commands(body: str) -> list[str]:
    words = (shlex.split(line, comments=True) for line in body.replace("\\\n", " ").splitlines())
    return [shlex.join(line).removeprefix("'$' ") for line in words if line]
