"""Findings: faults of a configuration, key by key, each with what was expected and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from data_pipelines.conventions.suggestions import nearest_name


@dataclass(frozen=True)
class Finding:
    """Describe one fault. key: dotted. expected, got: in words. fix: what to write instead.

    said: True where `got` is the message of the part that refused, which includes what it expected.
    """

    key: str
    expected: str
    got: str
    fix: str = ""
    said: bool = False

    def __str__(self) -> str:
        text = self.got if self.said else f"expected {self.expected}, got {self.got}"
        text = f"{text}; {self.fix}" if self.fix else text
        return f"{self.key}: {text}" + ("" if text.endswith(("?", "!", ".")) else ".")


class ConfigErrors(ValueError):
    """Raised with all findings of one configuration. rest: the configuration without what could not be composed."""

    def __init__(self, findings: Iterable[Finding], rest: Any = None) -> None:
        self.findings, self.rest = list(findings), rest
        count = len(self.findings)
        title = "1 fault in the configuration:" if count == 1 else f"{count} faults in the configuration:"
        super().__init__("\n  ".join([title, *map(str, self.findings)]))


def refusal(key: str, expected: str, error: Exception, fix: str = "") -> Finding:
    """A finding in the words of the part that raised `error`."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    if not isinstance(error, ValueError | KeyError | OSError | ImportError):  # not written for a reader
        text = f"{type(error).__name__}: {error}"
    return Finding(key, expected, " ".join(str(text).split()).rstrip("."), fix, said=True)


def offer(name: str, known: Iterable[str], verb: str = "write") -> str:
    """A fix in words: the nearest name, or the list of what there is."""
    known = list(known)
    best = nearest_name(name, known)
    if best:
        return f"{verb} {best}"
    return f"there is {', '.join(sorted(known)[:12])}" if known else ""
