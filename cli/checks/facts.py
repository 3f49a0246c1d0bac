"""Hold the facts about a configuration's data that its checks share."""

from __future__ import annotations

from dataclasses import dataclass, field

from emul.terminal.findings import Finding


@dataclass
class Facts:
    """What was learnt on the way: rows for the plan, warnings for what is allowed but seldom meant."""

    rows: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def refusal(key: str, expected: str, error: Exception, fix: str = "") -> Finding:
    """A finding in the words of the part that refused."""
    said = error.args[0] if isinstance(error, KeyError) and error.args else error
    if not isinstance(error, ValueError | KeyError | OSError | ImportError):  # not meant for a reader
        said = f"{type(error).__name__}: {error}"
    return Finding(key, expected, " ".join(str(said).split()).rstrip("."), fix, said=True)
