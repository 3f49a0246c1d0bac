"""Findings: what is wrong in a configuration, key by key, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any


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


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None. Of dotted keys: one beside it, then one that ends in the same word."""
    known = list(known)
    parent, _, last = name.rpartition(".")
    by_tail = {key.rpartition(".")[2]: key for key in known}
    beside = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == parent}
    best = get_close_matches(last, beside, 1, 0.67)
    if best:
        return beside[best[0]]
    same = [key for key in known if key.rpartition(".")[2] == last]
    if same:
        return (get_close_matches(name, same, 1, 0.0) or same)[0]
    elsewhere = [key for key in known if not parent or key.rpartition(".")[0] != parent]
    best = get_close_matches(name, elsewhere, 1, 0.8 if parent else 0.6)
    if best:
        return best[0]
    best = get_close_matches(last, by_tail, 1, 0.85)
    if best:
        return by_tail[best[0]]
    inside = [key for key in beside if len(key) > 2 and (last in key or key in last)]
    return beside[inside[0]] if inside else None


def offer(name: str, known: Iterable[str], verb: str = "write") -> str:
    """A fix in words: the nearest name, or the list of what there is."""
    known = list(known)
    best = nearest_name(name, known)
    if best:
        return f"{verb} {best}"
    return f"there is {', '.join(sorted(known)[:12])}" if known else ""
