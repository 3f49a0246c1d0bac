"""Findings: what is wrong in a configuration, key by key, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from data_pipelines.conventions.suggestions import nearest_name


@dataclass(frozen=True)
class Finding:
    """One fault. key: dotted; expected and got: what should stand there and what does; fix: what to do.

    said: True where `got` is a sentence of the part that refused, which tells by itself what it expected.
    """

    key: str
    expected: str
    got: str
    fix: str = ""
    said: bool = False

    def __str__(self) -> str:
        told = self.got if self.said else f"expected {self.expected}, got {self.got}"
        told = f"{told}; {self.fix}" if self.fix else told
        return f"{self.key}: {told}" + ("" if told.endswith(("?", "!", ".")) else ".")


class ConfigErrors(ValueError):
    """All the findings of one configuration. rest: the configuration without what could not be composed, if any."""

    def __init__(self, findings: Iterable[Finding], rest: Any = None) -> None:
        self.findings, self.rest = list(findings), rest
        count = len(self.findings)
        title = "1 fault in the configuration:" if count == 1 else f"{count} faults in the configuration:"
        super().__init__("\n  ".join([title, *map(str, self.findings)]))


def offer(name: str, known: Iterable[str], verb: str = "write") -> str:
    """A fix in words: the nearest name, or the list of what there is."""
    known = list(known)
    best = nearest_name(name, known)
    if best:
        return f"{verb} {best}"
    return f"there is {', '.join(sorted(known)[:12])}" if known else ""
