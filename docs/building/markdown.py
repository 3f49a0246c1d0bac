"""Write MyST Markdown from comments and docstrings, which are plain text."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

CODE = re.compile(r"(`+[^`]*`+)")
CITATION = re.compile(
    r"arXiv[ :](\d{4}\.\d{4,5})|\bdoi[ :]+(10\.\d{4,}/[^\s,;)]*[^\s,;).])|(https?://[^\s,;)>]*[^\s,;).>])"
)


def inline(text: str) -> str:
    """Return text in which only backticks and citations are markup."""
    parts = CODE.split(text)
    return "".join(part if part.startswith("`") else _linked(part) for part in parts)


def _linked(text: str) -> str:
    pieces, end = [], 0
    for match in CITATION.finditer(text):
        pieces.append(_escaped(text[end : match.start()]))
        arxiv, doi, url = match.groups()
        shown = f"arXiv {arxiv}" if arxiv else f"doi {doi}" if doi else url
        target = f"https://arxiv.org/abs/{arxiv}" if arxiv else f"https://doi.org/{doi}" if doi else url
        pieces.append(f"[{_escaped(shown)}](<{target}>)")
        end = match.end()
    return "".join([*pieces, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_<>\[\]${}|~^#])", r"\\\1", text)


def code(text: str) -> str:
    """Return text as inline code, whatever it holds."""
    if not text:
        return ""
    ticks = "``" if "`" in text else "`"
    space = " " if "`" in text else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def prose(docstring: str) -> str:
    """Return a docstring as Markdown: indented blocks are code, `>>>` is Python, words such as `rate:` open a line."""
    blocks = re.split(r"\n{2,}", inspect.cleandoc(docstring))
    merged: list[str] = []
    for block in blocks:
        if merged and _is_indented(block) and _is_indented(merged[-1]):
            merged[-1] += f"\n\n{block}"
        else:
            merged.append(block)
    return "\n\n".join(map(_block, merged))


def _is_indented(block: str) -> bool:
    return all(line.startswith("    ") or not line.strip() for line in block.splitlines())


def _block(block: str) -> str:
    if _is_indented(block):
        return fenced(inspect.cleandoc(f"\n{block}"), "text")
    if block.startswith(">>>"):
        return fenced(block, "python")
    lines = []
    for line in block.splitlines():
        marker = re.match(r"\s*(?:- |\d+\. )?", line)[0]  # type: ignore[index]
        lines.append(marker + inline(line.removeprefix(marker)))
    return "\n".join(lines)


def fenced(text: str, language: str) -> str:
    """Return a fenced block of code."""
    return f"```{language}\n{text.rstrip()}\n```"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose cells are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text.replace("\n", " ")) or " "


def anchor(label: str, heading: str, level: int = 2) -> str:
    """Return a heading with a label that other pages link to as `[text](#label)`."""
    return f"({label})=\n\n{'#' * level} {heading}"
