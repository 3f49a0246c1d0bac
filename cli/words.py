"""Words of the command line that belong to a verb of `emul data`, and those that belong to the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emul.findings import nearest


def settings(arguments: list[str], kinds: Mapping[str, type]) -> tuple[dict[str, Any], list[str]]:
    """Values of the keys in `kinds`, and the rest of the words; ValueError where one is of another kind.

    A key without a dot that is no group of the configuration, but nearly one of these, is taken for a slip.
    """
    found, rest = {}, []
    for word in arguments:
        key, _, text = word.partition("=")
        if key not in kinds:
            best = nearest(key, list(kinds)) if "." not in key and "@" not in key else None
            if best and abs(len(best) - len(key)) < 3 and key not in ("data", "name", "output", "variables"):
                raise ValueError(f"No setting '{key}' here; did you mean {best}=?")
            rest.append(word)
            continue
        try:
            found[key] = kinds[key](text)
        except ValueError as error:
            words = {int: "a whole number", float: "a number"}.get(kinds[key], "text")
            raise ValueError(f"{key}: expected {words}; got '{text}'.") from error
    return found, rest
